//! An OpenSSH server of the test's own: an unprivileged port, its own configuration and keys, one directory to keep files in.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Signal, kill_process};

use crate::daemon::leashed;
use crate::{Daemon, Failure, Result, ensure, free_port, wait_until};

/// What seals the private key of [`Sshd::encrypted_key`].
pub const PASSPHRASE: &str = "ssh-passphrase-needle-Tz4";

const SSHD: &str = "/usr/sbin/sshd";
const SUBSYSTEM: &str = "/usr/lib/openssh/sftp-server";
/// How long a server may take to listen.
const START: Duration = Duration::from_secs(30);

/// A running server.
pub struct Sshd {
    server: Option<Daemon>,
    directory: PathBuf,
    port: u16,
}

impl Sshd {
    /// A server that keeps its keys, and below `root` its files, in this directory.
    pub fn start(directory: &Path) -> Result<Self> {
        Self::without(directory, &[])
    }

    /// The same, refusing requests by the names that `sftp-server -Q requests` lists, and announcing none of them.
    pub fn without(directory: &Path, requests: &[&str]) -> Result<Self> {
        ensure(Path::new(SSHD).exists(), || format!("there is no {SSHD}; `cargo xtask setup` installs it"))?;
        let at = |name: &str| directory.join(name);
        fs::create_dir_all(at("root"))?;
        for (name, passphrase) in [("host", ""), ("user", ""), ("stranger", ""), ("encrypted", PASSPHRASE)] {
            make_key(&at(name), passphrase)?;
        }
        fs::write(at("authorized"), fs::read_to_string(at("user.pub"))? + &fs::read_to_string(at("encrypted.pub"))?)?;
        if rustix::process::geteuid().is_root() {
            // The server separates its privileges in this directory, and does not start as root without it.
            fs::create_dir_all("/run/sshd")?;
        }
        let refused = if requests.is_empty() { String::new() } else { format!(" -P {}", requests.join(",")) };
        let mut server = Self { server: None, directory: directory.to_owned(), port: free_port()? };
        server.configure(&format!("{SUBSYSTEM}{refused}"))?;
        server.resume()?;
        Ok(server)
    }

    /// From the next session on, every call of this kind fails on the server with this error, by `strace`.
    pub fn fail(&self, call: &str, error: &str) -> Result {
        self.configure(&format!(
            "/usr/bin/strace -f -o /dev/null -e trace={call} -e inject={call}:error={error} {SUBSYSTEM}"
        ))
    }

    fn configure(&self, subsystem: &str) -> Result {
        let at = |name: &str| self.directory.join(name).display().to_string();
        let lines = [
            format!("Port {}", self.port),
            "ListenAddress 127.0.0.1".to_owned(),
            format!("HostKey {}", at("host")),
            format!("AuthorizedKeysFile {}", at("authorized")),
            "PidFile none".to_owned(),
            "StrictModes no".to_owned(),
            "UsePAM no".to_owned(),
            "PermitRootLogin yes".to_owned(),
            "PasswordAuthentication yes".to_owned(),
            format!("Subsystem sftp {subsystem}"),
        ];
        Ok(fs::write(self.directory.join("sshd_config"), lines.join("\n") + "\n")?)
    }

    /// Serves again, after [`pause`](Self::pause), at the port that it had.
    pub fn resume(&mut self) -> Result {
        let log_path = self.directory.join("log");
        let log = fs::OpenOptions::new().create(true).append(true).open(&log_path)?;
        let mut command = leashed(Path::new(SSHD), "KILL", &[]);
        command.args(["-D", "-e", "-f"]).arg(self.directory.join("sshd_config"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut server = Daemon::spawn("sshd", &mut command, Signal::TERM)?;
        let log = || fs::read_to_string(&log_path).unwrap_or_default();
        wait_until("sshd listens", START, || match server.ended()? {
            Some(status) => Err(Failure::new(format!("sshd ended ({status}): {}", log()))),
            None => Ok(TcpStream::connect(("127.0.0.1", self.port)).ok().map(drop)),
        })?;
        self.server = Some(server);
        Ok(())
    }

    /// Refuses connections and cuts those that there are, with all that was stored in place.
    pub fn pause(&mut self) -> Result {
        self.cut_sessions()?;
        self.server.take().map_or(Ok(()), |mut server| server.kill())
    }

    /// Kills the processes that serve the sessions: connections break where they are.
    pub fn cut_sessions(&self) -> Result {
        let Some(server) = &self.server else { return Ok(()) };
        for child in server.children()? {
            // One that ended by itself is cut too.
            let _ = kill_process(child, Signal::KILL);
        }
        Ok(())
    }

    /// Where the files lie.
    pub fn root(&self) -> PathBuf {
        self.directory.join("root")
    }

    /// The URL of a target in a directory below the root, which need not be there yet.
    pub fn url(&self, directory: &str) -> Result<String> {
        let user = output(Command::new("id").arg("-un"))?;
        let path = self.root().join(directory);
        Ok(format!("sftp://{}@127.0.0.1:{}{}", user.trim(), self.port, path.display()))
    }

    /// The fingerprint of the server's key.
    pub fn fingerprint(&self) -> Result<String> {
        let line = output(Command::new("ssh-keygen").arg("-lf").arg(self.directory.join("host.pub")))?;
        line.split(' ').nth(1).map(String::from).ok_or_else(|| Failure::new(format!("no fingerprint in {line:?}")))
    }

    /// The private key of the user that the server lets in: a file.
    pub fn key(&self) -> PathBuf {
        self.directory.join("user")
    }

    /// A private key that the server does not know: a file.
    pub fn strangers_key(&self) -> PathBuf {
        self.directory.join("stranger")
    }

    /// A private key that it knows, sealed by [`PASSPHRASE`]: a file.
    pub fn encrypted_key(&self) -> PathBuf {
        self.directory.join("encrypted")
    }

    /// The settings that let one in.
    pub fn settings(&self) -> Result<BTreeMap<String, String>> {
        let key = fs::read_to_string(self.key())?.trim_end().to_owned();
        Ok([("host-key".to_owned(), self.fingerprint()?), ("private-key".to_owned(), key)].into())
    }

    /// The same as arguments for `holdfast`.
    pub fn arguments(&self) -> Result<Vec<String>> {
        let (pin, key) = (format!("host-key={}", self.fingerprint()?), format!("private-key={}", self.key().display()));
        Ok(vec!["--set".into(), pin, "--secret-file".into(), key])
    }

    /// All that is no directory, by its path below the root, sorted.
    pub fn files(&self) -> Result<Vec<String>> {
        let (root, mut files, mut waiting) = (self.root(), Vec::new(), vec![self.root()]);
        while let Some(directory) = waiting.pop() {
            for entry in fs::read_dir(directory)? {
                let entry = entry?;
                match entry.file_type()?.is_dir() {
                    true => waiting.push(entry.path()),
                    false => files.push(entry.path().strip_prefix(&root)?.display().to_string()),
                }
            }
        }
        files.sort();
        Ok(files)
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        // Those that serve sessions are not the server's own process, and would outlive it.
        let _ = self.cut_sessions();
    }
}

fn make_key(path: &Path, passphrase: &str) -> Result {
    output(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", passphrase, "-f"]).arg(path)).map(drop)
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    ensure(output.status.success(), || format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
