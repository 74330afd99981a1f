//! How clusters are made: of Debian's version as Debian makes them, the configuration outside the data directory; of others as
//! `initdb` makes them, with it inside.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Cluster, finished};
use crate::Result;
use crate::programs::Programs;

/// Name under which Debian's tools make a cluster.
const NAME: &str = "scratch";

/// What every server of ours is set to: a throw-away one need not survive a power cut.
const DEFAULTS: &[(&str, &str)] = &[
    ("fsync", "off"),
    ("listen_addresses", "127.0.0.1"),
    ("ssl", "off"),
    // The default of old versions is md5.
    ("password_encryption", "scram-sha-256"),
];

/// How a cluster is made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Blueprint<'a> {
    /// Of which major version; none: Debian's.
    pub major: Option<u32>,
    /// Arguments for `initdb` besides the usual ones.
    pub initdb: &'a [&'a str],
    /// Settings besides the defaults.
    pub settings: &'a [(&'a str, &'a str)],
}

impl Cluster {
    /// Makes a cluster in a new directory and starts it with these settings besides the defaults.
    pub fn create(root: &Path, settings: &[(&str, &str)]) -> Result<Self> {
        Self::build(root, &Blueprint { settings, ..Blueprint::default() })
    }

    /// Makes a cluster in a new directory and starts it.
    pub fn build(root: &Path, blueprint: &Blueprint) -> Result<Self> {
        let programs = blueprint.major.map_or_else(Programs::debian, Programs::of)?;
        let mut cluster = Self::at(root, root.join("data"), programs)?;
        match cluster.programs.are_debians() {
            true => cluster.make_as_debian(blueprint)?,
            false => cluster.make(blueprint)?,
        }
        cluster.admit("host")?;
        cluster.start()?;
        Ok(cluster)
    }

    /// Makes the files as Debian's tools do, which keep the configuration elsewhere.
    fn make_as_debian(&mut self, blueprint: &Blueprint) -> Result {
        let major = self.programs.major.to_string();
        let mut command = self.account.command("pg_createcluster", "KILL");
        command
            .env("PG_CLUSTER_CONF_ROOT", self.root.join("etc"))
            .env("LC_ALL", "C.UTF-8")
            .args([&major, NAME, "--start-conf", "manual"])
            .args(["--port", &self.port.to_string()])
            .arg("--datadir")
            .arg(&self.data)
            .arg("--socketdir")
            .arg(self.socket_directory())
            .arg("--logfile")
            .arg(self.log())
            .args(["--", "--no-sync", "--username=postgres", "--encoding=UTF8"])
            .args(blueprint.initdb);
        finished(&mut command)?;
        self.configuration = self.debian_configuration();
        Ok(fs::write(self.configuration.join("conf.d/scratch.conf"), lines(blueprint.settings))?)
    }

    /// Where the configuration lies then.
    pub(super) fn debian_configuration(&self) -> PathBuf {
        self.root.join(format!("etc/{}/{NAME}", self.programs.major))
    }

    /// Makes the files, configuration among them.
    fn make(&self, blueprint: &Blueprint) -> Result {
        let mut command = self.account.command(self.programs.server("initdb"), "KILL");
        command
            .args(["--no-sync", "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8", "--auth=trust"])
            .args(blueprint.initdb)
            .arg("--pgdata")
            .arg(&self.data);
        finished(&mut command)?;
        let file = self.data.join("postgresql.conf");
        let (port, sockets) = (self.port.to_string(), self.socket_directory().display().to_string());
        let place = [("port", port.as_str()), ("unix_socket_directories", &sockets)];
        let settings: Vec<_> = place.iter().chain(blueprint.settings).copied().collect();
        Ok(fs::write(&file, fs::read_to_string(&file)? + &lines(&settings))?)
    }
}

/// As `postgresql.conf` has them, after the defaults.
fn lines(settings: &[(&str, &str)]) -> String {
    DEFAULTS.iter().chain(settings).map(|(key, value)| format!("{key} = '{value}'\n")).collect()
}
