//! Keys change hands: rotation and removed recipients reach every target, and what is shredded nobody reads again.

use std::collections::BTreeSet;
use std::time::Duration;

use holdfast_tests::appliance::{Answer, Appliance};
use holdfast_tests::content::Content;
use holdfast_tests::reader::Reader;
use holdfast_tests::{Result, ensure, wait_until};
use serde_json::Value;

use crate::reader::files;
use crate::setting::{INSTANCE, Setting};

const PATIENCE: Duration = Duration::from_secs(120);

/// A recovery of what lies at the vault, with one kit.
fn recovery(setting: &Setting, name: &str, kit: &str) -> Result<(Appliance, Answer)> {
    let reborn = Appliance::on(&setting.workdir.join(name)).with_access_to_vault();
    let (url, kit) = (setting.s3.url("backups"), setting.workdir.join(kit).display().to_string());
    let answer = reborn.run(["recover", "--from", &url, "--identity", &kit, "-o", "json"])?;
    Ok((reborn, answer))
}

/// Full name of a backup.
fn named(backup: &Value) -> String {
    format!("{INSTANCE}/{}", backup["name"].as_str().unwrap_or_default())
}

#[test]
fn a_rotation_reaches_both_targets_and_old_kits_stay_good() -> Result {
    let mut setting = Setting::new("rotation")?;
    setting.protect()?;
    let content = Content::of(&setting.cluster)?;
    setting.appliance.back_up(INSTANCE, "offsite")?;
    for arguments in [&["--wait"][..], &["--organization", "acme", "--wait"], &["--signing"]] {
        let words: Vec<_> = ["key", "rotate"].iter().chain(arguments).copied().collect();
        setting.appliance.run(words)?.done()?;
    }
    setting.appliance.run(["key", "rotate", "--organization", "nobody"])?.refused(&["nobody", "acme"])?;
    let second = setting.appliance.back_up(INSTANCE, "all")?;
    setting.appliance.verify(&named(&second))?;
    let checked = setting.appliance.json(["repository", "check", "--target", "vault"])?;
    ensure(checked["passed"] == true, || format!("not sound: {checked}"))?;
    setting.appliance.stop()?;

    let reader = Reader::new(&setting.appliance.data().join("repository"), &setting.kit())?;
    ensure(reader.list()?.len() >= 2, || "another program finds no backups".into())?;
    let (reborn, answer) = recovery(&setting, "reborn", "alice.key")?;
    answer.done()?;
    setting.appliance = reborn;
    setting.appliance.start()?;
    let to = setting.workdir.join("restored");
    setting.appliance.restore(&format!("{INSTANCE}/latest"), &to, &[], &["--wait"])?.done()?;
    setting.must_hold(&to, &content)
}

#[test]
fn who_is_removed_recovers_no_more_and_who_was_added_does() -> Result {
    let setting = Setting::new("recipients")?;
    setting.protect()?;
    setting.appliance.run(["key", "recipient", "remove", "alice"])?.refused(&["last recovery recipient"])?;
    setting.appliance.back_up(INSTANCE, "offsite")?;
    let bob = setting.workdir.join("bob.key").display().to_string();
    setting.appliance.run(["key", "recipient", "add", "bob", "--generate", &bob])?.done()?;
    let removed = setting.appliance.run(["key", "recipient", "remove", "alice", "--wait"])?.done()?;
    ensure(removed.stdout.contains("still readable"), || format!("it does not say what is left: {removed}"))?;
    let names = setting.appliance.list(&["key", "recipient", "list"])?;
    ensure(names.len() == 1 && names[0]["name"] == "bob", || format!("not bob alone: {names:?}"))?;

    let (_, refused) = recovery(&setting, "alice", "alice.key")?;
    refused.refused(&["does not open the keyring"])?;
    let (mut reborn, recovered) = recovery(&setting, "bob", "bob.key")?;
    recovered.done()?;
    reborn.start()?;
    reborn.verify(&format!("{INSTANCE}/latest")).map(drop)
}

#[test]
fn a_shredded_backup_is_gone_and_what_could_not_be_reached_is_told() -> Result {
    let mut setting = Setting::new("shredding")?;
    setting.protect()?;
    let first = setting.appliance.back_up(INSTANCE, "primary")?;
    setting.cluster.sql("postgres", "CREATE TABLE more AS SELECT n, md5(n::text) FROM generate_series(1, 9000) n")?;
    let second = setting.appliance.back_up(INSTANCE, "all")?;
    let (name, confirm) = (named(&first), first["name"].as_str().unwrap_or_default());
    setting.appliance.run(["key", "shred", &name, "--confirm", "another"])?.refused(&["--confirm"])?;
    setting.s3.pause()?;
    let told = setting.appliance.run(["key", "shred", &name, "--confirm", confirm, "-o", "json"])?.ended(3)?;
    let told: Value = serde_json::from_str(&told.stdout)?;
    ensure(told["targets"][0]["done"] == true && told["targets"][1]["done"] == false, || format!("not so: {told}"))?;
    let survives = told.to_string();
    for words in ["other backups of acme hold them too", "until the target answers", "earlier heads"] {
        ensure(survives.contains(words), || format!("it does not say {words:?}: {told}"))?;
    }
    setting.s3.resume()?;
    wait_until("the vault has shredded it too", PATIENCE, || {
        let jobs = setting.appliance.list(&["job", "list"])?;
        let done = jobs.iter().filter(|job| job["kind"] == "shred" && job["state"] == "Succeeded").count();
        Ok((done == 2).then_some(()))
    })?;
    setting.appliance.run(["backup", "show", &name])?.refused(&["no backup"])?;
    setting.appliance.verify(&named(&second))?;
    let (reborn, recovered) = recovery(&setting, "reborn", "alice.key")?;
    ensure(recovered.json()?["backups"] == 1, || "it came back".into())?;
    drop(reborn);
    Ok(())
}

#[test]
fn a_shredded_organization_leaves_nothing_behind() -> Result {
    let setting = Setting::new("organization")?;
    setting.protect()?;
    setting.appliance.back_up(INSTANCE, "offsite")?;
    let shred = ["key", "shred", "acme", "--confirm", "acme", "-o", "json"];
    setting.appliance.run(shred)?.refused(&["instance remove"])?;
    setting.appliance.run(["instance", "remove", INSTANCE])?.done()?;
    let told = setting.appliance.run(shred)?.json()?;
    let done = told["targets"].as_array().into_iter().flatten().all(|target| target["done"] == true);
    ensure(done, || format!("not everywhere: {told}"))?;
    for place in [setting.appliance.data().join("repository"), setting.s3.root().to_owned()] {
        let objects = files(&place)?;
        let domains: BTreeSet<_> = objects.keys().filter_map(|path| path.split_once("domains/")?.1.get(..32)).collect();
        ensure(domains.len() == 1, || format!("not the appliance's own domain alone: {domains:?}"))?;
    }
    let (_, recovered) = recovery(&setting, "reborn", "alice.key")?;
    ensure(recovered.json()?["backups"] == 0, || "a backup came back".into())?;
    // The name is free for new keys.
    let again = ["instance", "list", "-o", "json"];
    setting.appliance.run(again)?.done().map(drop)
}

#[test]
fn a_tenant_restores_its_own_backups_with_its_own_key() -> Result {
    let setting = Setting::new("tenant")?;
    setting.protect()?;
    let content = Content::of(&setting.cluster)?;
    setting.appliance.back_up(INSTANCE, "offsite")?;
    let identity = setting.workdir.join("customer.key").display().to_string();
    setting.add_tenant(&identity)?;
    let (reborn, refused) = recovery(&setting, "reborn", "customer.key")?;
    refused.refused(&["restore"])?;
    let (to, url) = (setting.workdir.join("restored"), setting.s3.url("backups"));
    reborn.restore(&format!("{INSTANCE}/latest"), &to, &[], &["--from", &url, "--identity", &identity])?.done()?;
    setting.must_hold(&to, &content)?;
    let remove = ["key", "recipient", "remove", "customer", "--organization", "acme", "--wait"];
    setting.appliance.run(remove)?.done()?;
    let (_, refused) = recovery(&setting, "reborn", "customer.key")?;
    refused.refused(&["does not open the keyring"]).map(drop)
}
