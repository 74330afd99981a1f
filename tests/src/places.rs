//! Programs, directories, ports, and the account that database servers run under.

use std::env;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};

use tempfile::TempDir;

use crate::daemon::leashed;
use crate::{Failure, Result};

/// A program of ours: cargo leaves it beside this one, or a directory above a test binary.
pub fn program(name: &str) -> Result<PathBuf> {
    let own = env::current_exe()?;
    let found = own.ancestors().skip(1).take(2).map(|directory| directory.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| Failure::new(format!("no program {name} near {}; `cargo xtask test` builds it", own.display())))
}

/// The component of a guest under `tests/guests`, which `cargo xtask` leaves beside the directory of programs.
pub fn guest(name: &str) -> Result<PathBuf> {
    beside_programs(&format!("guests/{name}.wasm"))
}

/// A file that `cargo xtask` leaves beside the directory of programs.
pub(crate) fn beside_programs(file: &str) -> Result<PathBuf> {
    let own = env::current_exe()?;
    let found = own.ancestors().map(|directory| directory.join(file)).find(|path| path.is_file());
    found.ok_or_else(|| Failure::new(format!("no {file} near {}; `cargo xtask test` builds it", own.display())))
}

/// A port on the loopback address that nothing listens on. It lies below the range from which the kernel takes ports for
/// outgoing connections, so that none of those can take it before its server does.
pub fn free_port() -> Result<u16> {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 12_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Processes that run side by side begin at different places.
    let start = (std::process::id() % u32::from(COUNT)) as u16;
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (start.wrapping_add(step.wrapping_mul(7))) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err(Failure::new("no free port between 20000 and 32000"))
}

/// Whom database servers run as: PostgreSQL refuses to run as root.
#[derive(Clone, Debug)]
pub struct Account {
    /// `None`: as ourselves.
    user: Option<(String, u32, u32)>,
}

impl Account {
    /// `postgres` when we are root, else ourselves.
    pub fn for_databases() -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self { user: None });
        }
        let number = |flag: &str| -> Result<u32> {
            let output = Command::new("id").args([flag, "postgres"]).output()?;
            let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            text.parse().map_err(|_| Failure::new("there is no user postgres; Debian's postgresql-common makes it"))
        };
        Ok(Self { user: Some(("postgres".into(), number("-u")?, number("-g")?)) })
    }

    /// The user's name for `holdfast restore --owner`, where ownership has to change at all.
    pub fn name(&self) -> Option<&str> {
        self.user.as_ref().map(|(name, ..)| name.as_str())
    }

    /// Gives a path to the account.
    pub fn own(&self, path: &Path) -> Result {
        match self.user {
            Some((_, uid, gid)) => Ok(chown(path, Some(uid), Some(gid))?),
            None => Ok(()),
        }
    }

    /// A command that runs as the account and ends by `signal` if this thread does.
    pub fn command(&self, program: impl AsRef<Path>, signal: &str) -> Command {
        match &self.user {
            Some((name, ..)) => leashed(program.as_ref(), signal, &["--reuid", name, "--regid", name, "--init-groups"]),
            None => leashed(program.as_ref(), signal, &[]),
        }
    }
}

/// A temporary directory that others may enter, deleted with its value unless it is kept.
pub struct Workdir {
    directory: TempDir,
}

impl Workdir {
    /// A new one below the system's directory for temporary files.
    pub fn new(name: &str) -> Result<Self> {
        let open = fs::Permissions::from_mode(0o755);
        let directory = tempfile::Builder::new().prefix(&format!("holdfast-{name}-")).permissions(open).tempdir()?;
        Ok(Self { directory })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A path in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// A file in it with this content, readable by its owner only.
    pub fn secret(&self, name: &str, content: &str) -> Result<PathBuf> {
        let path = self.join(name);
        fs::write(&path, content)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(path)
    }

    /// Leaves it on disk.
    pub fn keep(&mut self) {
        self.directory.disable_cleanup(true);
    }
}
