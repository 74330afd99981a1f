//! What happens to a server while it is backed up: the backup is whole, or it failed and says so.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use holdfast_tests::appliance::Appliance;
use holdfast_tests::cluster::{Blueprint, Cluster};
use holdfast_tests::content::Content;
use holdfast_tests::proxy::{Fault, Proxy};
use holdfast_tests::{Attempt, Failure, Result, Workdir, ensure};

use crate::setting::{INSTANCE, Setting, content_of};

/// How long an event that must come may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// In the middle of what a small cluster sends.
const MIDDLE: u64 = 9_000_000;

/// Registers a cluster behind a proxy.
fn behind_a_proxy(appliance: &Appliance, cluster: &Cluster, workdir: &Workdir) -> Result<Proxy> {
    let proxy = Proxy::before(cluster.port())?;
    appliance.add_instance_at(INSTANCE, proxy.port(), workdir, &[])?.done()?;
    Ok(proxy)
}

/// Backs up through a proxy that holds the stream in its middle while something is done to the server.
fn disturbed(appliance: &Appliance, proxy: &Proxy, disturb: impl FnOnce() -> Result) -> Result<Attempt> {
    proxy.set(Fault::Hold(MIDDLE));
    let begun = appliance.begin_attempt(INSTANCE)?;
    proxy.wait_until_held(PATIENCE)?;
    disturb()?;
    proxy.release();
    appliance.end_attempt(&begun)
}

/// Restores an attempt's backup, and reads what a server on it holds.
fn restored(appliance: &Appliance, attempt: &Attempt, workdir: &Workdir) -> Result<Content> {
    ensure(attempt.succeeded()?, || format!("it was to succeed: {attempt:?}"))?;
    let to = workdir.join(&format!("restored-{}", attempt.backup["name"].as_str().unwrap_or_default()));
    appliance.restore(&attempt.name, &to, &[], &["--wait"])?.done()?;
    content_of(workdir, &to)
}

#[test]
fn a_server_that_restarts_in_a_backup_fails_it() -> Result {
    let Setting { mut cluster, appliance, workdir, s3: _s3 } = Setting::new("restart")?;
    let proxy = behind_a_proxy(&appliance, &cluster, &workdir)?;
    let content = Content::of(&cluster)?;
    for end in [Cluster::stop, Cluster::kill] {
        let attempt = disturbed(&appliance, &proxy, || {
            end(&mut cluster)?;
            cluster.start()
        })?;
        ensure(!attempt.succeeded()?, || format!("it was to fail: {attempt:?}"))?;
    }
    content.must_equal(&restored(&appliance, &appliance.attempt(INSTANCE)?, &workdir)?)
}

#[test]
fn a_standby_that_is_promoted_in_a_backup_fails_it() -> Result {
    let Setting { cluster, appliance, workdir, s3: _s3 } = Setting::new("promote")?;
    let standby = Cluster::standby_of(&cluster, &workdir.join("standby"))?;
    let proxy = behind_a_proxy(&appliance, &standby, &workdir)?;
    let attempt = disturbed(&appliance, &proxy, || {
        standby.promote()?;
        standby.sql("postgres", "CREATE TABLE later AS SELECT 1 AS n; CHECKPOINT").map(drop)
    })?;
    ensure(!attempt.succeeded()?, || format!("it was to fail: {attempt:?}"))?;
    ensure(attempt.error.to_string().contains("promoted"), || format!("nobody says why: {}", attempt.error))?;
    // It is a server like any other now.
    Content::of(&standby)?.must_equal(&restored(&appliance, &appliance.attempt(INSTANCE)?, &workdir)?)
}

#[test]
fn a_connection_that_stands_but_says_nothing_fails_the_backup() -> Result {
    let Setting { cluster, mut appliance, workdir, s3: _s3 } = Setting::new("half-open")?;
    let configuration = appliance.data().join("holdfast.toml");
    fs::write(&configuration, fs::read_to_string(&configuration)? + "\n[limits]\nidle = \"3s\"\n")?;
    appliance.stop()?;
    appliance.start()?;
    let proxy = behind_a_proxy(&appliance, &cluster, &workdir)?;
    proxy.set(Fault::Hold(MIDDLE));
    let attempt = appliance.attempt(INSTANCE)?;
    ensure(!attempt.succeeded()?, || format!("it was to fail: {attempt:?}"))?;
    ensure(attempt.error.to_string().contains("3 s"), || format!("the limit is not named: {}", attempt.error))?;
    proxy.set(Fault::None);
    Content::of(&cluster)?.must_equal(&restored(&appliance, &appliance.attempt(INSTANCE)?, &workdir)?)
}

/// Settings of a server that keeps no log that it need not keep.
const FORGETFUL: &[(&str, &str)] =
    &[("max_wal_size", "2MB"), ("min_wal_size", "2MB"), ("wal_keep_size", "0"), ("autovacuum", "off")];

/// Writes log, and has the server remove what it need not keep of it.
fn write_log(cluster: &Cluster) -> Result {
    let written = || cluster.sql("postgres", "SELECT pg_current_wal_lsn() - '0/0'");
    let before: f64 = written()?.parse()?;
    for _ in 0..8 {
        cluster.pgbench("postgres", &["--transactions=200", "--client=2", "--no-vacuum"])?;
        cluster.sql("postgres", "SELECT pg_switch_wal(); CHECKPOINT")?;
    }
    let bytes = written()?.parse::<f64>()? - before;
    ensure(bytes > 8e6, || format!("only {bytes} bytes of log were written"))
}

/// Backs up a server that writes much log in the meantime; the instance is reached by the proxy.
fn back_up_while_log_is_written(name: &str, more: &[(&str, &str)]) -> Result<(Setting, Proxy, Attempt)> {
    let settings = [FORGETFUL, more].concat();
    let blueprint = Blueprint { initdb: &["--wal-segsize=1"], settings: &settings, ..Blueprint::default() };
    let setting = Setting::of(name, &blueprint)?;
    let Setting { cluster, appliance, workdir, .. } = &setting;
    cluster.fill("postgres", 1)?;
    // A slot keeps log from the last checkpoint on: what was written before this one does not count.
    cluster.sql("postgres", "CHECKPOINT")?;
    let proxy = behind_a_proxy(appliance, cluster, workdir)?;
    let attempt = disturbed(appliance, &proxy, || write_log(cluster))?;
    Ok((setting, proxy, attempt))
}

#[test]
fn log_that_a_backup_needs_is_kept_by_its_slot_under_heavy_writes() -> Result {
    let (setting, _proxy, attempt) = back_up_while_log_is_written("log-kept", &[])?;
    must_balance(&setting.appliance, &attempt, &setting.workdir)
}

#[test]
fn log_that_was_recycled_in_a_backup_fails_it() -> Result {
    let (_setting, _proxy, attempt) = back_up_while_log_is_written("log-recycled", &[("max_replication_slots", "0")])?;
    attempt.failed_by("wal-removed").map(drop)
}

#[test]
fn a_slot_that_may_keep_too_little_log_fails_the_backup_and_is_found_before() -> Result {
    let (setting, _proxy, attempt) = back_up_while_log_is_written("log-bounded", &[("max_slot_wal_keep_size", "1MB")])?;
    ensure(!attempt.succeeded()?, || format!("it was to fail: {attempt:?}"))?;
    // The server ends the connection; whether its reason arrives before the end is not in its hands.
    let hint = attempt.error["hint"].as_str().unwrap_or_default();
    ensure(hint.contains("max_slot_wal_keep_size"), || format!("it is not said what to change: {}", attempt.error))?;
    let check = setting.appliance.json(["instance", "check", INSTANCE])?;
    let found =
        check["problems"].as_array().into_iter().flatten().find(|problem| problem["code"] == "slot-log-limited");
    let helps =
        found.and_then(|problem| problem["hint"].as_str()).is_some_and(|hint| hint.contains("max_slot_wal_keep_size"));
    ensure(helps, || format!("not found before: {check}"))
}

/// Restores an attempt's backup, proves it by the engine's rules, starts a server on it, and fails unless pgbench's books balance there.
fn must_balance(appliance: &Appliance, attempt: &Attempt, workdir: &Workdir) -> Result {
    ensure(attempt.succeeded()?, || format!("it was to succeed: {attempt:?}"))?;
    appliance.verify(&attempt.name)?;
    let to = workdir.join(&format!("restored-{}", attempt.backup["name"].as_str().unwrap_or_default()));
    appliance.restore(&attempt.name, &to, &[], &["--wait"])?.done()?;
    let mut copy = Cluster::restored(&to.with_extension("server"), &to)?;
    copy.start()?;
    let sums = copy.sql("postgres", "SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers), (SELECT sum(bbalance) FROM pgbench_branches), (SELECT sum(delta) FROM pgbench_history)")?;
    let mut sums = sums.split('|');
    let first = sums.next().unwrap_or_default();
    ensure(!first.is_empty() && sums.all(|sum| sum == first), || {
        format!("the books do not balance: {first}, {sums:?}")
    })?;
    // Every page of every table and index can be read.
    copy.sql("postgres", "SELECT count(*) FROM pgbench_accounts; REINDEX DATABASE postgres")?;
    copy.stop()?;
    fs::remove_dir_all(&to).map_err(Into::into)
}

/// Files that shrink, grow, vanish and come anew.
const CHURN: &str = "
CREATE TABLE IF NOT EXISTS coming AS SELECT n, repeat('c', 200) AS pad FROM generate_series(1, 20000) n;
TRUNCATE shrinking;
INSERT INTO shrinking SELECT n, repeat('s', 200) FROM generate_series(1, 20000) n;
DELETE FROM shrinking WHERE n > 100;
VACUUM shrinking;
DROP TABLE coming;
UPDATE moving SET n = n + 1;
VACUUM FULL moving;
CREATE DATABASE passing;
DROP DATABASE passing;
";

#[test]
fn files_that_shrink_grow_or_vanish_while_they_are_sent_leave_consistent_backups() -> Result {
    let Setting { cluster, appliance, workdir, s3: _s3 } = Setting::new("churn")?;
    cluster.fill("postgres", 2)?;
    cluster.sql("postgres", "CREATE TABLE shrinking (n int, pad text); CREATE TABLE moving AS SELECT n, repeat('m', 500) AS pad FROM generate_series(1, 5000) n")?;
    let proxy = behind_a_proxy(&appliance, &cluster, &workdir)?;
    // Slow enough that a lot happens within each backup.
    proxy.set(Fault::Slow(40_000_000));

    let is_over = AtomicBool::new(false);
    let attempts = thread::scope(|scope| {
        let churn = scope.spawn(|| -> Result<u32> {
            let mut rounds = 0;
            while !is_over.load(Ordering::Relaxed) {
                cluster.sql("postgres", CHURN)?;
                rounds += 1;
            }
            Ok(rounds)
        });
        let writes = scope.spawn(|| -> Result {
            while !is_over.load(Ordering::Relaxed) {
                cluster.pgbench("postgres", &["--transactions=500", "--client=2", "--no-vacuum"])?;
            }
            Ok(())
        });
        let attempts: Result<Vec<Attempt>> = (0..3).map(|_| appliance.attempt(INSTANCE)).collect();
        is_over.store(true, Ordering::Relaxed);
        let (rounds, written) = (churn.join(), writes.join());
        let rounds = rounds.map_err(|_| Failure::new("the churn panicked"))??;
        written.map_err(|_| Failure::new("the writes panicked"))??;
        ensure(rounds >= 3, || format!("files changed {rounds} times only"))?;
        attempts
    })?;
    for attempt in &attempts {
        must_balance(&appliance, attempt, &workdir)?;
    }
    Ok(())
}
