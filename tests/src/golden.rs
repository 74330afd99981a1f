//! The fixture that each version leaves for those after it: what is in it, by name. Never changed once a version is out.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Result, ensure};

/// Where the data directory of a fixture lay when it was made. The catalog knows its primary target by that path, so that it is
/// opened in the same place.
const PLACE: &str = "/tmp/holdfast-golden";

/// The protected instance.
pub const INSTANCE: &str = "acme/shop/pg";
/// The data directory, with the repository in it, below the fixture.
pub const DATA: &str = "appliance";
/// The recovery kit below the fixture.
pub const KIT: &str = "alice.key";
/// The table whose content is known.
pub const TABLE: &str = "goods";
/// How the table is made: `n` and a text `t` that follows from it.
pub const ROWS: &str = "SELECT n, md5((n * 7)::text) AS t FROM generate_series(1, 500) n";
/// Its number of rows, and the hash of all its texts in order.
pub const CONTENT: &str = "500|fb35f9e2e3ff24593e834852e2505390";

/// Where the fixture of a version lies in the source tree.
pub fn fixture(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(version)
}

/// Copies the fixture of a version to where it may be written.
pub fn copy(version: &str, to: &Path) -> Result {
    let fixture = fixture(version);
    let copied = Command::new("cp").arg("--recursive").arg(fixture.join(".")).arg(to).status()?.success();
    ensure(copied, || format!("no fixture in {}", fixture.display()))?;
    // A checkout makes everything readable to all; secrets are not to be.
    let closed = Command::new("chmod").args(["--recursive", "go="]).arg(to.join(DATA)).status()?.success();
    ensure(closed, || "the copy's permissions could not be set".into())
}

/// The place of a version's fixture, held by one process at a time and empty at first; deleted with its value.
pub struct Place {
    path: PathBuf,
    _lock: File,
}

impl Place {
    /// Waits until nobody else holds it.
    pub fn take(version: &str) -> Result<Self> {
        let path = PathBuf::from(format!("{PLACE}-{version}"));
        let lock = File::create(format!("{}.lock", path.display()))?;
        lock.lock()?;
        if path.exists() {
            // Its holder was killed.
            fs::remove_dir_all(&path)?;
        }
        fs::create_dir(&path)?;
        Ok(Self { path, _lock: lock })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What is left over is deleted by the next one who takes the place.
        let _ = fs::remove_dir_all(&self.path);
    }
}
