//! A small file system of its own, which can be filled to its last byte.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;

/// A mounted file system that ends with its value.
pub struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// Mounts one at a path where nothing is yet; `None` where nothing can be mounted.
    pub fn mount(path: &Path, megabytes: u32) -> Result<Option<Self>> {
        fs::create_dir(path)?;
        let options = format!("size={megabytes}m,mode=0700");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(path).output()?.status.success();
        Ok(mounted.then(|| Self { path: path.into() }))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes all the room that is left.
    pub fn fill(&self) -> Result {
        let mut filler = File::create(self.filler())?;
        for piece in [vec![0_u8; 1 << 20], vec![0_u8; 4 << 10]] {
            let full = loop {
                if let Err(error) = filler.write_all(&piece) {
                    break error;
                }
            };
            if full.kind() != ErrorKind::StorageFull {
                return Err(full.into());
            }
        }
        Ok(())
    }

    /// Gives back the room that [`fill`](Self::fill) took.
    pub fn free(&self) -> Result {
        Ok(fs::remove_file(self.filler())?)
    }

    fn filler(&self) -> PathBuf {
        self.path.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a server that is being killed may still hold a file there.
        let _ = Command::new("umount").arg("--lazy").arg(&self.path).status();
    }
}
