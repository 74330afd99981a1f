//! Where the workspace and its products lie, and how commands are run in it.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Errors here are read by a person at a terminal and by nothing else.
pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The source tree and its target directory.
pub struct Workspace {
    /// Directory of the root `Cargo.toml`.
    pub root: PathBuf,
    /// Where cargo builds to, as cargo itself says: `CARGO_TARGET_DIR` and configuration count.
    pub target: PathBuf,
}

impl Workspace {
    /// Asks cargo.
    pub fn locate() -> Result<Self> {
        let document = output(cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
        let metadata: serde_json::Value = serde_json::from_str(&document)?;
        let path =
            |key: &str| metadata[key].as_str().map(PathBuf::from).ok_or(format!("cargo metadata names no {key}"));
        Ok(Self { root: path("workspace_root")?, target: path("target_directory")? })
    }

    /// The directory of encoded plugins.
    pub fn plugins(&self) -> PathBuf {
        self.target.join("plugins")
    }

    /// A program that cargo built in the release profile.
    pub fn program(&self, name: &str) -> PathBuf {
        self.target.join("release").join(name)
    }

    /// Cargo on this workspace. Every call sees the same plugins, so that none makes another rebuild the binary.
    pub fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = cargo();
        command.args(arguments).current_dir(&self.root).env("HOLDFAST_PLUGINS", self.plugins());
        command
    }
}

/// The cargo that runs this program. What that one said to us about our own package it must not say to the next: build scripts
/// that look at such variables would run again, and all that stands on them would be built again.
fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

/// Runs a command to its end; an unsuccessful one is an error.
pub fn run(mut command: Command) -> Result<()> {
    let status = command.status().map_err(|error| format!("{}: {error}", shown(&command)))?;
    if status.success() { Ok(()) } else { Err(format!("{}: {status}", shown(&command)).into()) }
}

/// Standard output of a successful command.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.stderr(Stdio::inherit()).output().map_err(|error| format!("{}: {error}", shown(command)))?;
    if !output.status.success() {
        return Err(format!("{}: {}", shown(command), output.status).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Whether a program of this name is on the `PATH`.
pub fn on_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|directory| directory.join(program).is_file()))
}

fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}
