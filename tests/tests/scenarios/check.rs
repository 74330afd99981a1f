//! `repository check` finds what was damaged at a target, and says exactly what of which backup is lost.

use std::fs;
use std::path::{Path, PathBuf};

use holdfast_tests::{Failure, Result, ensure};
use serde_json::Value;

use crate::setting::{INSTANCE, Setting};

#[test]
fn a_check_names_what_is_damaged_and_what_is_lost() -> Result {
    let setting = Setting::new("check")?;
    setting.protect()?;
    setting.appliance.back_up(INSTANCE, "all")?;
    let sound = check(&setting, &["--read-data"], true)?;
    ensure(sound["passed"] == true && sound["bytesRead"].as_u64() > Some(1 << 20), || format!("{sound}"))?;

    let pack = largest_pack(&setting.appliance.data().join("repository"))?;
    let good = fs::read(&pack)?;
    let mut bad = good.clone();
    bad[good.len() / 2] ^= 1;
    fs::write(&pack, &bad)?;
    let structure = check(&setting, &[], true)?;
    ensure(structure["packsRead"] == 0, || format!("the structure alone was asked for: {structure}"))?;
    let data = check(&setting, &["--read-data", "--max-rate", "1000"], false)?;
    ensure(data["damagesFound"] == 1 && data["damages"][0]["code"] == "wrong-digest", || format!("{data}"))?;
    ensure(data["lossesFound"] == 1 && data["losses"][0]["entry"].is_string(), || {
        format!("one bit is one range: {data}")
    })?;
    let lost = &data["losses"][0];
    let length = lost["to"].as_u64().zip(lost["from"].as_u64()).map_or(0, |(to, from)| to - from);
    ensure((1..=1 << 20).contains(&length), || format!("one chunk is lost, not {length} bytes"))?;
    let name = lost["backup"].as_str().unwrap_or_default();
    ensure(name.starts_with(&format!("{INSTANCE}/")), || format!("the loss has no name: {lost}"))?;

    fs::remove_file(&pack)?;
    let gone = check(&setting, &[], false)?;
    ensure(gone["damages"][0]["code"] == "lost-object", || format!("{gone}"))?;
    ensure(gone["losses"].as_array().is_some_and(|losses| losses.len() > 1), || {
        format!("a pack is more than one range: {gone}")
    })?;
    // The other target has all of it still.
    let there = check(&setting, &["--read-data", "--target", "vault"], true)?;
    ensure(there["target"] == "vault", || format!("{there}"))?;

    let healed = check(&setting, &["--heal"], true)?;
    ensure(healed["healedObjects"] == 1 && fs::read(&pack)? == good, || format!("the pack is not whole: {healed}"))?;
    fs::write(&pack, bad)?;
    check(&setting, &["--read-data", "--heal"], true)?;
    check(&setting, &["--read-data"], true).map(drop)
}

fn check(setting: &Setting, arguments: &[&str], passes: bool) -> Result<Value> {
    let words = ["repository", "check", "-o", "json"].iter().chain(arguments);
    let answer = setting.appliance.run(words)?;
    let report: Value = serde_json::from_str(&answer.stdout)?;
    if passes {
        answer.done()?;
    } else {
        answer.refused(&["damaged"])?;
    }
    ensure(report["passed"] == passes, || format!("the report and the exit code differ: {report}"))?;
    Ok(report)
}

fn largest_pack(repository: &Path) -> Result<PathBuf> {
    let mut packs = Vec::new();
    for domain in fs::read_dir(repository.join("domains"))? {
        for folder in fs::read_dir(domain?.path().join("packs"))? {
            for pack in fs::read_dir(folder?.path())? {
                packs.push(pack?.path());
            }
        }
    }
    let length = |path: &PathBuf| fs::metadata(path).map_or(0, |metadata| metadata.len());
    packs.into_iter().max_by_key(length).ok_or_else(|| Failure::new("there is no pack"))
}
