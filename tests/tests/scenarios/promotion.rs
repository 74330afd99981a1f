//! Targets can be many, change, and exchange their roles; none of it deletes a byte.

use std::fs;
use std::process::Command;

use holdfast_tests::content::Content;
use holdfast_tests::sshd::Sshd;
use holdfast_tests::{Result, ensure};
use serde_json::Value;

use crate::setting::{INSTANCE, Setting};

/// A window that opens in two hours and closes in three.
fn closed_window() -> Result<String> {
    let hour = |ahead: &str| -> Result<String> {
        let output = Command::new("date").args(["--utc", "--date", ahead, "+%H:%M"]).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    Ok(format!("window={}-{} UTC", hour("+2 hours")?, hour("+3 hours")?))
}

/// A target's status.
fn status(setting: &Setting, target: &str) -> Result<Value> {
    Ok(setting.appliance.json(["target", "status", target])?["status"].clone())
}

#[test]
fn a_second_secondary_holds_everything_too() -> Result {
    let mut setting = Setting::new("three-targets")?;
    setting.protect()?;
    let mut sshd = Sshd::start(&setting.workdir.join("sshd"))?;
    let mut words: Vec<String> =
        ["target", "add", "third", &sshd.url("backups")?, "--site", "elsewhere"].map(String::from).into();
    words.extend(sshd.arguments()?);
    setting.appliance.run(words)?.done()?;
    let content = Content::of(&setting.cluster)?;

    sshd.pause()?;
    let backup = setting.appliance.back_up(INSTANCE, "offsite")?;
    let lag =
        |name: &str| status(&setting, name).map(|status| (status["behind"].clone(), status["behindSince"].clone()));
    ensure(lag("third")? == (1.into(), backup["status"]["finishedAt"].clone()), || "the lag is not told".into())?;
    ensure(lag("vault")? == (0.into(), Value::Null), || "a lag is told where there is none".into())?;
    sshd.resume()?;
    setting.appliance.run(["target", "sync", "third"])?.done()?;
    let backup = setting.appliance.back_up(INSTANCE, "all")?;
    let sites = backup["status"]["sites"].as_array().cloned().unwrap_or_default();
    let is_timed = |copy: &Value| copy["state"] == "Durable" && copy["lagSeconds"].is_u64();
    ensure(sites.len() == 3 && sites.iter().all(is_timed), || format!("not everywhere: {backup}"))?;

    let instance = setting.appliance.json(["instance", "show", INSTANCE])?;
    ensure(instance["status"]["lastOffsiteBackupAt"] == backup["status"]["finishedAt"], || {
        format!("what is off site is not told: {instance}")
    })?;
    let worst = setting.appliance.run(["status", "-o", "json"])?;
    ensure(worst.stdout.contains("worstOffsite") && worst.stdout.contains(INSTANCE), || format!("{worst}"))?;

    // Two sites burn.
    setting.s3.pause()?;
    fs::remove_dir_all(setting.appliance.data().join("repository"))?;
    let to = setting.workdir.join("restored");
    setting.appliance.restore(&format!("{INSTANCE}/latest"), &to, &[], &["--from", "third", "--wait"])?.done()?;
    setting.must_hold(&to, &content)
}

#[test]
fn a_promoted_target_takes_the_backups_and_survives_restarts() -> Result {
    let mut setting = Setting::new("promotion")?;
    setting.protect()?;
    setting.appliance.back_up(INSTANCE, "all")?;
    setting.appliance.run(["target", "promote", "vault"])?.done()?;
    setting.appliance.run(["target", "promote", "vault"])?.refused(&["is the primary already"])?;
    let targets = setting.appliance.list(&["target", "list"])?;
    ensure(targets[0]["name"] == "vault" && targets[0]["role"] == "primary", || format!("{targets:?}"))?;

    setting.appliance.stop()?;
    setting.appliance.start()?;
    let backup = setting.appliance.back_up(INSTANCE, "all")?;
    let sites = backup["status"]["sites"].as_array().cloned().unwrap_or_default();
    ensure(sites.len() == 2 && sites[0]["target"] == "vault", || format!("not made at the new primary: {backup}"))?;
    setting.appliance.verify(&format!("{INSTANCE}/latest"))?;

    // The former primary is lost, and nobody needs it.
    setting.appliance.run(["target", "remove", "vault"])?.refused(&["is the primary target", "promote"])?;
    setting.appliance.run(["target", "remove", "primary"])?.done()?;
    fs::remove_dir_all(setting.appliance.data().join("repository"))?;
    setting.appliance.stop()?;
    setting.appliance.start()?;
    setting.appliance.back_up(INSTANCE, "all")?;

    // A new one begins empty, and is filled.
    let url = format!("file://{}", setting.workdir.join("new").display());
    setting.appliance.run(["target", "add", "new", &url, "--site", "here"])?.done()?;
    setting.appliance.run(["target", "promote", "new"])?.done()?;
    let content = Content::of(&setting.cluster)?;
    let backup = setting.appliance.back_up(INSTANCE, "all")?;
    ensure(backup["status"]["protection"] == "two-sites", || format!("not protected: {backup}"))?;
    setting.appliance.run(["target", "sync", "new"])?.done()?;
    holdfast_tests::wait_until("the new primary is filled", std::time::Duration::from_secs(120), || {
        Ok((status(&setting, "new")?["behind"] == 0).then_some(()))
    })?;
    let to = setting.workdir.join("restored");
    setting.appliance.restore(&format!("{INSTANCE}/latest"), &to, &[], &["--from", "new", "--wait"])?.done()?;
    setting.must_hold(&to, &content)
}

#[test]
fn a_closed_window_keeps_copies_waiting_and_last_copies_are_not_forgotten() -> Result {
    let setting = Setting::new("window")?;
    setting.protect()?;
    setting.appliance.back_up(INSTANCE, "all")?;
    setting.appliance.run(["target", "edit", "vault", "--set", "window=22"])?.refused(&["two different times"])?;
    setting.appliance.run(["target", "edit", "vault", "--set", "bandwidth=fast"])?.refused(&["20MiB/s"])?;
    setting.appliance.run(["target", "edit", "vault", "--set", "bandwidth=100MiB/s"])?.done()?;
    setting.appliance.run(["target", "edit", "vault", "--set", &closed_window()?])?.done()?;
    let backup = setting.appliance.back_up(INSTANCE, "primary")?;
    ensure(status(&setting, "vault")?["behind"] == 1, || "it was copied outside of the window".into())?;
    holdfast_tests::wait_until("a job says what the copy waits for", std::time::Duration::from_secs(120), || {
        let jobs = setting.appliance.list(&["job", "list"])?;
        let waits = |job: &serde_json::Value| {
            let phase = job["progress"]["phase"].as_str().unwrap_or_default();
            job["state"] == "Queued" && phase.starts_with("waits for its window until")
        };
        Ok(jobs.iter().any(waits).then_some(()))
    })?;

    // The primary holds what lies nowhere else. It cannot be forgotten, whatever its role.
    setting.appliance.run(["target", "promote", "vault"])?.done()?;
    setting
        .appliance
        .run(["target", "remove", "primary"])?
        .refused(&["1 backups lie at primary", "--confirm primary"])?;

    // An order counts more than the window.
    setting.appliance.run(["target", "sync", "vault"])?.done()?;
    holdfast_tests::wait_until("it is copied", std::time::Duration::from_secs(120), || {
        Ok((status(&setting, "vault")?["behind"] == 0).then_some(()))
    })?;
    setting.appliance.run(["target", "edit", "vault", "--unset", "window", "--unset", "bandwidth"])?.done()?;
    let target = setting.appliance.json(["target", "show", "vault"])?;
    ensure(target["settings"]["window"].is_null(), || format!("it is still there: {target}"))?;

    setting.appliance.run(["target", "remove", "primary"])?.done()?;
    ensure(setting.appliance.data().join("repository/repository.json").exists(), || "bytes were deleted".into())?;
    let name = format!("{INSTANCE}/{}", backup["name"].as_str().unwrap_or_default());
    setting.appliance.verify(&name).map(drop)
}
