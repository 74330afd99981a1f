//! Python for the independent reader of repositories, `tests/reader.py`: a virtual environment in `target/python`, made once.
//!
//! It holds exactly the packages that `tests/reader-requirements.txt` pins by digest; pip refuses others. The copy of that list inside is
//! written last: an environment without it, or with another one, is made anew.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::setup;
use crate::workspace::{Result, Workspace, run};

/// Debian's own, whose version the pinned packages are for.
const PYTHON: &str = "/usr/bin/python3";

/// Makes the environment, unless it is there.
pub fn prepare(workspace: &Workspace) -> Result<()> {
    let list = workspace.root.join("tests/reader-requirements.txt");
    let wanted = fs::read(&list)?;
    let environment = workspace.target.join("python");
    let installed = environment.join("requirements.txt");
    if fs::read(&installed).is_ok_and(|found| found == wanted) {
        return Ok(());
    }
    if !can_make_environments() {
        setup::install(&["python3-venv"])?;
    }
    eprintln!("making a Python environment for tests/reader.py");
    let mut make = Command::new(PYTHON);
    make.args(["-m", "venv", "--clear"]).arg(&environment);
    run(make)?;
    run(pip(&environment, &list))?;
    Ok(fs::write(installed, wanted)?)
}

fn can_make_environments() -> bool {
    let mut command = Command::new(PYTHON);
    command.args(["-c", "import venv, ensurepip"]).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn pip(environment: &Path, list: &Path) -> Command {
    let mut command = Command::new(environment.join("bin/python"));
    command.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    command.args(["--require-hashes", "--only-binary=:all:", "--requirement"]).arg(list);
    command
}
