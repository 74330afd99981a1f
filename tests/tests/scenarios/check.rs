//! `repository check` finds what was damaged at a target, says exactly what of which backup is lost, and heals what is intact anywhere.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_tests::content::Content;
use holdfast_tests::{Failure, Result, ensure, wait_until};
use serde_json::Value;

use crate::reader::files;
use crate::setting::{INSTANCE, Setting};

/// How long the jobs behind a backup may take on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(120);

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

#[test]
fn damage_at_both_sites_is_healed_from_each_other() -> Result {
    let setting = Setting::new("healing")?;
    setting.protect()?;
    setting.appliance.back_up(INSTANCE, "all")?;
    let content = Content::of(&setting.cluster)?;
    let [here, there] = twins(&setting)?;
    flip(&here, 2)?;
    flip(&there, 4)?;
    for target in ["primary", "vault"] {
        check(&setting, &["--read-data", "--target", target], false)?;
    }
    // Neither has all of it, and the two have it together.
    let status = shown(&setting)?["status"].clone();
    let is_known = status["losses"].as_array().is_some_and(|losses| losses.len() == 2);
    ensure(is_known && status["readyToUse"] == true, || format!("each lost another part: {status}"))?;
    let to = setting.workdir.join("at-once");
    setting.appliance.restore(&format!("{INSTANCE}/latest"), &to, &[], &["--wait"])?.done()?;
    setting.must_hold(&to, &content)?;
    let healed = check(&setting, &["--read-data", "--heal"], true)?;
    ensure(healed["mendedPacks"] == 1 && healed["lossesFound"] == 0, || format!("not mended: {healed}"))?;
    let healed = check(&setting, &["--read-data", "--heal", "--target", "vault"], true)?;
    ensure(healed["mendedPacks"] == 1 && healed["lossesFound"] == 0, || format!("not mended: {healed}"))?;
    ensure(shown(&setting)?["status"]["readyToUse"] == true, || "it is whole again".into())?;
    for target in ["primary", "vault"] {
        let to = setting.workdir.join(target);
        setting.appliance.restore(&format!("{INSTANCE}/latest"), &to, &[], &["--wait", "--from", target])?.done()?;
        setting.must_hold(&to, &content)?;
    }
    Ok(())
}

#[test]
fn a_head_that_was_just_written_is_healed_from_its_second_copy() -> Result {
    let setting = Setting::new("second-copy")?;
    setting.protect()?;
    setting.appliance.back_up(INSTANCE, "all")?;
    wait_until("every head has its second copy", PATIENCE, || {
        let files = files(&setting.appliance.data().join("repository"))?;
        let heads: Vec<_> = files.keys().filter(|path| path.contains("/heads/")).collect();
        let has_twin = |head: &&String| files.contains_key(&head.replace("/heads/", "/twins/"));
        Ok((!heads.is_empty() && heads.iter().all(has_twin)).then_some(()))
    })?;
    let files = files(&setting.appliance.data().join("repository"))?;
    for head in files.iter().filter(|(path, _)| path.contains("/heads/")).map(|(_, head)| head) {
        flip(head, 2)?;
    }
    let healed = check(&setting, &["--heal"], true)?;
    ensure(healed["healedObjects"].as_u64() > Some(1), || format!("the heads are as they were: {healed}"))
}

#[test]
fn a_restore_that_meets_damage_takes_what_is_damaged_from_the_other_site() -> Result {
    let setting = Setting::new("fall-over")?;
    setting.protect()?;
    setting.appliance.back_up(INSTANCE, "all")?;
    let content = Content::of(&setting.cluster)?;
    let [here, _] = twins(&setting)?;
    flip(&here, 2)?;
    let name = format!("{INSTANCE}/latest");
    let alone = setting.workdir.join("alone");
    setting.appliance.restore(&name, &alone, &[], &["--wait", "--from", "primary"])?.refused(&["chunk"])?;
    let to = setting.workdir.join("restored");
    setting.appliance.restore(&name, &to, &[], &["--wait"])?.done()?;
    setting.must_hold(&to, &content)?;
    let jobs = setting.appliance.list(&["job", "list"])?;
    let restored = jobs.iter().find(|job| job["kind"] == "restore" && job["state"] == "Succeeded");
    let restored = restored.and_then(|job| job["id"].as_str()).unwrap_or_default();
    let log = setting.appliance.run(["job", "log", restored])?.done()?;
    ensure(log.stdout.contains("came from other targets"), || format!("nobody tells of the damage: {log}"))
}

#[test]
fn what_is_lost_at_both_sites_is_said_by_the_backup_until_it_is_stored_anew() -> Result {
    let setting = Setting::new("lost")?;
    setting.protect()?;
    let backup = setting.appliance.back_up(INSTANCE, "all")?;
    let name = format!("{INSTANCE}/{}", backup["name"].as_str().unwrap_or_default());
    let [here, there] = twins(&setting)?;
    flip(&here, 2)?;
    check(&setting, &["--read-data"], false)?;
    let status = setting.appliance.json(["backup", "show", &name])?["status"].clone();
    let is_known = status["losses"][0]["target"] == "primary" && status["losses"][0]["total"] == 1;
    ensure(is_known && status["readyToUse"] == true, || format!("the other site has all of it: {status}"))?;
    let to = setting.workdir.join("restored");
    setting.appliance.restore(&name, &to, &[], &["--wait"])?.done()?;
    setting
        .appliance
        .restore(&name, &setting.workdir.join("from"), &[], &["--from", "primary"])?
        .refused(&["lost at"])?;

    flip(&there, 2)?;
    for target in ["vault", "primary"] {
        let report = check(&setting, &["--read-data", "--heal", "--target", target], false)?;
        ensure(report["lossesFound"] == 1 && report["mendedPacks"] == 1, || format!("more is lost: {report}"))?;
    }
    let status = setting.appliance.json(["backup", "show", &name])?["status"].clone();
    let range = &status["losses"][1]["ranges"][0];
    let length = range["to"].as_u64().zip(range["from"].as_u64()).map_or(0, |(to, from)| to - from);
    ensure(status["readyToUse"] == false && status["reason"].is_string(), || {
        format!("it claims to be whole: {status}")
    })?;
    ensure(range["entry"].is_string() && (1..=1 << 20).contains(&length), || format!("not the range: {status}"))?;
    let table = setting.appliance.run(["backup", "show", &name])?.done()?;
    ensure(table.stdout.contains("at vault") && table.stdout.contains("bytes"), || format!("not shown: {table}"))?;
    let problems = setting.appliance.run(["status", "-o", "json"])?;
    ensure(problems.stdout.contains("target-losses"), || format!("the status does not tell: {problems}"))?;
    let refused = setting.appliance.restore(&name, &setting.workdir.join("lost"), &[], &["--wait"])?;
    refused.refused(&["parts of it are lost at every target"])?;

    // Nobody relies on what is lost: the next backup stores it anew, and then the former one is whole too.
    setting.appliance.back_up(INSTANCE, "all")?;
    check(&setting, &["--heal"], true)?;
    check(&setting, &["--heal", "--target", "vault"], true)?;
    let status = setting.appliance.json(["backup", "show", &name])?["status"].clone();
    let is_whole = status["readyToUse"] == true && status["losses"].as_array().is_some_and(Vec::is_empty);
    ensure(is_whole, || format!("it is whole again: {status}"))
}

fn shown(setting: &Setting) -> Result<Value> {
    setting.appliance.json(["backup", "show", &format!("{INSTANCE}/latest")])
}

/// The largest pack, as it lies at the primary and in the vault.
fn twins(setting: &Setting) -> Result<[PathBuf; 2]> {
    let here = largest_pack(&setting.appliance.data().join("repository"))?;
    let digest = here.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let there = files(setting.s3.root())?.into_iter().find(|(name, _)| name.ends_with(&format!("/{digest}")));
    let (_, there) = there.ok_or_else(|| Failure::new("the vault does not have the largest pack"))?;
    Ok([here, there])
}

/// Changes one bit of a file, at this part of its length.
fn flip(path: &Path, part: usize) -> Result {
    let mut bytes = fs::read(path)?;
    let position = bytes.len() / part;
    bytes[position] ^= 1;
    fs::write(path, bytes).map_err(Into::into)
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
