//! One site may burn: what is off site, and the recovery kit, are enough.

use std::fs;
use std::time::Duration;

use holdfast_tests::appliance::Appliance;
use holdfast_tests::content::Content;
use holdfast_tests::{Result, ensure, wait_until};

use crate::setting::{INSTANCE, Setting};

#[test]
fn restores_from_offsite_alone() -> Result {
    let mut setting = Setting::new("offsite")?;
    setting.protect()?;
    let content = Content::of(&setting.cluster)?;
    let backup = setting.appliance.back_up(INSTANCE, "offsite")?;
    ensure(backup["status"]["protection"] == "two-sites", || format!("not protected: {backup}"))?;
    setting.appliance.verify(&format!("{INSTANCE}/latest"))?;

    // What is safe off site can be reborn from there, its instance's settings among it: there is nothing more to wait for.
    setting.appliance.kill()?;
    fs::remove_dir_all(setting.appliance.data())?;

    setting.appliance = Appliance::on(&setting.workdir.join("reborn")).with_access_to_vault();
    setting.appliance.recover(&setting.s3, &setting.kit())?;
    setting.appliance.start()?;

    // Until it is told to take over, the reborn appliance reads, and changes nothing.
    let backups = setting.appliance.list(&["backup", "list", INSTANCE])?;
    ensure(backups.len() == 1 && backups[0]["uid"] == backup["uid"], || {
        format!("not the backup that was made: {backups:?}")
    })?;
    ensure(backups[0]["status"]["verified"]["passed"] == true, || format!("the proof is lost: {backups:?}"))?;
    setting.appliance.run(["backup", "create", INSTANCE, "--wait"])?.refused(&["takeover"])?;

    setting.appliance.take_over()?;
    let to = setting.workdir.join("restored");
    setting.appliance.restore(&format!("{INSTANCE}/latest"), &to, &[], &["--wait"])?.done()?;
    setting.must_hold(&to, &content)?;

    // The instance's password came back with the catalog.
    let third = setting.appliance.back_up(INSTANCE, "all")?;
    ensure(third["uid"] != backup["uid"], || "no new backup was made".into())?;
    setting.appliance.verify(&format!("{INSTANCE}/latest"))?;
    ensure(setting.appliance.list(&["backup", "list", INSTANCE])?.len() == 2, || "there are not two backups".into())
}

#[test]
fn restores_from_offsite_without_any_appliance() -> Result {
    let mut setting = Setting::new("offline")?;
    setting.protect()?;
    let content = Content::of(&setting.cluster)?;
    setting.appliance.back_up(INSTANCE, "offsite")?;
    setting.appliance.kill()?;
    fs::remove_dir_all(setting.appliance.data())?;

    let nobody = Appliance::on(&setting.workdir.join("nobody")).with_access_to_vault();
    let (to, url, kit) = (setting.workdir.join("restored"), setting.s3.url("backups"), setting.kit());
    let more = ["--from", &url, "--identity", &kit.display().to_string()];
    nobody.restore(&format!("{INSTANCE}/latest"), &to, &[], &more)?.done()?;
    setting.must_hold(&to, &content)
}

#[test]
fn a_vault_that_was_away_catches_up_by_itself() -> Result {
    let mut setting = Setting::new("catch-up")?;
    setting.protect()?;
    setting.s3.pause()?;
    let backup = setting.appliance.back_up(INSTANCE, "primary")?;
    ensure(backup["status"]["protection"] != "two-sites", || format!("protected by a site that is away: {backup}"))?;

    setting.s3.resume()?;
    setting.s3.be_unavailable(3)?;
    setting.appliance.run(["target", "sync", "vault"])?.done()?;
    setting.wait_for_protection()?;
    ensure(setting.s3.unavailable_left() == 0, || "the faults were never met".into())
}

#[test]
fn an_appliance_that_was_taken_over_writes_no_more_off_site() -> Result {
    let mut setting = Setting::new("superseded")?;
    setting.protect()?;
    setting.appliance.back_up(INSTANCE, "offsite")?;
    setting.appliance.stop()?;

    let mut reborn = Appliance::on(&setting.workdir.join("reborn")).with_access_to_vault();
    reborn.recover(&setting.s3, &setting.kit())?;
    reborn.start()?;
    reborn.take_over()?;

    // The former appliance was thought to be gone, and comes back.
    setting.appliance.start()?;
    setting.appliance.run(["target", "sync", "vault"])?.done()?;
    wait_until("its replication is refused", Duration::from_secs(120), || {
        let jobs = setting.appliance.list(&["job", "list"])?;
        let refused = jobs.iter().any(|job| job["kind"] == "replicate" && job["error"]["code"] == "superseded");
        Ok(refused.then_some(()))
    })?;
    let third = reborn.back_up(INSTANCE, "all")?;
    ensure(third["status"]["protection"] == "two-sites", || format!("not protected: {third}"))
}

#[test]
#[allow(clippy::disallowed_methods)] // Nothing here is to survive a power cut.
fn a_primary_that_is_gone_is_not_begun_anew() -> Result {
    let mut setting = Setting::new("gone")?;
    setting.protect()?;
    let content = Content::of(&setting.cluster)?;
    setting.appliance.back_up(INSTANCE, "offsite")?;
    setting.appliance.stop()?;
    let primary = setting.appliance.data().join("repository");
    let aside = setting.workdir.join("unmounted");
    fs::rename(&primary, &aside)?;
    ensure(setting.appliance.start().is_err(), || "it began an empty primary".into())?;

    // Mounted again, everything is there.
    fs::rename(&aside, &primary)?;
    setting.appliance.start()?;
    let to = setting.workdir.join("restored");
    setting.appliance.restore(&format!("{INSTANCE}/latest"), &to, &[], &["--wait"])?.done()?;
    setting.must_hold(&to, &content)
}

#[test]
#[allow(clippy::disallowed_methods)] // Nothing here is to survive a power cut.
fn a_data_directory_that_was_moved_takes_its_repository_along() -> Result {
    let mut setting = Setting::new("moved")?;
    setting.register()?;
    let backup = setting.appliance.back_up(INSTANCE, "primary")?;
    setting.appliance.stop()?;
    let moved = setting.workdir.join("elsewhere");
    fs::rename(setting.appliance.data(), &moved)?;

    setting.appliance = Appliance::on(&moved);
    setting.appliance.start()?;
    setting.appliance.verify(&format!("{INSTANCE}/latest"))?;
    let next = setting.appliance.back_up(INSTANCE, "primary")?;
    ensure(next["uid"] != backup["uid"] && moved.join("repository").exists(), || format!("not there: {next}"))
}
