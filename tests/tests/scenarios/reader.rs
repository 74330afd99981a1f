//! What Holdfast writes, another program reads: `reader.py`, which was written from the format's page alone.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use holdfast_tests::appliance::Answer;
use holdfast_tests::golden::{self, DATA, KIT};
use holdfast_tests::reader::{Reader, python, script};
use holdfast_tests::{Failure, Result, Workdir, ensure, number};
use serde_json::Value;

use crate::setting::{INSTANCE, Setting};

/// Restored with places of the new machine in them, so that their bytes are not those of the backup.
const REWRITTEN: &[&str] = &["postgresql.conf", "postgresql.auto.conf"];

#[test]
fn another_program_reads_a_fresh_repository() -> Result {
    let mut setting = Setting::new("reader")?;
    setting.protect()?;
    setting.appliance.back_up(INSTANCE, "primary")?;
    // What changes again becomes a delta to a delta.
    for wait in ["primary", "all"] {
        setting.cluster.sql("postgres", "UPDATE goods SET label = label || 'x' WHERE n % 100 = 0")?;
        setting.appliance.back_up(INSTANCE, wait)?;
    }
    let mut backups = Vec::new();
    for backup in setting.appliance.list(&["backup", "list", INSTANCE])? {
        let name = format!("{INSTANCE}/{}", text(&backup, "name")?);
        let restored = setting.workdir.join(&format!("restored-{}", backups.len()));
        setting.appliance.restore(&name, &restored, &[], &["--wait"])?.done()?;
        let entries = setting.appliance.list(&["backup", "entries", &name])?;
        backups.push((text(&backup, "uid")?.to_owned(), name, restored, entries));
    }
    setting.appliance.stop()?;
    ensure(backups.len() == 3, || format!("not the three backups that were made: {}", backups.len()))?;

    let reader = Reader::new(&setting.appliance.data().join("repository"), &setting.kit())?;
    let listed = reader.list()?;
    for (uid, name, restored, entries) in backups {
        ensure(listed.contains(&(uid.clone(), name)), || format!("{uid} is not listed: {listed:?}"))?;
        let out = setting.workdir.join(&uid);
        reader.extract(&uid, &out)?;
        must_be_the_entries(&out, &entries)?;
        must_be_what_is_restored(&out.join("data"), &restored)?;
    }
    Ok(())
}

#[test]
fn another_program_reads_what_0_1_0_wrote() -> Result {
    let (workdir, fixture) = (Workdir::new("reader-golden")?, golden::fixture("0.1.0"));
    let reader = Reader::new(&fixture.join(DATA).join("repository"), &fixture.join(KIT))?;
    let listed = reader.list()?;
    ensure(listed.len() == 3, || format!("not two backups and the catalog's: {listed:?}"))?;
    for (backup, _) in listed {
        let out = workdir.join(&backup);
        reader.extract(&backup, &out)?;
        ensure(!files(&out)?.is_empty(), || format!("nothing was extracted of {backup}"))?;
        // What is there already is not touched.
        reader.must_refuse_to_extract(&backup, &out, "not empty")?;
    }
    Ok(())
}

/// What no writer of ours makes yet, a writer in Python makes: deltas, checkpoints, rotated keys; and hostile things.
#[test]
fn another_program_reads_what_the_format_allows() -> Result {
    let answer = Answer::of(Command::new(python()?).arg("-B").arg(script("reader_checks.py")))?.done()?;
    ensure(answer.stderr.contains("OK"), || format!("the checks were not run: {answer}"))
}

/// Fails unless the tree holds these entries and no other file, with their kinds, sizes and permissions.
fn must_be_the_entries(tree: &Path, entries: &[Value]) -> Result {
    let mut found = files(tree)?;
    for entry in entries {
        let path = text(entry, "path")?;
        let metadata = fs::symlink_metadata(tree.join(path)).map_err(|error| Failure::from(error).during(path))?;
        let fits = match text(entry, "kind")? {
            "file" => found.remove(path).is_some() && metadata.len() == number(entry, "size")?,
            "directory" => metadata.is_dir(),
            _ => metadata.is_symlink(),
        };
        let mode = u64::from(metadata.permissions().mode() & 0o777);
        ensure(fits && mode == number(entry, "mode")?, || format!("not as it was backed up: {entry}"))?;
    }
    ensure(found.is_empty(), || format!("in no entry: {:?}", found.keys()))
}

/// Fails unless every file of the data directory has the same bytes in both trees.
fn must_be_what_is_restored(extracted: &Path, restored: &Path) -> Result {
    let mut compared = 0;
    for (path, file) in files(extracted)? {
        if REWRITTEN.contains(&path.as_str()) {
            continue;
        }
        let other = fs::read(restored.join(&path)).map_err(|error| Failure::from(error).during(&path))?;
        ensure(fs::read(file)? == other, || format!("{path} differs"))?;
        compared += 1;
    }
    ensure(compared > 900, || format!("a cluster has more files than {compared}"))
}

/// All files of a tree, by their paths in it.
pub fn files(tree: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let (mut found, mut pending) = (BTreeMap::new(), vec![tree.to_path_buf()]);
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory)? {
            let (path, kind) = entry.map(|entry| (entry.path(), entry.file_type()))?;
            if kind?.is_dir() {
                pending.push(path);
            } else {
                let name = path.strip_prefix(tree)?.to_string_lossy().into_owned();
                found.insert(name, path);
            }
        }
    }
    Ok(found)
}

fn text<'a>(object: &'a Value, key: &str) -> Result<&'a str> {
    object[key].as_str().ok_or_else(|| Failure::new(format!("no text {key} in {object}")))
}
