//! Small file systems of their own: one that can be filled to its last byte, and one whose power can be cut.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::ioctl::{Setter, ioctl};

use crate::{Failure, Result};

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

    /// Makes it larger or smaller than it was mounted.
    pub fn resize(&self, kilobytes: u32) -> Result {
        let options = format!("remount,size={kilobytes}k");
        run("mount", &["-o".as_ref(), options.as_ref(), &self.path]).map_err(Failure::new)
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

/// An ext4 on a loop device, in an image of its own, that can lose all that was not synced. Unmounted with its value.
pub struct FragileDisk {
    image: PathBuf,
    path: PathBuf,
}

impl FragileDisk {
    /// Makes one in a new image and mounts it at a path where nothing is yet; the reason where that cannot be had.
    pub fn mount(image: &Path, path: &Path, megabytes: u64) -> Result<std::result::Result<Self, String>> {
        fs::create_dir(path)?;
        File::create(image)?.set_len(megabytes << 20)?;
        let disk = Self { image: image.into(), path: path.into() };
        let made = run("mkfs.ext4", &["-q".as_ref(), "-F".as_ref(), image]).and_then(|()| disk.power_on());
        // The value unmounts what is mounted.
        Ok(made.map(|()| disk))
    }

    /// Cuts the power: from now on nothing reaches the image any more, not even what lies in its journal's buffers.
    #[allow(unsafe_code)]
    pub fn cut_power(&self) -> Result {
        /// `EXT4_IOC_SHUTDOWN`, and `EXT4_GOING_FLAGS_NOLOGFLUSH`.
        const SHUTDOWN: u32 = 0x8004_587d;
        const WITHOUT_A_FLUSH: u32 = 2;
        let root = File::open(&self.path)?;
        // SAFETY: this call reads an `u32` and writes to no memory of ours.
        unsafe { ioctl(&root, Setter::<SHUTDOWN, u32>::new(WITHOUT_A_FLUSH)) }.map_err(Into::into)
    }

    /// Mounts what the image holds after a power cut.
    pub fn restart(&self) -> Result {
        self.power_off().and_then(|()| self.power_on()).map_err(Failure::new)
    }

    fn power_on(&self) -> std::result::Result<(), String> {
        run("mount", &["-t".as_ref(), "ext4".as_ref(), "-o".as_ref(), "loop".as_ref(), &self.image, &self.path])
    }

    fn power_off(&self) -> std::result::Result<(), String> {
        run("umount", &[&self.path])
    }
}

impl Drop for FragileDisk {
    fn drop(&mut self) {
        // Where nothing is mounted there is nothing to be done.
        let _ = self.power_off();
    }
}

/// Runs a program; what it said where it failed.
fn run(program: &str, arguments: &[&Path]) -> std::result::Result<(), String> {
    let ended = Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    if ended.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&ended.stderr).trim().to_owned()) }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a server that is being killed may still hold a file there.
        let _ = Command::new("umount").arg("--lazy").arg(&self.path).status();
    }
}
