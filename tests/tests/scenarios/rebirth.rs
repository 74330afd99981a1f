//! A recovery says how old what it found is, loses no fact about a backup, and changes no target.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use holdfast_tests::appliance::{Answer, Appliance};
use holdfast_tests::{Result, ensure};

use crate::reader::files;
use crate::setting::{INSTANCE, Setting};

/// All files of a place, with what would show that one was touched.
fn listing(place: &Path) -> Result<BTreeMap<String, (u64, SystemTime)>> {
    let seen = |(name, path): (String, PathBuf)| {
        let metadata = fs::metadata(path)?;
        Ok((name, (metadata.len(), metadata.modified()?)))
    };
    files(place)?.into_iter().map(seen).collect()
}

fn recover(setting: &Setting, name: &str) -> Result<(Appliance, Answer)> {
    let reborn = Appliance::on(&setting.workdir.join(name)).with_access_to_vault();
    let (url, kit) = (setting.s3.url("backups"), setting.kit().display().to_string());
    let answer = reborn.run(["recover", "--from", &url, "--identity", &kit, "-o", "json"])?;
    Ok((reborn, answer))
}

fn copy(from: &Path, to: &Path) -> Result {
    let copied = Command::new("cp").arg("--archive").arg(from).arg(to).status()?.success();
    ensure(copied, || format!("{} could not be copied", from.display()))
}

#[test]
fn a_rehearsal_changes_no_target() -> Result {
    let mut setting = Setting::new("rehearsal")?;
    setting.protect()?;
    setting.appliance.back_up(INSTANCE, "all")?;
    setting.appliance.stop()?;
    let primary = setting.appliance.data().join("repository");
    let before = (listing(setting.s3.root())?, listing(&primary)?);
    ensure(before.0.len() > 10 && before.1.len() > 10, || "there is nothing to be touched".into())?;

    let (mut reborn, recovered) = recover(&setting, "laptop")?;
    recovered.done()?;
    reborn.start()?;
    reborn.list(&["backup", "list", INSTANCE])?;
    reborn.verify(&format!("{INSTANCE}/latest"))?;
    let to = setting.workdir.join("restored");
    reborn.restore(&format!("{INSTANCE}/latest"), &to, &[], &["--wait"])?.done()?;
    reborn.stop()?;
    ensure((listing(setting.s3.root())?, listing(&primary)?) == before, || "a target was touched".into())
}

#[test]
fn a_rebirth_from_heads_alone_knows_the_proofs() -> Result {
    let mut setting = Setting::new("from-heads")?;
    setting.protect()?;
    let backup = setting.appliance.back_up(INSTANCE, "all")?;
    setting.appliance.verify(&format!("{INSTANCE}/latest"))?;
    setting.appliance.stop()?;
    // Every export is lost, and with it what the catalog alone knew.
    for (name, path) in files(setting.s3.root())? {
        let is_export = name.contains("/backups/") && name.ends_with("/manifest") && !name.contains(&uid(&backup));
        if is_export {
            fs::remove_file(path)?;
        }
    }
    let (mut reborn, recovered) = recover(&setting, "reborn")?;
    let recovered = recovered.json()?;
    ensure(recovered["source"] == "heads" && recovered["backups"] == 1, || format!("not from heads: {recovered}"))?;
    reborn.start()?;
    let backups = reborn.list(&["backup", "list", INSTANCE])?;
    let proven = backups.len() == 1 && backups[0]["status"]["verified"]["passed"] == true;
    ensure(proven && backups[0]["uid"] == backup["uid"], || format!("a fact is lost: {backups:?}"))?;

    // Heads know no policies: nothing expires before somebody says how it is to be.
    let is_off = || -> Result<bool> { Ok(reborn.run(["status", "-o", "json"])?.stdout.contains("expiry-unconfirmed")) };
    ensure(is_off()?, || "it is not told that nothing expires".into())?;
    reborn.run(["policy", "confirm"])?.refused(&["takeover"])?;
    reborn.take_over()?;
    reborn.run(["policy", "confirm"])?.done()?;
    ensure(!is_off()?, || "what was confirmed is asked for still".into())
}

fn uid(backup: &serde_json::Value) -> String {
    backup["uid"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn an_older_state_of_a_target_is_refused_and_a_recovery_from_it_warns() -> Result {
    let mut setting = Setting::new("rollback")?;
    setting.protect()?;
    setting.appliance.back_up(INSTANCE, "all")?;
    let aside = setting.workdir.join("snapshot");
    copy(setting.s3.root(), &aside)?;
    let second = setting.appliance.back_up(INSTANCE, "all")?;
    setting.appliance.stop()?;

    // Somebody brings the vault back to the state of yesterday.
    for (_, path) in files(setting.s3.root())? {
        fs::remove_file(path)?;
    }
    copy(&aside.join("."), setting.s3.root())?;
    let (_, warned) = recover(&setting, "reborn")?;
    let warned = warned.ended(3)?;
    ensure(warned.stderr.contains("holds 1 backups that this target lacks"), || format!("no warning: {warned}"))?;

    setting.appliance.start()?;
    setting.appliance.run(["target", "sync", "vault"])?.done()?;
    holdfast_tests::wait_until("the older state is told", std::time::Duration::from_secs(60), || {
        let status = setting.appliance.run(["status"])?;
        Ok((status.code == Some(3) && status.stdout.contains("older state")).then_some(()))
    })?;
    let third = setting.appliance.back_up(INSTANCE, "primary")?;
    ensure(third["uid"] != second["uid"], || "the primary is disturbed too".into())?;
    ensure(third["status"]["protection"] == "single-site", || format!("protected by a vault of yesterday: {third}"))
}
