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
        let (version, programs) = newest_programs()?;
        let mut cluster = Self::at(root, root.join("data"), programs)?;
        cluster.configuration = cluster.make(version, settings)?;
        cluster.admit("host")?;
        cluster.start()?;
        Ok(cluster)
    }

    /// A server on a data directory that a restore wrote, configuration in it. It is not started.
    pub fn restored(root: &Path, data: &Path) -> Result<Self> {
        let (_, programs) = newest_programs()?;
        let mut cluster = Self::at(root, data.into(), programs)?;
        cluster.overrides = vec![
            format!("port={}", cluster.port),
            format!("unix_socket_directories={}", cluster.socket_directory().display()),
            "listen_addresses=127.0.0.1".into(),
        ];
        Ok(cluster)
    }

    fn at(root: &Path, data: PathBuf, programs: PathBuf) -> Result<Self> {
        let account = Account::for_databases()?;
        fs::create_dir_all(root.join("socket"))?;
        account.own(root)?;
        account.own(&root.join("socket"))?;
        Ok(Self {
            account,
            programs,
            root: root.into(),
            configuration: data.clone(),
            data,
            port: free_port()?,
            overrides: Vec::new(),
            server: None,
        })
    }

    /// Makes the cluster's files; returns the directory of its configuration.
    fn make(&self, version: u32, settings: &[(&str, &str)]) -> Result<PathBuf> {
        let mut command = self.account.command("pg_createcluster", "KILL");
        command
            .env("PG_CLUSTER_CONF_ROOT", self.root.join("etc"))
            .env("LC_ALL", "C.UTF-8")
            .args([&version.to_string(), NAME, "--start-conf", "manual"])
            .args(["--port", &self.port.to_string()])
            .arg("--datadir")
            .arg(&self.data)
            .arg("--socketdir")
            .arg(self.socket_directory())
            .arg("--logfile")
            .arg(self.log())
            .args(["--", "--no-sync", "--username=postgres", "--encoding=UTF8"]);
        finished(&mut command)?;

        let configuration = self.root.join(format!("etc/{version}/{NAME}"));
        // A throw-away server need not survive a power cut.
        let defaults = [("fsync", "off"), ("listen_addresses", "127.0.0.1"), ("ssl", "off")];
        let all = defaults.iter().chain(settings);
        let lines: String = all.map(|(key, value)| format!("{key} = '{value}'\n")).collect();
        fs::write(configuration.join("conf.d/scratch.conf"), lines)?;
        Ok(configuration)
    }

    /// Replaces `pg_hba.conf`: everybody by the socket; by password over TCP, which is `host`, or only over TLS, `hostssl`.
    pub fn admit(&self, kind: &str) -> Result {
        let rule = |databases| format!("{kind} {databases} all 127.0.0.1/32 scram-sha-256\n");
        let rules = ["local all all trust\n", &rule("all"), &rule("replication")].concat();
        Ok(fs::write(self.configuration.join("pg_hba.conf"), rules)?)
    }

    /// Starts the server and waits until it answers.
    pub fn start(&mut self) -> Result {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log())?;
        self.account.own(&self.log())?;
        let mut command = self.account.command(self.programs.join("postgres"), "QUIT");
        command.arg("-D").arg(&self.configuration);
        for setting in &self.overrides {
            command.arg("-c").arg(setting);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut server = Daemon::spawn("postgres", &mut command, Signal::INT)?;
        wait_until("PostgreSQL accepts connections", START, || {
            if let Some(status) = server.ended()? {
                return Err(Failure::new(format!("PostgreSQL ended ({status}):\n{}", self.log_text())));
            }
            let mut ask = Command::new(self.programs.join("pg_isready"));
            ask.arg("--quiet").arg("--host").arg(self.socket_directory()).args(["--port", &self.port.to_string()]);
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

    /// Its process id.
    pub fn process(&self) -> Result<u32> {
        self.server.as_ref().map(Daemon::pid).ok_or_else(|| Failure::new("PostgreSQL does not run"))
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
        fs::read(self.log()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
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
        let script = self.root.join(format!("script-{:?}.sql", std::thread::current().id()));
        fs::write(&script, sql)?;
        command.arg("--file").arg(&script).env("PGCLIENTENCODING", "UTF8");
        finished(&mut command)
    }

    /// Fills a database with pgbench's tables: about 15 MB a unit of scale.
    pub fn fill(&self, database: &str, scale: u32) -> Result {
        self.pgbench(database, &["--initialize", "--quiet", "--scale", &scale.to_string()])
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
        self.sql("postgres", &format!("CREATE ROLE {name} LOGIN REPLICATION PASSWORD '{password}'")).map(drop)
    }
}

/// The newest PostgreSQL that Debian installed: its major version and the directory of its programs.
fn newest_programs() -> Result<(u32, PathBuf)> {
    let mut found = Vec::new();
    for version in fs::read_dir("/usr/lib/postgresql").into_iter().flatten() {
        let version = version?;
        let programs = version.path().join("bin");
        if let Ok(number) = version.file_name().to_string_lossy().parse::<u32>()
            && programs.join("postgres").is_file()
        {
            found.push((number, programs));
        }
    }
    let newest = found.into_iter().max();
    newest.ok_or_else(|| Failure::new("no PostgreSQL below /usr/lib/postgresql"))
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
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}
