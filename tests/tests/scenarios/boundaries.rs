//! The rooms' borders, as absences: what a room must not name, and what nothing may pull in.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use holdfast_tests::{Failure, Result, ensure};
use serde_json::Value;

/// A library and the only packages that may depend on it directly and name it.
struct Border {
    library: &'static str,
    packages: &'static [&'static str],
}

const BORDERS: &[Border] = &[
    Border { library: "rusqlite", packages: &["holdfast-catalog"] },
    Border { library: "wasmtime", packages: &["holdfast-sandbox"] },
    Border { library: "wasmtime-wasi", packages: &["holdfast-sandbox"] },
    Border { library: "axum", packages: &["holdfast-web"] },
    Border { library: "clap", packages: &["holdfast"] },
    Border { library: "aws-sdk-s3", packages: &["holdfast-storage"] },
    Border { library: "russh", packages: &["holdfast-storage"] },
    // What of it the last three may use, `sealing_and_signing_are_the_repositorys_alone` says.
    Border {
        library: "ring",
        packages: &["holdfast-repository", "holdfast-sandbox", "holdfast-control", "holdfast-web"],
    },
];

/// Parts of ring that could open, forge or derive something. Random numbers and hashes are everybody's.
const SEALING: &[&str] = &["aead", "agreement", "hkdf", "pbkdf2", "signature"];

/// The only sources that may use those.
const SEALERS: &[&str] = &["host/repository/src/seal", "host/repository/src/keyring"];

/// Packages of ours that a package of ours must not reach, however indirectly.
const APART: &[(&str, &[&str])] = &[
    (
        "holdfast-storage",
        &["holdfast-repository", "holdfast-catalog", "holdfast-sandbox", "holdfast-control", "holdfast-web"],
    ),
    (
        "holdfast-repository",
        &["holdfast-catalog", "holdfast-sandbox", "holdfast-control", "holdfast-web", "axum", "rusqlite", "wasmtime"],
    ),
    (
        "holdfast-catalog",
        &["holdfast-repository", "holdfast-sandbox", "holdfast-control", "holdfast-web", "holdfast-storage"],
    ),
    ("holdfast-sandbox", &["holdfast-catalog", "holdfast-control", "holdfast-web"]),
    ("holdfast-control", &["holdfast-web", "axum", "clap"]),
    ("holdfast-sdk", &["holdfast-repository", "holdfast-sandbox", "holdfast-control"]),
    ("holdfast-plugin-postgres", &["holdfast-repository", "holdfast-sandbox", "holdfast-control"]),
    (
        "holdfast-tests",
        &[
            "holdfast-repository",
            "holdfast-sandbox",
            "holdfast-control",
            "holdfast-web",
            "holdfast-catalog",
            "holdfast-storage",
        ],
    ),
];

/// Packages that must not be in the build at all: one TLS stack, one source of cryptography.
const BANNED: &[&str] = &["aws-lc-rs", "aws-lc-sys", "native-tls", "openssl", "openssl-sys", "reqwest"];

/// Packages of which one version is enough.
const SINGLE: &[&str] = &["hyper", "rustls", "tokio", "ring", "wasmtime", "rusqlite"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The workspace as cargo resolves it, without development dependencies.
struct Resolved {
    packages: Vec<Value>,
    nodes: Vec<Value>,
}

impl Resolved {
    fn read() -> Result<Self> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output =
            Command::new(cargo).args(["metadata", "--format-version", "1", "--locked"]).current_dir(root()).output()?;
        ensure(output.status.success(), || String::from_utf8_lossy(&output.stderr).into_owned())?;
        let metadata: Value = serde_json::from_slice(&output.stdout)?;
        let list =
            |value: &Value| value.as_array().cloned().ok_or_else(|| Failure::new("cargo metadata has another form"));
        Ok(Self { packages: list(&metadata["packages"])?, nodes: list(&metadata["resolve"]["nodes"])? })
    }

    /// Workspace members with what they name in `Cargo.toml`, development dependencies left out.
    fn direct(&self) -> Vec<(String, BTreeSet<String>)> {
        let ours = self.packages.iter().filter(|package| package["source"].is_null());
        ours.map(|package| {
            let dependencies = package["dependencies"].as_array().into_iter().flatten();
            let normal = dependencies.filter(|dependency| dependency["kind"] != "dev");
            (string(&package["name"]), normal.map(|dependency| string(&dependency["name"])).collect())
        })
        .collect()
    }

    /// Names of all packages that one reaches.
    fn reaches(&self, name: &str) -> BTreeSet<String> {
        let mut reached = BTreeSet::new();
        let mut pending: Vec<&Value> =
            self.packages.iter().filter(|package| package["name"] == name).map(|package| &package["id"]).collect();
        let mut seen = BTreeSet::new();
        while let Some(id) = pending.pop() {
            if !seen.insert(id.to_string()) {
                continue;
            }
            reached.extend(
                self.packages.iter().filter(|package| package["id"] == *id).map(|package| string(&package["name"])),
            );
            let node = self.nodes.iter().find(|node| node["id"] == *id);
            for dependency in node.and_then(|node| node["deps"].as_array()).into_iter().flatten() {
                let kinds = dependency["dep_kinds"].as_array();
                if kinds.into_iter().flatten().any(|kind| kind["kind"] != "dev") {
                    pending.push(&dependency["pkg"]);
                }
            }
        }
        reached.remove(name);
        reached
    }
}

fn string(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[test]
fn rooms_depend_only_on_what_is_theirs() -> Result {
    let resolved = Resolved::read()?;
    let mut broken = Vec::new();
    for (package, dependencies) in resolved.direct() {
        for border in BORDERS {
            if dependencies.contains(border.library) && !border.packages.contains(&package.as_str()) {
                broken.push(format!("{package} depends on {}", border.library));
            }
        }
    }
    for (package, forbidden) in APART {
        let reached = resolved.reaches(package);
        ensure(!reached.is_empty() || *package == "holdfast-catalog", || format!("{package} is not in the workspace"))?;
        broken.extend(
            forbidden.iter().filter(|name| reached.contains(**name)).map(|name| format!("{package} reaches {name}")),
        );
    }
    ensure(broken.is_empty(), || broken.join("\n"))
}

#[test]
fn libraries_are_named_only_in_their_rooms() -> Result {
    let mut broken = Vec::new();
    let mut files = 0;
    for file in sources(&root().join("host"))? {
        files += 1;
        let path = file.strip_prefix(root()).unwrap_or(&file).display().to_string();
        let source = fs::read_to_string(&file)?;
        let room = path.split('/').nth(1).unwrap_or_default();
        let package = if room == "appliance" { "holdfast".to_owned() } else { format!("holdfast-{room}") };
        for border in BORDERS {
            let module = format!("{}::", border.library.replace('-', "_"));
            let named =
                source.lines().filter(|line| !line.trim_start().starts_with("//")).any(|line| names(line, &module));
            let allowed = border.packages.contains(&package.as_str());
            if named && !allowed {
                broken.push(format!("{path} names {}", border.library));
            }
        }
        if room != "catalog"
            && ["SELECT ", "INSERT INTO ", "UPDATE ", "DELETE FROM "]
                .iter()
                .any(|verb| source.contains(&format!("\"{verb}")))
        {
            broken.push(format!("{path} holds SQL"));
        }
    }
    ensure(files > 20, || format!("only {files} source files were found"))?;
    ensure(broken.is_empty(), || broken.join("\n"))
}

/// Whether a line uses the module: at the start of a path, not at the end of a longer name.
fn names(line: &str, module: &str) -> bool {
    let is_inner = |before: &str| {
        let before = before.strip_suffix("::").unwrap_or(before);
        before.ends_with(|last: char| last.is_alphanumeric() || last == '_')
    };
    line.match_indices(module).any(|(at, _)| !is_inner(&line[..at]))
}

fn sources(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(sources(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(found)
}

#[test]
fn sealing_and_signing_are_the_repositorys_alone() -> Result {
    let mut sealers = 0;
    let mut broken = Vec::new();
    for file in sources(&root().join("host"))? {
        let path = file.strip_prefix(root()).unwrap_or(&file).display().to_string();
        let source = fs::read_to_string(&file)?;
        // A group would hide what it names.
        let seals = source
            .lines()
            .any(|line| names(line, "ring::{") || SEALING.iter().any(|part| names(line, &format!("ring::{part}"))));
        match SEALERS.iter().any(|place| path.starts_with(place)) {
            true => sealers += usize::from(seals),
            false if seals => broken.push(format!("{path} seals or signs")),
            false => {}
        }
    }
    ensure(sealers > 0, || "nothing seals".into())?;
    ensure(broken.is_empty(), || broken.join("\n"))
}

#[test]
fn one_tls_stack_and_one_source_of_cryptography_are_built() -> Result {
    let lock = fs::read_to_string(root().join("Cargo.lock"))?;
    let packages: Vec<&str> =
        lock.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"')).collect();
    ensure(packages.len() > 100, || "Cargo.lock could not be read".into())?;
    let banned: Vec<_> = packages.iter().filter(|name| BANNED.contains(name)).collect();
    ensure(banned.is_empty(), || format!("banned: {banned:?}"))?;
    for name in SINGLE {
        let versions = packages.iter().filter(|package| *package == name).count();
        ensure(versions == 1, || format!("{versions} versions of {name}"))?;
    }
    Ok(())
}

#[test]
fn unsafe_code_is_denied_everywhere() -> Result {
    let manifest = fs::read_to_string(root().join("Cargo.toml"))?;
    ensure(manifest.contains("unsafe_code = \"deny\""), || "the workspace does not deny unsafe code".into())?;
    for entry in fs::read_dir(root().join("host"))? {
        let path = entry?.path().join("Cargo.toml");
        if path.exists() {
            ensure(fs::read_to_string(&path)?.contains("[lints]\nworkspace = true"), || {
                format!("{} does not take the workspace's lints", path.display())
            })?;
        }
    }
    Ok(())
}
