//! An S3 service in a process of its own, with faults on demand. The service itself is `bin/s3-server.rs`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;

use crate::daemon::leashed;
use crate::{Daemon, Failure, Result, Workdir, program, wait_until};

/// Its access key.
pub const ACCESS_KEY: &str = "holdfast-tests";
/// Its secret key: a needle too.
pub const SECRET_KEY: &str = "wJ4-s3-secret-needle-Qm81";
/// Its only bucket.
pub const BUCKET: &str = "vault";

/// While this file is in the control directory, every upload waits.
pub const HOLD: &str = "hold";
/// Exists once an upload waits.
pub const HELD: &str = "held";
/// Holds how many of the next requests are answered with 503.
pub const UNAVAILABLE: &str = "unavailable";

/// A running service, its objects in one directory.
pub struct S3Server {
    server: Option<Daemon>,
    address: String,
    root: PathBuf,
    control: PathBuf,
}

/// The URL of a target below a prefix of the bucket at this endpoint.
pub fn url_at(endpoint: &str, prefix: &str) -> String {
    format!("s3://{BUCKET}/{prefix}?endpoint={endpoint}&region=us-east-1&style=path")
}

/// Arguments for `holdfast target add NAME URL` and a site, with the keys.
pub fn target_arguments(name: &str, url: &str, site: &str, workdir: &Workdir) -> Result<Vec<String>> {
    let secret = workdir.secret("s3-secret-key", SECRET_KEY)?;
    let words = ["target", "add", name, url, "--site", site, "--set", &format!("access-key={ACCESS_KEY}")];
    let mut words: Vec<String> = words.into_iter().map(String::from).collect();
    words.extend(["--secret-file".into(), format!("secret-key={}", secret.display())]);
    Ok(words)
}

impl S3Server {
    /// Serves an empty bucket below this directory.
    pub fn start(directory: &Path) -> Result<Self> {
        let (root, control) = (directory.join("objects"), directory.join("control"));
        fs::create_dir_all(root.join(BUCKET))?;
        fs::create_dir_all(&control)?;
        let mut service = Self { server: None, address: "127.0.0.1:0".into(), root, control };
        service.resume()?;
        Ok(service)
    }

    /// Serves again, after [`pause`](Self::pause), at the address that it had.
    pub fn resume(&mut self) -> Result {
        let mut command = leashed(&program("s3-server")?, "KILL", &[]);
        command.arg(&self.address).arg(&self.root).arg(&self.control).args([ACCESS_KEY, SECRET_KEY]);
        // Its own log: a server that outlives us must not hold our caller's pipe open.
        let log = fs::OpenOptions::new().create(true).append(true).open(self.control.with_extension("log"))?;
        command.stderr(log);
        let mut server = Daemon::spawn("s3-server", command.stdin(Stdio::null()).stdout(Stdio::piped()), Signal::TERM)?;
        let mut line = String::new();
        if let Some(output) = server.take_stdout() {
            BufReader::new(output).read_line(&mut line)?;
        }
        let address =
            line.trim().strip_prefix("listening on ").ok_or_else(|| Failure::new("s3-server did not start"))?;
        self.address = address.into();
        self.server = Some(server);
        Ok(())
    }

    /// Refuses connections, with all that was stored in place.
    pub fn pause(&mut self) -> Result {
        match self.server.take() {
            Some(mut server) => server.kill(),
            None => Ok(()),
        }
    }

    /// Its process id.
    pub fn process(&self) -> Result<u32> {
        self.server.as_ref().map(Daemon::pid).ok_or_else(|| Failure::new("the S3 service does not run"))
    }

    /// The port that it serves.
    pub fn port(&self) -> Result<u16> {
        let port = self.address.rsplit(':').next().unwrap_or_default();
        Ok(port.parse()?)
    }

    /// The URL of a target below a prefix.
    pub fn url(&self, prefix: &str) -> String {
        url_at(&format!("http://{}", self.address), prefix)
    }

    /// Arguments for `holdfast target add NAME` and a site, with the keys.
    pub fn target_arguments(&self, name: &str, prefix: &str, site: &str, workdir: &Workdir) -> Result<Vec<String>> {
        target_arguments(name, &self.url(prefix), site, workdir)
    }

    /// Where the objects lie as files.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Lets every upload from now on wait until [`release`](Self::release).
    pub fn hold_uploads(&self) -> Result {
        Ok(fs::write(self.control.join(HOLD), "")?)
    }

    /// Returns once an upload waits.
    pub fn wait_until_held(&self, within: Duration) -> Result {
        wait_until("an upload reaches the S3 service", within, || Ok(self.control.join(HELD).exists().then_some(())))
    }

    /// Lets uploads pass again.
    pub fn release(&self) -> Result {
        fs::remove_file(self.control.join(HOLD))?;
        Ok(())
    }

    /// Answers this many requests with 503.
    pub fn be_unavailable(&self, requests: u32) -> Result {
        Ok(fs::write(self.control.join(UNAVAILABLE), requests.to_string())?)
    }

    /// How many answers with 503 are still to come.
    pub fn unavailable_left(&self) -> u32 {
        fs::read_to_string(self.control.join(UNAVAILABLE)).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    }
}
