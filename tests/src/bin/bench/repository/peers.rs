//! The programs: each backs the files up twice into `repository` below its work directory, restores to `restored`, and checks every byte.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use holdfast_tests::cluster::finished;
use holdfast_tests::{Failure, Result};
use serde_json::Value;

use super::{Figures, stored};

/// Runs one program on these files in this work directory.
pub type Peer = fn(&Path, &Path) -> Result<Figures>;

/// All programs; ours is the first.
pub const ALL: [(&str, Peer); 3] = [("holdfast", holdfast), ("restic", restic), ("borg", borg)];

fn holdfast(files: &Path, work: &Path) -> Result<Figures> {
    let store = env::current_exe()?.with_file_name("examples").join("store");
    let mut command = Command::new(store);
    command.arg(files).arg(work.join("repository")).arg(work.join("restored"));
    let seconds: Value = serde_json::from_str(&finished(&mut command)?)?;
    let of = |step: &str| seconds[step].as_f64().ok_or_else(|| Failure::new(format!("`store` does not say '{step}'")));
    Ok(Figures {
        new: of("new")?,
        known: of("known")?,
        restore: of("restore")?,
        check: of("check")?,
        stored: stored(&work.join("repository"))?,
    })
}

fn restic(files: &Path, work: &Path) -> Result<Figures> {
    let command = |arguments: &[&str]| {
        let mut command = Command::new("restic");
        command.env("RESTIC_REPOSITORY", work.join("repository")).env("RESTIC_PASSWORD", "orchid");
        command.env("RESTIC_CACHE_DIR", work.join("cache")).current_dir(files).arg("--quiet").args(arguments);
        command
    };
    finished(&mut command(&["init"]))?;
    let to = work.join("restored");
    Ok(Figures {
        new: seconds(&mut command(&["backup", "."]))?,
        // As after a new dump: the files are others, their bytes are the same.
        known: seconds(&mut command(&["backup", "--force", "."]))?,
        restore: seconds(command(&["restore", "latest", "--target"]).arg(to))?,
        check: seconds(&mut command(&["check", "--read-data"]))?,
        stored: stored(&work.join("repository"))?,
    })
}

fn borg(files: &Path, work: &Path) -> Result<Figures> {
    let command = |arguments: &[&str]| {
        let mut command = Command::new("borg");
        command.env("BORG_REPO", work.join("repository")).env("BORG_PASSPHRASE", "orchid");
        command.env("BORG_BASE_DIR", work.join("cache")).current_dir(files).args(arguments);
        command
    };
    finished(&mut command(&["init", "--encryption=repokey-blake2"]))?;
    let create = |name: &str| command(&["create", "--compression=zstd,3", "--files-cache=disabled", name, "."]);
    let (new, known) = (seconds(&mut create("::one"))?, seconds(&mut create("::two"))?);
    let to = work.join("restored");
    fs::create_dir(&to)?;
    Ok(Figures {
        new,
        known,
        restore: seconds(command(&["extract", "::two"]).current_dir(&to))?,
        check: seconds(&mut command(&["check", "--verify-data"]))?,
        stored: stored(&work.join("repository"))?,
    })
}

fn seconds(command: &mut Command) -> Result<f64> {
    let begun = Instant::now();
    finished(command)?;
    Ok(begun.elapsed().as_secs_f64())
}
