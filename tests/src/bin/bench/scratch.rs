//! The directory that everything is made in. It goes when we end, however that happens; clusters stay where that is asked for.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use holdfast_tests::cluster::Cluster;
use holdfast_tests::{Account, Result, Workdir, ensure};

/// Waits until whoever holds the other end of its input is gone, then deletes. The servers of a killed bench end at the same
/// time and may still write: it tries until nothing is left.
const JANITOR: &str = r#"cat; until rm -rf -- "$1" 2> /dev/null; do sleep 1; done"#;

/// A directory for what is made anew in every run, beside the clusters.
pub struct Scratch {
    scratch: PathBuf,
    /// Where the clusters lie.
    clusters: PathBuf,
    janitor: Option<Child>,
}

impl Scratch {
    /// Below `directory`, where clusters stay, or below the system's directory for temporary files.
    pub fn new(directory: Option<&Path>) -> Result<Self> {
        let (whole, clusters) = match directory {
            Some(directory) => (directory.join("scratch"), directory.to_owned()),
            None => {
                let mut workdir = Workdir::new("bench")?;
                workdir.keep();
                (workdir.path().to_owned(), workdir.path().to_owned())
            }
        };
        let mut janitor = Command::new("sh");
        janitor.args(["-c", JANITOR, "janitor"]).arg(&whole).stdin(Stdio::piped()).stdout(Stdio::null());
        // A group of its own: an interrupt at the terminal is not meant for it.
        let janitor = Some(janitor.current_dir("/").process_group(0).spawn()?);
        let scratch = clusters.join("scratch");
        fs::create_dir_all(&scratch)?;
        Ok(Self { scratch, clusters, janitor })
    }

    /// The cluster that an earlier call made and kept under this name, or a new one, which `make` fills and starts.
    pub fn cluster(&self, name: &str, make: impl FnOnce(&Path) -> Result<Cluster>) -> Result<Cluster> {
        let root = self.clusters.join(name.replace(' ', "-"));
        let complete = root.join("complete");
        if complete.exists() {
            let mut cluster = Cluster::reopened(&root)?;
            cluster.start()?;
            return Ok(cluster);
        }
        if root.exists() {
            fs::remove_dir_all(&root)?;
        }
        eprintln!("making a cluster of {name} in {}", root.display());
        let cluster = make(&root)?;
        fs::write(complete, "")?;
        Ok(cluster)
    }

    /// A path that a program may make.
    pub fn join(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }

    /// An empty directory of the servers' account; what it held is gone.
    pub fn empty(&self, name: &str) -> Result<PathBuf> {
        let path = self.join(name);
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        fs::create_dir(&path)?;
        let account = Account::for_databases()?;
        account.own(&path)?;
        let closed = account.command("chmod", "KILL").arg("0700").arg(&path).status()?;
        ensure(closed.success(), || format!("{} cannot be closed to others", path.display()))?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(mut janitor) = self.janitor.take() {
            // Its input ends here.
            drop(janitor.stdin.take());
            let _ = janitor.wait();
        }
    }
}
