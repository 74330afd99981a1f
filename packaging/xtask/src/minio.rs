//! MinIO, for the tests of locked targets: `target/servers/minio`, built once from the exact source that is pinned here.
//!
//! Go's checksum database vouches for the source. The file is there only when it is whole, and the version beside it says of what.

use std::fs;
use std::process::Command;

use crate::workspace::{Result, Workspace, on_path, run};

const MODULE: &str = "github.com/minio/minio";
const VERSION: &str = "v0.0.0-20260212201848-7aac2a2c5b7c";

/// Builds the server, unless this version is there.
#[allow(clippy::disallowed_methods)] // Losing it costs another build.
pub fn build(workspace: &Workspace) -> Result<()> {
    let directory = workspace.target.join("servers");
    let (program, version) = (directory.join("minio"), directory.join("minio.version"));
    if program.is_file() && fs::read_to_string(&version).is_ok_and(|found| found == VERSION) {
        return Ok(());
    }
    if !on_path("go") {
        return Err("MinIO is built by Go 1.24 or newer, and there is no `go` on the PATH".into());
    }
    eprintln!("building MinIO {VERSION}");
    let built = directory.join("new");
    fs::create_dir_all(&built)?;
    let mut go = Command::new("go");
    go.args(["install", "-trimpath", "-ldflags=-s -w", &format!("{MODULE}@{VERSION}")]);
    run({
        go.env("GOBIN", &built).env("CGO_ENABLED", "0");
        go
    })?;
    fs::rename(built.join("minio"), &program)?;
    fs::remove_dir_all(built)?;
    Ok(fs::write(version, VERSION)?)
}
