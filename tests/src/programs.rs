//! PostgreSQL's programs by major version: Debian's, and the servers that `cargo xtask setup` fetches for the others.
//!
//! The fetched ones are servers only. Debian's clients speak with all of them.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Account, Failure, Result, ensure};

/// Where Debian installs each major version.
const DEBIAN: &str = "/usr/lib/postgresql";

/// The programs of one major version.
#[derive(Clone, Debug)]
pub struct Programs {
    /// Such as 15.
    pub major: u32,
    servers: PathBuf,
    clients: PathBuf,
}

impl Programs {
    /// The newest that Debian installed.
    pub fn debian() -> Result<Self> {
        let mut found = Vec::new();
        for version in fs::read_dir(DEBIAN).into_iter().flatten() {
            let version = version?;
            let directory = version.path().join("bin");
            if let Ok(major) = version.file_name().to_string_lossy().parse::<u32>()
                && directory.join("postgres").is_file()
            {
                found.push((major, directory));
            }
        }
        let (major, servers) =
            found.into_iter().max().ok_or_else(|| Failure::new(format!("no PostgreSQL below {DEBIAN}")))?;
        Ok(Self { major, clients: servers.clone(), servers })
    }

    /// Those of a major version.
    pub fn of(major: u32) -> Result<Self> {
        let debian = Self::debian()?;
        if debian.major == major {
            return Ok(debian);
        }
        let own = env::current_exe()?;
        let place = format!("postgres/{major}/bin");
        let found =
            own.ancestors().map(|directory| directory.join(&place)).find(|place| place.join("postgres").is_file());
        let servers = found.ok_or_else(|| {
            Failure::new(format!("no PostgreSQL {major} near {}; `cargo xtask setup` fetches it", own.display()))
        })?;
        Ok(Self { major, servers, clients: debian.clients })
    }

    /// Those of the version that a data directory is of.
    pub fn of_data(data: &Path) -> Result<Self> {
        let file = data.join("PG_VERSION");
        let text = fs::read_to_string(&file).map_err(|error| Failure::from(error).during(file.display()))?;
        Self::of(text.trim().parse()?)
    }

    /// The same where the account can run them: a build directory below somebody's home may be closed to it. Copies go below
    /// `root`, with the libraries that they come with.
    pub fn reachable_by(self, account: &Account, root: &Path) -> Result<Self> {
        let servers = self.servers.join("postgres");
        if account.command("test", "KILL").arg("-x").arg(&servers).status()?.success() {
            return Ok(self);
        }
        let whole = self.servers.parent().unwrap_or(&self.servers);
        let copy = root.join("programs");
        let copied = Command::new("cp").args(["--recursive", "--no-dereference"]).arg(whole).arg(&copy).status()?;
        ensure(copied.success(), || format!("copying {} failed", whole.display()))?;
        Ok(Self { servers: copy.join("bin"), ..self })
    }

    /// Whether Debian's tools make its clusters.
    pub fn are_debians(&self) -> bool {
        self.servers.starts_with(DEBIAN)
    }

    /// `postgres`, `initdb` or `pg_ctl`.
    pub fn server(&self, name: &str) -> PathBuf {
        self.servers.join(name)
    }

    /// `psql`, `pgbench`, `pg_isready` or `pg_basebackup`.
    pub fn client(&self, name: &str) -> PathBuf {
        self.clients.join(name)
    }
}
