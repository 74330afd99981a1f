//! What a fresh Debian machine lacks: the wasm target, a C compiler, Debian's PostgreSQL and OpenSSH. Looks first, installs only what is missing, and is
//! silent when nothing is. It never touches a PostgreSQL cluster that exists, and makes none; it starts no service.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::workspace::{Result, on_path, output, run};

const WASM_TARGET: &str = "wasm32-unknown-unknown";

/// Keeps the `postgresql` package from creating and starting a cluster of its own while it is being installed.
const NO_MAIN_CLUSTER: &str = "/etc/postgresql-common/createcluster.d/holdfast-setup.conf";

/// Keeps the `openssh-server` package from starting its service while it is being installed.
const NO_SERVICES: &str = "/usr/sbin/policy-rc.d";

/// What building, testing and the demo need.
pub fn all() -> Result<()> {
    toolchain()?;
    let packages: Vec<&str> = [
        (postgresql_is_here(), "postgresql"),
        (on_path("pg_createcluster"), "postgresql-common"),
        (on_path("setpriv"), "util-linux"),
        // The storage tests look at the order of system calls, and make them fail.
        (on_path("strace"), "strace"),
        // The tests of locked targets play somebody who has the keys.
        (on_path("curl"), "curl"),
        // The storage tests keep files on a server of their own.
        (Path::new("/usr/sbin/sshd").exists() && on_path("ssh-keygen"), "openssh-server"),
    ]
    .into_iter()
    .filter_map(|(here, package)| (!here).then_some(package))
    .collect();
    install(&packages)
}

/// What `bench postgres` compares with.
pub fn peers() -> Result<()> {
    let packages = [("pgbackrest", "pgbackrest"), ("restic", "restic"), ("zstd", "zstd"), ("borg", "borgbackup")];
    let missing: Vec<&str> =
        packages.into_iter().filter(|(program, _)| !on_path(program)).map(|(_, package)| package).collect();
    install(&missing)
}

/// What building needs.
pub fn toolchain() -> Result<()> {
    let libraries = output(Command::new("rustc").args(["--print", "target-libdir", "--target", WASM_TARGET]))?;
    if !Path::new(libraries.trim()).is_dir() {
        let mut command = Command::new("rustup");
        command.args(["target", "add", WASM_TARGET]);
        run(command)?;
    }
    // SQLite and zstd are compiled from C; their headers come with the C library's.
    if on_path("cc") && Path::new("/usr/include/stdio.h").exists() { Ok(()) } else { install(&["gcc", "libc6-dev"]) }
}

/// A server and pgbench, of any major version.
fn postgresql_is_here() -> bool {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    versions
        .map(|version| version.path().join("bin"))
        .any(|bin| ["postgres", "pgbench", "psql"].iter().all(|name| bin.join(name).is_file()))
}

/// Installs packages of Debian's.
pub fn install(packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    eprintln!("installing {}", packages.join(" "));
    run(as_root("apt-get", &["update", "--quiet"]))?;
    let mut guards = Vec::new();
    if packages.contains(&"postgresql") {
        guards.push((NO_MAIN_CLUSTER, "create_main_cluster = false"));
    }
    if packages.contains(&"openssh-server") && !Path::new(NO_SERVICES).exists() {
        guards.push((NO_SERVICES, "#!/bin/sh\nexit 101"));
    }
    for (path, content) in &guards {
        let write =
            format!("mkdir -p \"$(dirname {path})\" && printf '%s\\n' '{content}' > {path} && chmod 755 {path}");
        run(as_root("sh", &["-c", &write]))?;
    }
    let mut arguments = vec!["install", "--quiet", "--yes", "--no-install-recommends"];
    arguments.extend(packages);
    let installed = run(as_root("apt-get", &arguments));
    for (path, _) in guards {
        run(as_root("rm", &["-f", path]))?;
    }
    installed
}

/// A command with root's rights: as it is when we are root, else through sudo.
fn as_root(program: &str, arguments: &[&str]) -> Command {
    let root = output(Command::new("id").arg("-u")).is_ok_and(|uid| uid.trim() == "0");
    // `env` hands the variable through sudo, which drops the environment.
    let words = ["env", "DEBIAN_FRONTEND=noninteractive", program];
    let mut command = Command::new(if root { words[0] } else { "sudo" });
    command.args(&words[usize::from(root)..]).args(arguments);
    command
}
