//! A MinIO server of the test's own, with a bucket that keeps versions and locks them; and somebody who has its credentials.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::daemon::leashed;
use crate::places::beside_programs;
use crate::s3::{ACCESS_KEY, BUCKET, SECRET_KEY, target_arguments, url_at};
use crate::{Daemon, Failure, Result, Workdir, ensure, free_port, wait_until};

/// How long a server may take to answer.
const START: Duration = Duration::from_secs(60);

/// A running server.
pub struct Minio {
    _server: Daemon,
    port: u16,
    tls: Option<PathBuf>,
}

/// A version of an object, or the marker of its deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its key in the bucket.
    pub key: String,
    /// Its version.
    pub version: String,
    /// In bytes; 0 for a marker.
    pub length: u64,
    /// Whether it only says that the object was deleted.
    pub is_marker: bool,
}

impl Minio {
    /// Serves an empty bucket with object lock below this directory.
    pub fn start(directory: &Path) -> Result<Self> {
        Self::serve(directory, None)
    }

    /// The same over TLS, with a certificate and its key in PEM, trusted by who trusts `authority`.
    pub fn start_with_tls(directory: &Path, certificate: &Path, key: &Path, authority: &Path) -> Result<Self> {
        let certificates = directory.join("certificates");
        fs::create_dir_all(&certificates)?;
        fs::copy(certificate, certificates.join("public.crt"))?;
        fs::copy(key, certificates.join("private.key"))?;
        Self::serve(directory, Some(authority.to_owned()))
    }

    fn serve(directory: &Path, tls: Option<PathBuf>) -> Result<Self> {
        let data = directory.join("data");
        fs::create_dir_all(&data)?;
        let port = free_port()?;
        let log = fs::File::create(directory.join("log"))?;
        let mut command = leashed(&beside_programs("servers/minio")?, "KILL", &[]);
        command.args(["server", "--quiet", "--address", &format!("127.0.0.1:{port}")]);
        command.args(["--console-address", &format!("127.0.0.1:{}", free_port()?), "--certs-dir"]);
        command.arg(directory.join("certificates")).arg(&data);
        command.env("MINIO_ROOT_USER", ACCESS_KEY).env("MINIO_ROOT_PASSWORD", SECRET_KEY);
        // Without it the server refuses directories of the system's own disk.
        command.env("MINIO_CI_CD", "1").env("HOME", directory);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut server = Daemon::spawn("minio", &mut command, Signal::TERM)?;
        wait_until("MinIO listens", START, || match server.ended()? {
            Some(status) => Err(Failure::new(format!("MinIO ended: {status}"))),
            None => Ok(TcpStream::connect(("127.0.0.1", port)).ok().map(drop)),
        })?;
        let minio = Self { _server: server, port, tls };
        wait_until("MinIO makes a bucket", START, || {
            let made = minio.ask("", &["-X", "PUT", "-H", "x-amz-bucket-object-lock-enabled: true"])?;
            Ok((made.0 == 200).then_some(()))
        })?;
        Ok(minio)
    }

    /// The port that it serves.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its endpoint.
    pub fn endpoint(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// The URL of a target below a prefix.
    pub fn url(&self, prefix: &str) -> String {
        url_at(&self.endpoint(), prefix)
    }

    /// Arguments for `holdfast target add NAME` and a site, with the keys.
    pub fn target_arguments(&self, name: &str, site: &str, workdir: &Workdir) -> Result<Vec<String>> {
        target_arguments(name, &self.url("backups"), site, workdir)
    }

    /// Everything that is kept below a prefix, deleted or not, as one with all credentials sees it.
    pub fn kept(&self, prefix: &str) -> Result<Vec<Kept>> {
        let (mut kept, mut marker, prefix) = (Vec::new(), String::new(), prefix.replace('/', "%2F"));
        loop {
            let (status, page) = self.ask(&format!("?key-marker={marker}&prefix={prefix}&versions="), &[])?;
            ensure(status == 200, || format!("listing versions: {page}"))?;
            for (element, is_marker) in [("Version", false), ("DeleteMarker", true)] {
                for part in page.split(&format!("<{element}>")).skip(1) {
                    let (key, version) = (inside(part, "Key")?, inside(part, "VersionId")?);
                    let length = if is_marker { 0 } else { inside(part, "Size")?.parse()? };
                    kept.push(Kept { key, version, length, is_marker });
                }
            }
            if inside(&page, "IsTruncated")? == "false" {
                return Ok(kept);
            }
            marker = inside(&page, "NextKeyMarker")?.replace('/', "%2F");
        }
    }

    /// Puts other content in an object's place: the HTTP status.
    pub fn overwrite(&self, key: &str, content: &Path) -> Result<u16> {
        Ok(self.ask(&format!("/{key}"), &["-T", &content.display().to_string()])?.0)
    }

    /// Deletes an object, as everybody does: the HTTP status.
    pub fn delete(&self, key: &str) -> Result<u16> {
        Ok(self.ask(&format!("/{key}"), &["-X", "DELETE"])?.0)
    }

    /// Deletes one version for good, past governance where that can be passed: the HTTP status.
    pub fn destroy(&self, kept: &Kept) -> Result<u16> {
        let bypass = "x-amz-bypass-governance-retention: true";
        let place = format!("/{}?versionId={}", kept.key, kept.version);
        Ok(self.ask(&place, &["-X", "DELETE", "-H", bypass])?.0)
    }

    /// Deletes one version for good, as who may not pass governance: the HTTP status.
    pub fn destroy_within_the_rules(&self, kept: &Kept) -> Result<u16> {
        Ok(self.ask(&format!("/{}?versionId={}", kept.key, kept.version), &["-X", "DELETE"])?.0)
    }

    /// Until when a version is locked, as seconds since 1970; 0 if it is not.
    pub fn locked_until(&self, kept: &Kept) -> Result<u64> {
        let (status, head) = self.ask(&format!("/{}?versionId={}", kept.key, kept.version), &["--head"])?;
        ensure(status == 200, || format!("looking up {kept:?}: {head}"))?;
        let date = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("x-amz-object-lock-retain-until-date").then(|| value.trim().to_owned())
        });
        let Some(date) = date else { return Ok(0) };
        let output = Command::new("date").args(["--date", &date, "+%s"]).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().parse()?)
    }

    /// One signed request on the bucket: status and body.
    fn ask(&self, place: &str, words: &[&str]) -> Result<(u16, String)> {
        let mut command = Command::new("curl");
        command.args([
            "--silent",
            "--show-error",
            "--aws-sigv4",
            "aws:amz:us-east-1:s3",
            "--write-out",
            "\n%{http_code}",
        ]);
        command.args(["--user", &format!("{ACCESS_KEY}:{SECRET_KEY}")]).args(words);
        if let Some(authority) = &self.tls {
            command.arg("--cacert").arg(authority);
        }
        let output = command.arg(format!("{}/{BUCKET}{place}", self.endpoint())).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let said = || Failure::new(format!("curl: {}", String::from_utf8_lossy(&output.stderr)));
        let (body, status) = text.rsplit_once('\n').ok_or_else(said)?;
        Ok((status.parse()?, body.to_owned()))
    }
}

/// The text of an element.
fn inside(text: &str, element: &str) -> Result<String> {
    let (begin, end) = (format!("<{element}>"), format!("</{element}>"));
    let found =
        text.split_once(&begin).and_then(|(_, rest)| rest.split_once(&end)).map(|(inside, _)| inside.to_owned());
    found.ok_or_else(|| Failure::new(format!("no {element} in {text}")))
}
