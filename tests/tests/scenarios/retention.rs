//! Policies say what is kept at each target; what nothing keeps expires, one target at a time, and a look ahead says why.

use std::time::Duration;

use holdfast_tests::content::Content;
use holdfast_tests::{Failure, Result, ensure, wait_until};
use serde_json::Value;

use crate::setting::{INSTANCE, Setting};

/// How long the job that lets backups go may take to come and to end.
const PATIENCE: Duration = Duration::from_secs(300);

#[test]
fn backups_expire_at_one_target_stay_at_the_other_and_a_hold_outlives_both() -> Result {
    let setting = Setting::new("retention")?;
    setting.protect()?;
    let (appliance, content) = (&setting.appliance, Content::of(&setting.cluster)?);
    appliance.run(["policy", "add", "few", "--target", "primary", "--keep-last", "2"])?.done()?;
    appliance.run(["policy", "add", "more", "--target", "vault", "--keep-last", "3"])?.done()?;
    appliance.run(["policy", "add", "none"])?.ended(2)?;

    let held = back_up(&setting)?;
    appliance.run(["backup", "hold", &held, "--reason", "the auditors want it"])?.done()?;
    let names = (0..4).map(|_| back_up(&setting)).collect::<Result<Vec<_>>>()?;
    let [oldest, off_site, _, newest] = &names[..] else { return Err(Failure::new("four backups were made")) };

    // Both lose the oldest: it is gone. The primary loses one more, which the vault keeps.
    wait_until("the oldest backup is gone", PATIENCE, || {
        let backups = appliance.list(&["backup", "list", INSTANCE])?;
        Ok((!backups.iter().any(|backup| oldest.ends_with(&text(backup, "name")))).then_some(()))
    })?;
    wait_until("a backup expires at the primary", PATIENCE, || {
        Ok((states(&setting, off_site)? == ["Expired", "Durable"]).then_some(()))
    })?;
    ensure(states(&setting, &held)? == ["Durable", "Durable"], || "what is held went".into())?;
    let words =
        |name: &str| -> Result<Value> { Ok(appliance.json(["backup", "show", name])?["status"]["retainedAs"].clone()) };
    ensure(words(&held)? == serde_json::json!(["hold"]), || "the hold is not told".into())?;
    ensure(words(newest)?.to_string().contains("\"last\""), || "the policy is not told".into())?;

    // What is only at the other site is there whole.
    let to = setting.workdir.join("restored");
    appliance.restore(off_site, &to, &[], &["--wait"])?.done()?;
    setting.must_hold(&to, &content)?;
    for target in ["primary", "vault"] {
        appliance.run(["repository", "check", "--read-data", "--target", target])?.done()?;
    }

    // A tighter policy acts a day later; a look ahead says so, and what it will take.
    appliance.run(["policy", "edit", "more", "--keep-last", "1"])?.done()?;
    let now = at_vault(&appliance.json(["policy", "preview", INSTANCE])?, off_site)?;
    ensure(now["action"] == "keep" && now["reasons"][0]["word"] == "policy-change", || format!("{now}"))?;
    ensure(now["reasons"][0]["until"].is_string(), || format!("until when is not told: {now}"))?;
    let later = at_vault(&appliance.json(["policy", "preview", INSTANCE, "--after-changes"])?, off_site)?;
    ensure(later["action"] == "delete", || format!("{later}"))?;
    ensure(states(&setting, off_site)? == ["Expired", "Durable"], || "a look ahead changed something".into())?;
    appliance.run(["policy", "remove", "few"])?.done()?;
    let policies = appliance.list(&["policy", "list"])?;
    ensure(policies.len() == 1 && policies[0]["actsAt"].is_string(), || format!("{policies:?}"))
}

#[test]
fn a_backup_may_have_a_time_of_its_own() -> Result {
    let setting = Setting::new("keep-for")?;
    setting.register()?;
    let backup = setting.appliance.json(["backup", "create", INSTANCE, "--keep-for", "90d", "--wait"])?;
    let kept = backup["status"]["retainedAs"].to_string();
    ensure(backup["keepUntil"].is_string() && kept.contains("keep-for"), || format!("{backup}"))?;
    let other = setting.appliance.back_up(INSTANCE, "primary")?;
    ensure(other["status"]["retainedAs"].to_string().contains("no-policy"), || format!("{other}"))
}

fn text(object: &Value, key: &str) -> String {
    object[key].as_str().unwrap_or_default().to_owned()
}

/// Makes a backup that is at both targets. Its full name.
fn back_up(setting: &Setting) -> Result<String> {
    Ok(format!("{INSTANCE}/{}", text(&setting.appliance.back_up(INSTANCE, "all")?, "name")))
}

/// How a backup's copies are, the primary's first.
fn states(setting: &Setting, backup: &str) -> Result<Vec<String>> {
    let backup = setting.appliance.json(["backup", "show", backup])?;
    let sites = backup["status"]["sites"].as_array().into_iter().flatten();
    Ok(sites.map(|copy| text(copy, "state")).collect())
}

/// What a preview says of a backup at the vault.
fn at_vault(preview: &Value, backup: &str) -> Result<Value> {
    let found = preview["items"].as_array().into_iter().flatten().find(|item| item["backup"] == backup);
    let mut copies = found.and_then(|item| item["targets"].as_array()).into_iter().flatten();
    let copy = copies.find(|copy| copy["target"] == "vault").cloned();
    copy.ok_or_else(|| Failure::new(format!("nothing is said of {backup} at the vault: {preview}")))
}
