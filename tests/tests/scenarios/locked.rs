//! Locked targets: with every key of the store in their hands, nobody can lose what is locked.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use holdfast_tests::appliance::Appliance;
use holdfast_tests::content::Content;
use holdfast_tests::minio::{Kept, Minio};
use holdfast_tests::{Failure, Result, ensure};

use crate::setting::{INSTANCE, Setting};

/// Adds the server as target `vault`, locked in this way.
fn add_vault(setting: &Setting, minio: &Minio, lock: &[&str]) -> Result {
    let mut words = minio.target_arguments("vault", "there", &setting.workdir)?;
    words.extend(lock.iter().flat_map(|value| ["--set".to_owned(), (*value).to_owned()]));
    setting.appliance.make_recovery_kit(&setting.kit())?;
    setting.appliance.run(words)?.done()?;
    setting.register()
}

/// Versions of what the repository keeps; what a probe left is locked for a minute only.
fn stored(minio: &Minio) -> Result<Vec<Kept>> {
    let mut kept = minio.kept("backups/")?;
    kept.retain(|kept| !kept.is_marker && !kept.key.starts_with("backups/probe/"));
    Ok(kept)
}

/// What an adversary puts in the place of everything.
fn junk(setting: &Setting) -> Result<PathBuf> {
    let junk = setting.workdir.join("junk");
    fs::write(&junk, "not yours any more")?;
    Ok(junk)
}

/// Overwrites some objects, deletes others, and does both to the rest, as far as a lock lets anybody.
fn overwrite_and_delete(minio: &Minio, kept: &[Kept], junk: &Path) -> Result {
    for (number, version) in kept.iter().enumerate() {
        if number % 3 != 0 {
            ensure(minio.overwrite(&version.key, junk)? == 200, || format!("{version:?} was not overwritten"))?;
        }
        if number % 3 != 1 {
            ensure(minio.delete(&version.key)? == 204, || format!("the deletion of {version:?} was not answered"))?;
        }
    }
    Ok(())
}

#[test]
fn an_adversary_with_every_key_loses_nothing_that_is_locked() -> Result {
    let mut setting = Setting::new("locked")?;
    let minio = Minio::start(&setting.workdir.join("minio"))?;
    add_vault(&setting, &minio, &["lock=compliance", "lock-days=1"])?;
    let content = Content::of(&setting.cluster)?;
    let backup = setting.appliance.back_up(INSTANCE, "offsite")?;
    let tenant = setting.workdir.join("customer.key").display().to_string();
    setting.add_tenant(&tenant)?;
    setting.appliance.wait_until_remembered(INSTANCE)?;
    setting.appliance.kill()?;
    fs::remove_dir_all(setting.appliance.data())?;

    // Everything is overwritten, deleted, and destroyed, as far as the store lets one who may do anything.
    let kept = stored(&minio)?;
    ensure(kept.len() > 10, || format!("there is little to attack: {kept:?}"))?;
    for version in &kept {
        let refused = minio.destroy(version)?;
        ensure((400..500).contains(&refused), || format!("{version:?} was destroyed: {refused}"))?;
    }
    let junk = junk(&setting)?;
    overwrite_and_delete(&minio, &kept, &junk)?;
    // And strange heads are put behind the last ones.
    for (heads, newest) in newest_heads(&kept)? {
        ensure(minio.overwrite(&format!("{heads}{:016x}", newest + 1), &junk)? == 200, || "no strange head".into())?;
        ensure(minio.overwrite(&format!("{heads}{:016x}", newest + 900), &junk)? == 200, || "no strange head".into())?;
    }

    setting.appliance = Appliance::on(&setting.workdir.join("reborn")).with_access_to_vault();
    let (url, kit, data) = (minio.url("backups"), setting.kit(), setting.workdir.join("reborn"));
    let words = ["recover", "--from", &url, "--identity"].map(String::from);
    let more = [kit.display().to_string(), "--data-dir".to_owned(), data.display().to_string()];
    setting.appliance.run(words.iter().chain(&more))?.done()?;
    setting.appliance.start()?;
    let backups = setting.appliance.list(&["backup", "list", INSTANCE])?;
    ensure(backups.len() == 1 && backups[0]["uid"] == backup["uid"], || format!("it is lost: {backups:?}"))?;
    let to = setting.workdir.join("restored");
    setting.appliance.restore(&format!("{INSTANCE}/latest"), &to, &[], &["--wait"])?.done()?;
    setting.must_hold(&to, &content)?;
    let to = setting.workdir.join("restored-by-the-tenant");
    let alone = ["--from", &url, "--identity", &tenant];
    setting.appliance.restore(&format!("{INSTANCE}/latest"), &to, &[], &alone)?.done()?;
    setting.must_hold(&to, &content)?;

    // What stands in the way of new heads makes way.
    setting.appliance.take_over()?;
    let next = setting.appliance.back_up(INSTANCE, "all")?;
    ensure(next["status"]["protection"] == "two-sites", || format!("not protected: {next}"))
}

/// The newest sequence below each folder of heads.
fn newest_heads(kept: &[Kept]) -> Result<BTreeMap<String, u64>> {
    let mut newest = BTreeMap::new();
    for version in kept {
        let Some((before, sequence)) = version.key.rsplit_once('/').filter(|(before, _)| before.ends_with("/heads"))
        else {
            continue;
        };
        let sequence = u64::from_str_radix(sequence, 16)?;
        let known = newest.entry(format!("{before}/")).or_insert(sequence);
        *known = sequence.max(*known);
    }
    Ok(newest)
}

#[test]
#[allow(clippy::disallowed_methods)] // Locks are dates by the server's clock, which is ours.
fn what_a_new_backup_needs_is_locked_as_long_as_the_backup() -> Result {
    let setting = Setting::new("lock-extension")?;
    let minio = Minio::start(&setting.workdir.join("minio"))?;
    add_vault(&setting, &minio, &["lock=governance", "lock-days=1"])?;
    setting.appliance.back_up(INSTANCE, "offsite")?;
    let first = stored(&minio)?;
    let before: BTreeSet<&str> = first.iter().map(|kept| kept.key.as_str()).collect();

    // From now on for longer: what the next backup shares with the first one too.
    setting.appliance.run(["target", "edit", "vault", "--set", "lock-days=30"])?.done()?;
    setting.appliance.back_up(INSTANCE, "offsite")?;
    let least = SystemTime::now() + Duration::from_secs(30 * 86_400 - 3_600);
    let least = least.duration_since(UNIX_EPOCH)?.as_secs();
    let domain = largest_domain(&first)?;
    let keyring = newest_keyring(&first)?;
    let mut looked_at = 0;
    for kept in stored(&minio)?.iter().filter(|kept| before.contains(kept.key.as_str())) {
        let is_shared =
            ["packs/", "indexes/", "heads/"].iter().any(|part| kept.key.starts_with(&format!("{domain}{part}")))
                || kept.key.starts_with(&keyring)
                || kept.key == "backups/repository.json";
        if is_shared {
            let until = minio.locked_until(kept)?;
            ensure(until >= least, || format!("{kept:?} is locked until {until} only, not until {least}"))?;
            looked_at += 1;
        }
    }
    ensure(looked_at >= 5, || format!("only {looked_at} objects were looked at: {before:?}"))
}

/// Governance keeps out who may not bypass it, and nobody else: that right belongs to nobody whose keys Holdfast has.
#[test]
fn under_governance_only_who_may_bypass_it_can_lose_something() -> Result {
    let setting = Setting::new("governance")?;
    let minio = Minio::start(&setting.workdir.join("minio"))?;
    add_vault(&setting, &minio, &["lock=governance", "lock-days=1"])?;
    let content = Content::of(&setting.cluster)?;
    setting.appliance.back_up(INSTANCE, "all")?;

    let kept = stored(&minio)?;
    ensure(kept.len() > 10, || format!("there is little to attack: {kept:?}"))?;
    for version in &kept {
        let refused = minio.destroy_within_the_rules(version)?;
        ensure((400..500).contains(&refused), || format!("{version:?} was destroyed: {refused}"))?;
    }
    overwrite_and_delete(&minio, &kept, &junk(&setting)?)?;
    let (url, kit) = (minio.url("backups"), setting.kit().display().to_string());
    let alone = ["--from", &url, "--identity", &kit];
    let nobody = Appliance::on(&setting.workdir.join("nobody")).with_access_to_vault();
    let to = setting.workdir.join("restored");
    nobody.restore(&format!("{INSTANCE}/latest"), &to, &[], &alone)?.done()?;
    setting.must_hold(&to, &content)?;

    // Who may bypass it destroys what is locked. It is found, and the copy at the other site brings it back.
    for pack in kept.iter().filter(|kept| kept.key.contains("/packs/")) {
        ensure(minio.destroy(pack)? == 204, || format!("{pack:?} was not destroyed"))?;
    }
    setting.appliance.run(["repository", "check", "--target", "vault"])?.refused(&["damaged"])?;
    // Heads that were overwritten are read past, and stay a finding: the code of this one says nothing of the packs.
    setting.appliance.run(["repository", "check", "--heal", "--target", "vault"])?;
    let to = setting.workdir.join("restored-again");
    nobody.restore(&format!("{INSTANCE}/latest"), &to, &[], &alone)?.done()?;
    setting.must_hold(&to, &content)
}

#[test]
fn what_is_locked_waits_for_the_end_of_its_lock_and_prune_says_so() -> Result {
    must_wait_for_its_end("compliance")
}

#[test]
fn what_is_locked_under_governance_waits_for_the_end_of_its_lock_too() -> Result {
    must_wait_for_its_end("governance")
}

/// Prunes what is locked in this way and not needed any more.
fn must_wait_for_its_end(lock: &str) -> Result {
    let setting = Setting::new(&format!("{lock}-prune"))?;
    let minio = Minio::start(&setting.workdir.join("minio"))?;
    add_vault(&setting, &minio, &[&format!("lock={lock}"), "lock-days=1"])?;
    let backup = setting.appliance.back_up(INSTANCE, "all")?;
    let rows = "SELECT n, md5(random()::text) AS label FROM generate_series(1, 200000) n";
    setting.cluster.sql("postgres", &format!("DROP TABLE goods; CREATE TABLE others AS {rows}; CHECKPOINT"))?;
    setting.appliance.back_up(INSTANCE, "all")?;
    let name = format!("{INSTANCE}/{}", backup["name"].as_str().unwrap_or_default());
    setting.appliance.run(["backup", "delete", &name])?.done()?;

    let before = stored(&minio)?.len();
    for more in [&["--dry-run"][..], &[]] {
        let words = ["repository", "prune", "--now", "--target", "vault"];
        let pruned = setting.appliance.json(words.iter().chain(more))?;
        let locked = &pruned["kept"]["locked"];
        let is_told = locked["objects"].as_u64() > Some(0) && locked["until"].is_string();
        // A dry run condemns nothing, so there is nothing yet that a lock keeps.
        ensure(!more.is_empty() || is_told && pruned["deleted"]["objects"] == 0, || format!("{pruned}"))?;
    }
    ensure(minio.kept("backups/domains/")?.iter().all(|kept| !kept.is_marker), || "it was hidden".into())?;
    ensure(stored(&minio)?.len() >= before, || "something locked is gone".into())?;
    setting.appliance.run(["repository", "check", "--read-data", "--target", "vault"])?.done().map(drop)
}

/// What the names of the newest keyring's two objects begin with. Former generations are nothing that a new backup needs.
fn newest_keyring(kept: &[Kept]) -> Result<String> {
    let generations = kept
        .iter()
        .filter_map(|kept| kept.key.strip_prefix("backups/keyring/")?.split_once('.')?.0.parse::<u64>().ok());
    let newest = generations.max().ok_or_else(|| Failure::new("there is no keyring"))?;
    Ok(format!("backups/keyring/{newest}."))
}

/// The folder of the domain whose packs are the largest: the instance's own, beside which the catalog's exports are small.
fn largest_domain(kept: &[Kept]) -> Result<String> {
    let mut packs = BTreeMap::<&str, u64>::new();
    for kept in kept {
        if let Some((domain, _)) = kept.key.split_once("packs/") {
            *packs.entry(domain).or_default() += kept.length;
        }
    }
    let largest = packs.into_iter().max_by_key(|(_, bytes)| *bytes);
    largest.map(|(domain, _)| domain.to_owned()).ok_or_else(|| Failure::new("there are no packs"))
}

#[test]
fn a_bucket_that_cannot_lock_is_refused_as_a_locked_target() -> Result {
    let setting = Setting::new("no-lock")?;
    let mut words = setting.s3.target_arguments("vault", "backups", "there", &setting.workdir)?;
    words.extend(["--set", "lock=compliance", "--set", "lock-days=1"].map(String::from));
    setting.appliance.run(words)?.refused(&["vault"]).map(drop)?;
    let targets = setting.appliance.list(&["target", "list"])?;
    ensure(targets.len() == 1, || format!("it was added: {targets:?}"))
}
