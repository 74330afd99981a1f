//! What would fail a backup is found by a look at the instance before, and said in the same words.

use holdfast_tests::appliance::Appliance;
use holdfast_tests::cluster::{Blueprint, Cluster};
use holdfast_tests::{Result, ensure};
use serde_json::Value;

use crate::setting::{INSTANCE, Setting};

/// Fails unless a look finds `code` blocking, with every word of `help` in its hint, and a backup fails by what the look found.
fn must_be_found(appliance: &Appliance, code: &str, help: &[&str]) -> Result {
    let check = appliance.run(["instance", "check", INSTANCE, "-o", "json"])?;
    let found: Value = serde_json::from_str(&check.stdout)?;
    let blocking: Vec<&Value> =
        found["problems"].as_array().into_iter().flatten().filter(|problem| problem["blocking"] == true).collect();
    let named = blocking.iter().find(|problem| problem["code"] == code);
    let hint = named.and_then(|problem| problem["hint"].as_str()).unwrap_or_default();
    ensure(check.code == Some(1) && help.iter().all(|word| hint.contains(word)), || {
        format!("not found: {code}, {help:?}: {check}")
    })?;

    let attempt = appliance.attempt(INSTANCE)?;
    ensure(!attempt.succeeded()?, || format!("a backup was made in spite of it: {attempt:?}"))?;
    let same = |problem: &&Value| ["code", "message", "hint"].into_iter().all(|key| problem[key] == attempt.error[key]);
    ensure(blocking.iter().any(same), || format!("the backup says something else: {}\n{check}", attempt.error))
}

#[test]
fn a_log_that_carries_too_little_is_found() -> Result {
    let settings = [("wal_level", "minimal"), ("max_wal_senders", "0")];
    let setting = Setting::of("minimal", &Blueprint { settings: &settings, ..Blueprint::default() })?;
    setting.register()?;
    must_be_found(&setting.appliance, "wal-level-minimal", &["wal_level = replica"])
}

#[test]
fn a_server_that_has_no_wal_sender_to_spare_is_found() -> Result {
    let setting = Setting::of("senders", &Blueprint { settings: &[("max_wal_senders", "1")], ..Blueprint::default() })?;
    let Setting { cluster, appliance, .. } = &setting;
    setting.register()?;
    let log = cluster.directory("received")?;
    let taker = cluster.beside_us("pg_receivewal", &["--directory", &log.display().to_string()])?;
    cluster.until("EXISTS (SELECT FROM pg_stat_replication)")?;
    must_be_found(appliance, "no-free-wal-sender", &["max_wal_senders"])?;
    drop(taker);
    cluster.until("NOT EXISTS (SELECT FROM pg_stat_replication)")?;
    ensure(appliance.obstacle(INSTANCE)?.is_none(), || "it is still in the way".into())?;
    appliance.back_up(INSTANCE, "primary").map(drop)
}

#[test]
fn a_server_that_does_not_let_us_in_is_found_with_the_line_that_would() -> Result {
    let setting = Setting::new("hba")?;
    let Setting { cluster, appliance, .. } = &setting;
    setting.register()?;
    let line = "host replication keeper 127.0.0.1/32 scram-sha-256";
    for rules in [
        &["local all all trust", "host all all 127.0.0.1/32 scram-sha-256"][..],
        &["local all all trust", "host replication all 127.0.0.1/32 reject", "host all all 127.0.0.1/32 scram-sha-256"],
    ] {
        cluster.admit_by(rules)?;
        cluster.reload()?;
        must_be_found(appliance, "pg-hba-denied", &[line])?;
    }
    // What the hint says helps.
    cluster.admit_by(&[line, "local all all trust", "host all all 127.0.0.1/32 scram-sha-256"])?;
    cluster.reload()?;
    ensure(appliance.obstacle(INSTANCE)?.is_none(), || "it is still in the way".into())?;
    appliance.back_up(INSTANCE, "primary").map(drop)
}

#[test]
fn a_role_that_may_not_replicate_is_found() -> Result {
    let setting = Setting::new("privilege-found")?;
    let Setting { cluster, appliance, .. } = &setting;
    setting.register()?;
    cluster.sql("postgres", "ALTER ROLE keeper NOREPLICATION")?;
    must_be_found(appliance, "missing-privilege", &["ALTER ROLE keeper REPLICATION"])?;
    cluster.sql("postgres", "ALTER ROLE keeper REPLICATION")?;
    ensure(appliance.obstacle(INSTANCE)?.is_none(), || "it is still in the way".into())
}

#[test]
fn a_server_without_a_slot_to_spare_is_found_and_its_backup_warns() -> Result {
    let setting =
        Setting::of("slots", &Blueprint { settings: &[("max_replication_slots", "1")], ..Blueprint::default() })?;
    let Setting { cluster, appliance, .. } = &setting;
    setting.register()?;
    cluster.sql("postgres", "SELECT pg_create_physical_replication_slot('taken')")?;
    // No obstacle: log that is not removed in the meantime needs no slot.
    let check = appliance.json(["instance", "check", INSTANCE])?;
    let problem =
        check["problems"].as_array().into_iter().flatten().find(|problem| problem["code"] == "no-replication-slot");
    let helps = problem.is_some_and(|problem| {
        problem["blocking"] == false && problem["hint"].to_string().contains("max_replication_slots")
    });
    ensure(helps, || format!("not found: {check}"))?;
    let answer = appliance.run(["backup", "create", INSTANCE, "--wait"])?;
    ensure(answer.code == Some(3) && answer.stderr.contains("no replication slot kept the log"), || {
        answer.to_string()
    })?;

    cluster.sql("postgres", "SELECT pg_drop_replication_slot('taken')")?;
    appliance.back_up(INSTANCE, "primary").map(drop)
}

/// A standby of this version whose primary leaves whole pages out of its log, from some moment on.
fn torn_pages_are_found(major: u32) -> Result {
    let blueprint = Blueprint { major: Some(major), ..Blueprint::default() };
    let setting = Setting::of(&format!("torn-{major}"), &blueprint)?;
    let Setting { cluster: primary, appliance, workdir, .. } = &setting;
    let standby = Cluster::standby_of(primary, &workdir.join("standby"))?;
    appliance.add_instance_at(INSTANCE, standby.port(), workdir, &[])?.done()?;
    ensure(appliance.obstacle(INSTANCE)?.is_none(), || "something is in the way before".into())?;
    primary.sql("postgres", "ALTER SYSTEM SET full_page_writes = off")?;
    primary.reload()?;
    // What is written by a checkpoint is in force there.
    primary.sql("postgres", "CHECKPOINT; UPDATE goods SET label = 'torn'; CHECKPOINT")?;
    standby.catch_up(primary)?;
    standby.sql("postgres", "CHECKPOINT")?;
    let found = appliance.obstacle(INSTANCE)?.unwrap_or_default();
    ensure(found.contains("full-page-writes-off") && found.contains("of the primary"), || {
        format!("not found: {found}")
    })?;
    appliance.attempt(INSTANCE)?.failed_by("full-page-writes-off")?;

    // What the hint says helps.
    primary.sql("postgres", "ALTER SYSTEM SET full_page_writes = on")?;
    primary.reload()?;
    primary.sql("postgres", "CHECKPOINT; UPDATE goods SET label = 'whole'; CHECKPOINT")?;
    standby.catch_up(primary)?;
    standby.sql("postgres", "CHECKPOINT")?;
    ensure(appliance.obstacle(INSTANCE)?.is_none(), || "it is still in the way".into())?;
    appliance.back_up(INSTANCE, "primary").map(drop)
}

#[test]
fn a_standby_whose_primary_leaves_whole_pages_out_of_its_log_is_found() -> Result {
    torn_pages_are_found(15)
}

#[test]
fn a_standby_of_postgresql_12_whose_primary_leaves_whole_pages_out_of_its_log_is_found() -> Result {
    torn_pages_are_found(12)
}
