//! What goes wrong is said clearly, with a hint, by an exit code that is not 0; and nothing is lost by it.

use std::fs;

use holdfast_tests::appliance::{Answer, Appliance};
use holdfast_tests::content::Content;
use holdfast_tests::disk::SmallDisk;
use holdfast_tests::{PASSWORD, ROLE, Result, Workdir, ensure, free_port};
use serde_json::Value;

use crate::setting::{INSTANCE, Setting, skipped};

/// Registers `acme/shop/wrong` with these settings, and tries to check it and to back it up: what the backup said.
fn back_up_wrongly(setting: &Setting, settings: &[(&str, &str)], password: &str) -> Result<Answer> {
    let secret = format!("password={}", setting.workdir.secret("wrong-password", password)?.display());
    let port = setting.cluster.port().to_string();
    let mut all = vec![("host", "127.0.0.1"), ("port", &port), ("user", ROLE), ("tls", "off")];
    all.retain(|(key, _)| settings.iter().all(|(other, _)| other != key));
    let mut words: Vec<String> =
        ["instance", "add", "acme/shop/wrong", "--engine", "postgres", "--no-schedule"].map(String::from).into();
    for (key, value) in all.iter().chain(settings) {
        words.extend(["--set".into(), format!("{key}={value}")]);
    }
    words.extend(["--secret-file".into(), secret]);
    setting.appliance.run(words)?.done()?;

    let check = setting.appliance.run(["instance", "check", "acme/shop/wrong", "-o", "json"])?;
    let found: Value = serde_json::from_str(&check.stdout)?;
    let blocking = found["problems"].as_array().into_iter().flatten().find(|problem| problem["blocking"] == true);
    let helps = blocking.is_some_and(|problem| problem["message"].is_string() && problem["hint"].is_string());
    ensure(check.code == Some(1) && helps, || format!("the check finds nothing: {check}"))?;

    let answer = setting.appliance.run(["backup", "create", "acme/shop/wrong", "--wait"])?;
    let backups = setting.appliance.list(&["backup", "list", "acme/shop/wrong"])?;
    ensure(backups.iter().all(is_honest_failure), || format!("not a failure with its reason and a hint: {backups:?}"))?;
    Ok(answer)
}

/// `Failed`, not usable, with a reason and a hint.
fn is_honest_failure(backup: &Value) -> bool {
    let status = &backup["status"];
    status["state"] == "Failed"
        && status["readyToUse"] == false
        && status["reason"].is_string()
        && status["hint"].is_string()
}

#[test]
fn a_wrong_password_is_said_to_be_wrong() -> Result {
    let setting = Setting::new("wrong-password")?;
    let answer = back_up_wrongly(&setting, &[], "not-the-password-9x")?.refused(&["password", ROLE])?;
    ensure(!answer.to_string().contains("not-the-password-9x"), || format!("the password is shown: {answer}"))
}

#[test]
fn a_refused_connection_names_the_address() -> Result {
    let setting = Setting::new("refused")?;
    let port = free_port()?.to_string();
    back_up_wrongly(&setting, &[("port", &port)], PASSWORD)?.refused(&["nothing listens", &port]).map(drop)
}

#[test]
fn an_unknown_host_is_named() -> Result {
    let setting = Setting::new("unknown-host")?;
    back_up_wrongly(&setting, &[("host", "no-such-host.invalid")], PASSWORD)?
        .refused(&["no-such-host.invalid"])
        .map(drop)
}

#[test]
fn a_missing_privilege_is_named_with_what_grants_it() -> Result {
    let setting = Setting::new("privilege")?;
    setting.cluster.sql("postgres", &format!("CREATE ROLE visitor LOGIN PASSWORD '{PASSWORD}'"))?;
    back_up_wrongly(&setting, &[("user", "visitor")], PASSWORD)?.refused(&["visitor", "replication"]).map(drop)
}

#[test]
fn an_unknown_setting_is_refused_with_the_near_name() -> Result {
    let setting = Setting::new("setting")?;
    let appliance = &setting.appliance;
    let words = [
        "instance",
        "add",
        INSTANCE,
        "--engine",
        "postgres",
        "--no-schedule",
        "--set",
        "host=127.0.0.1",
        "--set",
        "prot=5432",
    ];
    appliance.run(words)?.refused(&["prot", "port"])?;
    let words = ["instance", "add", INSTANCE, "--engine", "postgers", "--no-schedule", "--set", "host=127.0.0.1"];
    appliance.run(words)?.refused(&["postgers", "postgres"])?;
    ensure(appliance.list(&["instance", "list"])?.is_empty(), || "an instance was registered in spite of it".into())?;

    fs::write(setting.workdir.join("appliance/holdfast.toml"), "[repository]\nsight = \"here\"\n")?;
    let mut second = Appliance::on(appliance.data());
    drop(setting.appliance);
    let failure = second.start().err().map(|failure| failure.to_string()).unwrap_or_default();
    ensure(failure.contains("sight") && failure.contains("site"), || {
        format!("an unknown key was not refused with the near one: {failure}")
    })
}

#[test]
fn a_full_disk_fails_the_backup_and_keeps_the_old_ones() -> Result {
    let workdir = Workdir::new("full-disk-mount")?;
    let Some(disk) = SmallDisk::mount(&workdir.join("small-disk"), 48)? else {
        skipped("a_full_disk_fails_the_backup_and_keeps_the_old_ones", "nothing can be mounted here");
        return Ok(());
    };
    let url = format!("file://{}", disk.path().join("repository").display());
    let setting = Setting::with_primary("full-disk", Some(&url))?;
    setting.register()?;
    let content = Content::of(&setting.cluster)?;
    let first = setting.appliance.back_up(INSTANCE, "primary")?;

    // Does not compress, and is more than the disk has left.
    let noise = "CREATE TABLE noise AS SELECT gen_random_uuid() AS a, gen_random_uuid() AS b, gen_random_uuid() AS c FROM generate_series(1, 1200000)";
    setting.cluster.sql("postgres", noise)?;
    let answer = setting.appliance.run(["backup", "create", INSTANCE, "--wait"])?;
    let said = answer.refused(&["space"])?;
    let backups = setting.appliance.list(&["backup", "list", INSTANCE])?;
    let failed: Vec<_> = backups.iter().filter(|backup| backup["uid"] != first["uid"]).collect();
    ensure(failed.len() == 1 && failed.into_iter().all(is_honest_failure), || format!("{said}\n{backups:?}"))?;

    let name = first["name"].as_str().unwrap_or_default();
    let to = setting.workdir.join("restored");
    setting.appliance.restore(&format!("{INSTANCE}/{name}"), &to, &[], &["--wait"])?.done()?;
    setting.must_hold(&to, &content)
}

#[test]
fn an_unreachable_vault_is_refused_when_it_is_added() -> Result {
    let setting = Setting::new("unreachable")?;
    let port = free_port()?;
    let secret = format!("secret-key={}", setting.workdir.secret("key", "nothing")?.display());
    let url = format!("s3://vault/backups?endpoint=http://127.0.0.1:{port}&region=us-east-1&style=path");
    let words = ["target", "add", "vault", &url, "--site", "there", "--set", "access-key=AK", "--secret-file", &secret];
    setting.appliance.run(words)?.refused(&[&port.to_string()])?;

    let wrong = setting.s3.target_arguments("vault", "backups", "there", &setting.workdir)?;
    setting.workdir.secret("s3-secret-key", "not-its-secret-key")?;
    setting.appliance.run(wrong)?.refused(&[])?;
    let targets = setting.appliance.list(&["target", "list"])?;
    ensure(targets.len() == 1, || format!("a target was added in spite of it: {targets:?}"))
}

#[test]
fn a_vault_of_another_repository_is_refused() -> Result {
    let setting = Setting::new("first")?;
    setting.protect()?;
    setting.appliance.back_up(INSTANCE, "all")?;
    let mut other = Appliance::on(&setting.workdir.join("other"));
    other.configure("here", None)?;
    other.start()?;
    other
        .run(setting.s3.target_arguments("vault", "backups", "there", &setting.workdir)?)?
        .refused(&["repository"])
        .map(drop)
}

#[test]
fn a_wrong_recovery_identity_opens_nothing_and_breaks_nothing() -> Result {
    let setting = Setting::new("identity")?;
    setting.protect()?;
    let content = Content::of(&setting.cluster)?;
    setting.appliance.back_up(INSTANCE, "all")?;

    // An identity of another repository, and ours with its pin changed.
    let mut other = Appliance::on(&setting.workdir.join("other"));
    other.configure("here", None)?;
    other.start()?;
    let stranger = setting.workdir.join("stranger.key");
    other.make_recovery_kit(&stranger)?;

    let reborn = Appliance::on(&setting.workdir.join("reborn")).with_access_to_vault();
    let (url, data) = (setting.s3.url("backups"), reborn.data().display().to_string());
    let stranger = stranger.display().to_string();
    reborn.run(["recover", "--from", &url, "--identity", &stranger, "--data-dir", &data])?.refused(&[])?;
    let empty = fs::read_dir(reborn.data()).map_or(true, |mut entries| entries.next().is_none());
    ensure(empty, || "a failed recovery left a data directory behind".into())?;
    let to = setting.workdir.join("restored");
    reborn.restore(&format!("{INSTANCE}/latest"), &to, &[], &["--from", &url, "--identity", &stranger])?.refused(&[])?;

    // The right one still does.
    let kit = setting.kit().display().to_string();
    reborn.restore(&format!("{INSTANCE}/latest"), &to, &[], &["--from", &url, "--identity", &kit])?.done()?;
    setting.must_hold(&to, &content)
}

#[test]
fn a_directory_that_is_not_empty_is_not_restored_into() -> Result {
    let setting = Setting::new("not-empty")?;
    setting.register()?;
    setting.appliance.back_up(INSTANCE, "primary")?;
    let to = setting.workdir.join("restored");
    fs::create_dir(&to)?;
    fs::write(to.join("precious"), "do not lose me")?;
    setting
        .appliance
        .restore(&format!("{INSTANCE}/latest"), &to, &[], &["--wait"])?
        .refused(&["empty", &to.display().to_string()])?;
    let names: Vec<_> = fs::read_dir(&to)?.flatten().map(|entry| entry.file_name()).collect();
    ensure(names == ["precious"], || format!("the directory was changed: {names:?}"))?;
    ensure(fs::read_to_string(to.join("precious"))? == "do not lose me", || "the file was changed".into())
}

#[test]
fn a_second_appliance_on_the_same_data_directory_is_refused() -> Result {
    let setting = Setting::new("second")?;
    setting.register()?;
    let second = Appliance::on(setting.appliance.data());
    let answer = second.run(["serve", "--listen", "127.0.0.1:0"])?;
    answer.refused(&["data directory"])?;
    // The first goes on as if nothing had happened.
    setting.appliance.back_up(INSTANCE, "primary").map(drop)
}

#[test]
fn names_that_do_not_exist_are_refused_with_a_hint() -> Result {
    let setting = Setting::new("names")?;
    setting.appliance.run(["backup", "create", "acme/shop/nothing", "--wait"])?.refused(&["acme/shop/nothing"])?;
    setting.register()?;
    setting.appliance.run(["backup", "show", &format!("{INSTANCE}/latest")])?.refused(&[])?;
    // What is no name at all is refused by the command line itself, with the form that a name has.
    for words in [["backup", "create", "not-a-name"], ["instance", "check", "Acme/Shöp/../pg"]] {
        let answer = setting.appliance.run(words)?;
        ensure(answer.code == Some(2) && answer.stderr.contains("acme/shop/pg"), || answer.to_string())?;
    }
    Ok(())
}
