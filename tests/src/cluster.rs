//! Throw-away PostgreSQL servers, made as Debian makes them: `pg_createcluster`, the configuration outside the data directory.
//!
//! A cluster's configuration, socket, log and data lie in one directory of the caller's; nothing under `/etc` or `/var` is touched.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::{Account, Daemon, Failure, Result, ensure, free_port, wait_until};

/// Name under which a cluster is made.
const NAME: &str = "scratch";

/// How long a server may take to accept connections, replay of its log included.
const START: Duration = Duration::from_secs(120);

/// A PostgreSQL server, running or not.
pub struct Cluster {
    account: Account,
    programs: PathBuf,
    root: PathBuf,
    /// What `postgres -D` gets: the directory of `postgresql.conf`.
    configuration: PathBuf,
    data: PathBuf,
    port: u16,
    /// Settings for the command line only.
    overrides: Vec<String>,
    server: Option<Daemon>,
}

impl Cluster {
    /// Makes a cluster in a new directory and starts it with these settings besides the defaults.
    pub fn create(root: &Path, settings: &[(&str, &str)]) -> Result<Self> {
        let mut cluster = Self::at(root, root.join("data"))?;
        let (version, configuration) = cluster.make(settings)?;
        cluster.configuration = configuration;
        cluster.write_access_rules("all all scram-sha-256", "host")?;
        cluster
            .start()
            .map_err(|error| error.during(format!("PostgreSQL {version}")))?;
        Ok(cluster)
    }

    /// A server on a data directory that a restore wrote, configuration in it. It is not started.
    pub fn restored(root: &Path, data: &Path) -> Result<Self> {
        let mut cluster = Self::at(root, data.into())?;
        cluster.overrides = vec![
            format!("port={}", cluster.port),
            format!(
                "unix_socket_directories={}",
                cluster.socket_directory().display()
            ),
            "listen_addresses=127.0.0.1".into(),
        ];
        Ok(cluster)
    }

    fn at(root: &Path, data: PathBuf) -> Result<Self> {
        let account = Account::for_databases()?;
        fs::create_dir_all(root.join("socket"))?;
        account.own(root)?;
        account.own(&root.join("socket"))?;
        Ok(Self {
            account,
            programs: newest_programs()?,
            root: root.into(),
            configuration: data.clone(),
            data,
            port: free_port()?,
            overrides: Vec::new(),
            server: None,
        })
    }

    fn make(&self, settings: &[(&str, &str)]) -> Result<(String, PathBuf)> {
        let version = self
            .programs
            .ancestors()
            .nth(1)
            .and_then(Path::file_name)
            .map(|name| name.to_string_lossy().into_owned());
        let version =
            version.ok_or_else(|| Failure::new("PostgreSQL's programs lie in an unknown place"))?;
        let mut command = self.account.command("pg_createcluster", "KILL");
        command
            .env("PG_CLUSTER_CONF_ROOT", self.root.join("etc"))
            .env("LC_ALL", "C.UTF-8");
        command
            .arg(&version)
            .arg(NAME)
            .arg("--datadir")
            .arg(&self.data)
            .arg("--socketdir")
            .arg(self.socket_directory());
        command.arg("--logfile").arg(self.log()).args([
            "--start-conf",
            "manual",
            "--port",
            &self.port.to_string(),
        ]);
        // A throw-away server need not survive a power cut.
        let defaults = [
            ("fsync", "off"),
            ("listen_addresses", "127.0.0.1"),
            ("ssl", "off"),
            ("logging_collector", "off"),
        ];
        for (key, value) in defaults.iter().chain(settings) {
            command.arg("--pgoption").arg(format!("{key}={value}"));
        }
        command.args([
            "--",
            "--no-sync",
            "--username=postgres",
            "--encoding=UTF8",
            "--wal-segsize=16",
        ]);
        finished(&mut command)?;
        Ok((
            version.clone(),
            self.root.join("etc").join(version).join(NAME),
        ))
    }

    /// Replaces `pg_hba.conf`: everybody by the socket, and over TCP by one rule (`DATABASE USER METHOD`) for databases, with
    /// replication by the same. `kind` is `host` or `hostssl`.
    pub fn write_access_rules(&self, rule: &str, kind: &str) -> Result {
        let words: Vec<&str> = rule.split(' ').collect();
        let [database, user, method] = words[..] else {
            return Err(Failure::new("a rule is DATABASE USER METHOD"));
        };
        let rules = format!(
            "local all all trust\n{kind} {database} {user} 127.0.0.1/32 {method}\n{kind} replication {user} 127.0.0.1/32 {method}\n"
        );
        Ok(fs::write(self.configuration.join("pg_hba.conf"), rules)?)
    }

    /// Starts the server and waits until it answers.
    pub fn start(&mut self) -> Result {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log())?;
        self.account.own(&self.log())?;
        let mut command = self.account.command(self.programs.join("postgres"), "QUIT");
        command.arg("-D").arg(&self.configuration);
        for setting in &self.overrides {
            command.arg("-c").arg(setting);
        }
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let mut server = Daemon::spawn("postgres", &mut command, Signal::INT)?;
        wait_until("PostgreSQL accepts connections", START, || {
            if let Some(status) = server.ended()? {
                return Err(Failure::new(format!(
                    "PostgreSQL ended ({status}):\n{}",
                    self.log_text()
                )));
            }
            let mut ask = Command::new(self.programs.join("pg_isready"));
            ask.arg("--quiet")
                .arg("--host")
                .arg(self.socket_directory())
                .args(["--port", &self.port.to_string()]);
            Ok(ask.status()?.success().then_some(()))
        })?;
        self.server = Some(server);
        Ok(())
    }

    /// Stops the server in good order.
    pub fn stop(&mut self) -> Result {
        match self.server.take() {
            Some(mut server) => server.stop().map(drop),
            None => Ok(()),
        }
    }

    /// Its port on the loopback address.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Where its Unix socket lies.
    pub fn socket_directory(&self) -> PathBuf {
        self.root.join("socket")
    }

    /// What the server wrote to its log until now.
    pub fn log_text(&self) -> String {
        fs::read(self.log())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    fn log(&self) -> PathBuf {
        self.root.join("postgresql.log")
    }

    /// An empty directory that belongs to the server, for a tablespace.
    pub fn directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.root.join(name);
        fs::create_dir(&path)?;
        self.account.own(&path)?;
        Ok(path)
    }

    /// Runs SQL as the superuser by way of `psql`; the answer is its rows, columns separated by `|`.
    pub fn sql(&self, database: &str, sql: &str) -> Result<String> {
        let mut command = self.account.command(self.programs.join("psql"), "KILL");
        command.args([
            "--no-psqlrc",
            "--quiet",
            "--no-align",
            "--tuples-only",
            "--set=ON_ERROR_STOP=1",
            "--username=postgres",
        ]);
        command.arg("--host").arg(self.socket_directory()).args([
            "--port",
            &self.port.to_string(),
            "--dbname",
            database,
        ]);
        let script = self
            .root
            .join(format!("script-{:?}.sql", std::thread::current().id()));
        fs::write(&script, sql)?;
        command
            .arg("--file")
            .arg(&script)
            .env("PGCLIENTENCODING", "UTF8");
        finished(&mut command)
    }

    /// Fills a database with pgbench's tables: about 15 MB a unit of scale.
    pub fn fill(&self, database: &str, scale: u32) -> Result {
        self.pgbench(
            database,
            &["--initialize", "--quiet", "--scale", &scale.to_string()],
        )
    }

    /// Runs `pgbench` on a database.
    pub fn pgbench(&self, database: &str, arguments: &[&str]) -> Result {
        let mut command = self.account.command(self.programs.join("pgbench"), "KILL");
        command.arg("--host").arg(self.socket_directory()).args([
            "--port",
            &self.port.to_string(),
            "--username=postgres",
        ]);
        finished(command.args(arguments).arg(database)).map(drop)
    }

    /// A role that may take base backups, and nothing else.
    pub fn create_backup_role(&self, name: &str, password: &str) -> Result {
        self.sql(
            "postgres",
            &format!("CREATE ROLE {name} LOGIN REPLICATION PASSWORD '{password}'"),
        )
        .map(drop)
    }
}

/// The programs of the newest PostgreSQL that Debian installed.
fn newest_programs() -> Result<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql")
        .map_err(|error| Failure::from(error).during("PostgreSQL from Debian"))?;
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    for version in versions {
        let version = version?;
        let programs = version.path().join("bin");
        if let (Ok(number), true) = (
            version.file_name().to_string_lossy().parse(),
            programs.join("postgres").is_file(),
        ) {
            found.push((number, programs));
        }
    }
    found
        .into_iter()
        .max()
        .map(|(_, programs)| programs)
        .ok_or_else(|| Failure::new("no PostgreSQL under /usr/lib/postgresql"))
}

/// Standard output of a command that must succeed.
fn finished(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output()?;
    ensure(output.status.success(), || {
        format!(
            "{command:?}: {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    })?;
    Ok(String::from_utf8_lossy(&output.stdout)
        .trim_end()
        .to_owned())
}
