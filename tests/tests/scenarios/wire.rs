//! An off-site service that fails over the wire: copying goes on until it is done, and says meanwhile what is in the way; an older state is refused and told.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use holdfast_tests::content::Content;
use holdfast_tests::s3::{BUCKET, S3Server, SECRET_KEY, target_arguments, url_at};
use holdfast_tests::wire::{Asked, Fault, Said, Wire};
use holdfast_tests::{Result, ensure, wait_until};

use crate::setting::{INSTANCE, Setting};

/// How long an event that must come may take.
const PATIENCE: Duration = Duration::from_secs(180);

/// A setting whose target `vault` is reached over a wire.
fn over_a_wire(name: &str) -> Result<(Setting, Wire)> {
    let setting = Setting::new(name)?;
    let wire = Wire::before(setting.s3.port()?)?;
    let url = url_at(&format!("http://127.0.0.1:{}", wire.port()), "backups");
    setting.appliance.make_recovery_kit(&setting.kit())?;
    setting.appliance.run(target_arguments("vault", &url, "there", &setting.workdir)?)?.done()?;
    setting.register()?;
    Ok((setting, wire))
}

/// Has the target copied to at once, until its last error has one of these words.
fn fails_with(setting: &Setting, words: &[&str]) -> Result {
    setting.appliance.run(["target", "sync", "vault"])?.done()?;
    wait_until("the target says what is wrong", PATIENCE, || {
        let target = setting.appliance.json(["target", "show", "vault"])?;
        let error = target["status"]["lastError"].as_str().unwrap_or_default();
        Ok(words.iter().any(|words| error.contains(words)).then_some(()))
    })
}

#[test]
fn a_replication_goes_on_through_faults_and_says_how_it_stands() -> Result {
    let (setting, wire) = over_a_wire("wire")?;
    let content = Content::of(&setting.cluster)?;
    let writes = |asked: &Asked| asked.method == "PUT" && asked.path.contains("/packs/");
    wire.strike(writes, 0, usize::MAX, Fault::Answer(Said::error(507, "XMinioStorageFull")));
    setting.appliance.back_up(INSTANCE, "primary")?;
    fails_with(&setting, &["no room is left"])?;
    for words in [&["target", "show", "vault"][..], &["status"]] {
        let shown = setting.appliance.run(words)?;
        let says = ["no room is left", "vault"].iter().all(|word| shown.stdout.contains(word));
        ensure(says && !shown.to_string().contains(SECRET_KEY), || format!("it is not said how it stands: {shown}"))?;
    }
    // The first error may have been that of another backup's copy.
    wait_until("it is said how the backup stands", PATIENCE, || {
        let shown = setting.appliance.run(["backup", "show", &format!("{INSTANCE}/latest")])?.done()?;
        Ok(shown.stdout.contains("Pending at there (vault)").then_some(()))
    })?;

    wire.clear();
    let before = wire.struck();
    let faults = [Fault::Drop, Fault::LoseAnswer, Fault::CutRequest, Fault::CutAnswer, Fault::FlipRequest];
    for (number, fault) in faults.into_iter().enumerate() {
        wire.strike(|_| true, 3 + number * 5, 2, fault);
    }
    setting.appliance.run(["target", "sync", "vault"])?.done()?;
    setting.wait_for_protection()?;
    ensure(wire.struck() > before + 8, || "the faults were never met".into())?;
    setting.appliance.run(["target", "sync", "vault"])?.done()?;
    wait_until("no error is told that is over, and nothing waits to be copied", PATIENCE, || {
        let target = setting.appliance.json(["target", "show", "vault"])?;
        let jobs = setting.appliance.list(&["job", "list"])?;
        let mut copying = jobs.iter().filter(|job| job["kind"] == "replicate");
        let is_over = target["status"]["lastError"].is_null() && copying.all(|job| job["state"] == "Succeeded");
        Ok(is_over.then_some(()))
    })?;
    ensure(!setting.appliance.log_text().contains(SECRET_KEY), || "the log has a secret".into())?;
    setting.appliance.run(["repository", "check", "--read-data", "--target", "vault"])?.done()?;
    let to = setting.workdir.join("restored");
    setting.appliance.restore(&format!("{INSTANCE}/latest"), &to, &[], &["--wait", "--from", "vault"])?.done()?;
    setting.must_hold(&to, &content)
}

/// Copies a service's bucket into another one.
fn copy_bucket(from: &Path, to: &Path) -> Result {
    let copied = Command::new("cp").arg("--recursive").arg(from.join(BUCKET)).arg(to).status()?;
    ensure(copied.success(), || "the bucket was not copied".into())
}

#[test]
fn a_service_that_shows_an_older_state_is_refused_and_told() -> Result {
    let (mut setting, wire) = over_a_wire("wire-older")?;
    setting.appliance.back_up(INSTANCE, "all")?;
    let older = S3Server::start(&setting.workdir.join("older"))?;
    copy_bucket(setting.s3.root(), older.root())?;
    setting.appliance.back_up(INSTANCE, "all")?;
    // The catalog follows, and is copied too.
    wait_until("nothing is on its way any more", PATIENCE, || {
        let jobs = setting.appliance.list(&["job", "list"])?;
        let is_busy = jobs.iter().any(|job| {
            (job["kind"] == "export" || job["kind"] == "replicate")
                && (job["state"] == "Queued" || job["state"] == "Running")
        });
        Ok((!is_busy).then_some(()))
    })?;
    let heads = heads(&setting.s3)?;

    let reads = |asked: &Asked| asked.is_reading() || asked.is_listing();
    wire.strike(reads, 0, usize::MAX, Fault::Elsewhere(older.port()?));
    fails_with(&setting, &["is not at s3://", "the chain of heads is broken"])?;
    // After a restart the catalog alone knows better.
    setting.appliance.stop()?;
    setting.appliance.start()?;
    fails_with(&setting, &["older state"])?;
    setting
        .appliance
        .run(["status"])?
        .ended(3)
        .and_then(|status| ensure(status.stdout.contains("older state"), || format!("it is not told: {status}")))?;
    ensure(self::heads(&setting.s3)? == heads, || "a head was written to it".into())?;
    setting.appliance.verify(&format!("{INSTANCE}/latest"))?;

    wire.clear();
    setting.appliance.back_up(INSTANCE, "all")?;
    setting.appliance.run(["repository", "check", "--read-data", "--target", "vault"])?.done().map(drop)
}

/// The heads that a service has.
fn heads(service: &S3Server) -> Result<Vec<String>> {
    let found = Command::new("find").arg(service.root().join(BUCKET)).args(["-path", "*/heads/*"]).output()?;
    let mut names: Vec<String> = String::from_utf8_lossy(&found.stdout).lines().map(str::to_owned).collect();
    names.sort_unstable();
    Ok(names)
}
