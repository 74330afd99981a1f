//! Throw-away PostgreSQL servers, from their start to their end, and what is asked of them in between.
//!
//! A cluster's configuration, socket, log and data lie in one directory of the caller's; nothing under `/etc` or `/var` is touched.

mod blueprint;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::programs::Programs;
use crate::{Account, Daemon, Failure, Result, ensure, free_port, wait_until};

pub use blueprint::Blueprint;

/// How long a server may take to accept connections, replay of its log included.
const START: Duration = Duration::from_secs(120);

/// How long what a server does by itself may take.
const CONDITION: Duration = Duration::from_secs(60);

/// A PostgreSQL server, running or not.
pub struct Cluster {
    account: Account,
    programs: Programs,
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
    /// A server on a data directory that a restore wrote, configuration in it. It is not started.
    pub fn restored(root: &Path, data: &Path) -> Result<Self> {
        Self::on(root, data, Programs::of_data(data)?)
    }

    /// A server of this one's version on a data directory that is yet to be made, configuration in it. It is not started.
    pub(crate) fn sibling(&self, root: &Path, data: &Path) -> Result<Self> {
        Self::on(root, data, self.programs.clone())
    }

    fn on(root: &Path, data: &Path, programs: Programs) -> Result<Self> {
        let mut cluster = Self::at(root, data.into(), programs)?;
        cluster.overrides = vec![
            format!("port={}", cluster.port),
            format!("unix_socket_directories={}", cluster.socket_directory().display()),
            "listen_addresses=127.0.0.1".into(),
        ];
        Ok(cluster)
    }

    /// The cluster that [`create`](Self::create) made in this directory earlier. It is not started.
    pub fn reopened(root: &Path) -> Result<Self> {
        let mut cluster = Self::at(root, root.join("data"), Programs::of_data(&root.join("data"))?)?;
        if cluster.programs.are_debians() {
            cluster.configuration = cluster.debian_configuration();
        }
        cluster.set(format!("port={}", cluster.port));
        Ok(cluster)
    }

    /// Adds a setting, `key=value`, that holds from the next start and stands in no file.
    pub fn set(&mut self, setting: String) {
        self.overrides.push(setting);
    }

    fn at(root: &Path, data: PathBuf, programs: Programs) -> Result<Self> {
        let account = Account::for_databases()?;
        fs::create_dir_all(root.join("socket"))?;
        account.own(root)?;
        account.own(&root.join("socket"))?;
        Ok(Self {
            programs: programs.reachable_by(&account, root)?,
            account,
            root: root.into(),
            configuration: data.clone(),
            data,
            port: free_port()?,
            overrides: Vec::new(),
            server: None,
        })
    }

    /// Replaces `pg_hba.conf`: everybody by the socket; by password over TCP, which is `host`, or only over TLS, `hostssl`.
    pub fn admit(&self, kind: &str) -> Result {
        let rule = |databases| format!("{kind} {databases} all 127.0.0.1/32 scram-sha-256");
        self.admit_by(&["local all,replication all trust", &rule("all"), &rule("replication")])
    }

    /// Replaces `pg_hba.conf` by these lines.
    pub fn admit_by(&self, rules: &[&str]) -> Result {
        Ok(fs::write(self.configuration.join("pg_hba.conf"), rules.join("\n") + "\n")?)
    }

    /// Replaces `pg_ident.conf` by these lines: which users of the machine are which roles.
    pub fn map_users(&self, lines: &[&str]) -> Result {
        Ok(fs::write(self.configuration.join("pg_ident.conf"), lines.join("\n") + "\n")?)
    }

    /// Has the server read its configuration again; returns once it has.
    pub fn reload(&self) -> Result {
        let loaded = || self.sql("postgres", "SELECT pg_conf_load_time()");
        let before = loaded()?;
        self.sql("postgres", "SELECT pg_reload_conf()")?;
        wait_until("the server has read its configuration", CONDITION, || Ok((loaded()? != before).then_some(())))
    }

    /// Starts the server and waits until it answers.
    pub fn start(&mut self) -> Result {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log())?;
        self.account.own(&self.log())?;
        let mut command = self.account.command(self.programs.server("postgres"), "QUIT");
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
            let mut ask = Command::new(self.programs.client("pg_isready"));
            ask.arg("--quiet").arg("--host").arg(self.socket_directory()).args(["--port", &self.port.to_string()]);
            Ok(ask.status()?.success().then_some(()))
        })?;
        self.server = Some(server);
        Ok(())
    }

    /// Ends it as a power cut would: a process of the server that outlived it would keep the next one from starting.
    pub fn kill(&mut self) -> Result {
        match self.server.take() {
            Some(mut server) => server.kill_with_children(),
            None => Err(Failure::new("PostgreSQL was to be killed, but it does not run")),
        }
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

    /// A client program that connects by the socket as the superuser.
    pub fn client(&self, name: &str) -> Command {
        let mut command = self.account.command(self.programs.client(name), "KILL");
        command.arg("--host").arg(self.socket_directory()).args(["--port", &self.port.to_string()]);
        command.arg("--username=postgres");
        command
    }

    /// Runs SQL as the superuser by way of `psql`; the answer is its rows, columns separated by `|`.
    pub fn sql(&self, database: &str, sql: &str) -> Result<String> {
        let mut command = self.client("psql");
        command.args(["--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1"]);
        command.args(["--dbname", database]);
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
        finished(self.client("pgbench").args(arguments).arg(database)).map(drop)
    }

    /// Runs a client program beside us, until it ends by itself or with its value.
    pub fn beside_us(&self, client: &str, arguments: &[&str]) -> Result<Daemon> {
        let mut command = self.client(client);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Daemon::spawn(client, &mut command, Signal::INT)
    }

    /// Waits until a condition in SQL holds.
    pub fn until(&self, condition: &str) -> Result {
        let ask = format!("SELECT {condition}");
        wait_until(condition, CONDITION, || Ok((self.sql("postgres", &ask)? == "t").then_some(())))
    }

    /// A role that may take base backups, and nothing else.
    pub fn create_backup_role(&self, name: &str, password: &str) -> Result {
        self.sql("postgres", &format!("CREATE ROLE {name} LOGIN REPLICATION PASSWORD '{password}'")).map(drop)
    }
}

/// Standard output of a command that must succeed.
pub fn finished(command: &mut Command) -> Result<String> {
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
