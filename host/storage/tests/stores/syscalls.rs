//! Durability as the kernel sees it: the order of system calls, and a failing sync. Needs strace.
//!
//! Each test runs this test binary again under strace, with `child` as the one test and a scenario for it in the
//! environment.

use std::path::Path;
use std::process::{Command, Output};

use bytes::Bytes;
use holdfast_storage::{Error, Local, Storage};

const SCENARIO: &str = "STORES_TEST_SCENARIO";
const ROOT: &str = "STORES_TEST_ROOT";

/// Runs a scenario under strace: what it logged, or nothing where strace cannot run.
fn trace(scenario: &str, root: &Path, options: &[&str]) -> Option<String> {
    let log = tempfile::NamedTempFile::new().unwrap();
    let outcome = Command::new("strace")
        .args(["-f", "-y", "-s", "4096", "-o"])
        .arg(log.path())
        .args(options)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "syscalls::child", "--ignored", "--test-threads=1"])
        .env(SCENARIO, scenario)
        .env(ROOT, root)
        .output();
    match outcome {
        Ok(Output { status, .. }) if status.success() => Some(std::fs::read_to_string(log.path()).unwrap()),
        Ok(output) if !String::from_utf8_lossy(&output.stdout).contains("running 1 test") => skipped(scenario),
        Ok(output) => panic!("{scenario}: {}", String::from_utf8_lossy(&output.stdout)),
        Err(_) => skipped(scenario),
    }
}

fn skipped(scenario: &str) -> Option<String> {
    eprintln!("SKIPPED: the scenario {scenario} needs strace");
    None
}

/// Position of the first line behind `from` that has all the parts.
fn find(lines: &[&str], from: usize, parts: &[&str]) -> usize {
    let found = lines.iter().skip(from).position(|line| parts.iter().all(|part| line.contains(part)));
    found.map(|position| from + position).unwrap_or_else(|| panic!("no {parts:?} behind line {from} of {lines:#?}"))
}

#[test]
fn bytes_are_synced_before_the_name_and_the_name_before_the_acknowledgement() {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().join("root");
    let calls = "trace=mkdir,mkdirat,fsync,fdatasync,rename,renameat,renameat2,write";
    let Some(log) = trace("write", &root, &["-e", calls]) else {
        return;
    };
    let lines: Vec<&str> = log.lines().collect();
    let root = root.display().to_string();
    let mut line = 0;
    for (directory, parent) in
        [(root.clone(), scratch.path().display().to_string()), (format!("{root}/a"), root.clone())]
    {
        line = find(&lines, line, &["mkdir", &format!("\"{directory}\"")]);
        line = find(&lines, line, &["fsync", &format!("<{parent}>")]);
    }
    line = find(&lines, line, &["fdatasync", "/tmp/write-"]);
    line = find(&lines, line, &["renameat2", "/tmp/write-", &format!("\"{root}/a/object\""), "RENAME_NOREPLACE"]);
    line = find(&lines, line, &["fsync", &format!("<{root}/a>")]);
    find(&lines, line, &["write(", "acknowledged"]);
}

#[test]
fn a_failed_sync_of_the_bytes_fails_the_write_for_good() {
    let scratch = tempfile::tempdir().unwrap();
    trace("bytes-eio", scratch.path(), &["-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO:when=1"]);
}

#[test]
fn a_failed_sync_of_the_directory_takes_the_name_back() {
    let scratch = tempfile::tempdir().unwrap();
    // Syncs: the root's parent, the root for `tmp`, and then the root for the object's name.
    trace("name-eio", scratch.path(), &["-e", "trace=fsync", "-e", "inject=fsync:error=EIO:when=3"]);
}

/// The process under strace. Alone it has nothing to do.
#[test]
#[ignore = "run by the other tests of this module, under strace"]
fn child() {
    let (Ok(scenario), Ok(root)) = (std::env::var(SCENARIO), std::env::var(ROOT)) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let storage = Local::new(root);
        let path = if scenario == "write" { "a/object" } else { "object" };
        let outcome = storage.put_if_absent(path, Bytes::from_static(b"bytes")).await;
        match scenario.as_str() {
            "write" => {
                assert!(outcome.unwrap());
                std::fs::write("/dev/null", "acknowledged").unwrap();
            }
            _ => {
                let error = outcome.unwrap_err();
                assert!(matches!(error, Error::Io { .. }), "{error:?}");
                assert!(error.is_permanent());
                assert_eq!(storage.list("").await.unwrap(), [], "nothing is visible");
                assert_eq!(storage.head("object").await.unwrap(), None);
            }
        }
    });
}
