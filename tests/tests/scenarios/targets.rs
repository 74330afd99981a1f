//! Other places than S3 hold backups as well, and a target says at once what is wrong with it.

use std::fs;
use std::path::Path;

use holdfast_tests::appliance::{Answer, Appliance};
use holdfast_tests::content::Content;
use holdfast_tests::sshd::Sshd;
use holdfast_tests::{Failure, Result, ensure};

use crate::setting::{INSTANCE, Setting};

/// Adds a directory on the server as target `vault`.
fn add_vault(appliance: &Appliance, sshd: &Sshd) -> Result<Answer> {
    let mut words: Vec<String> = ["target", "add", "vault"].map(String::from).into();
    words.extend([sshd.url("backups")?, "--site".into(), "there".into()]);
    words.extend(sshd.arguments()?);
    appliance.run(words)
}

#[test]
fn an_sftp_server_protects_and_brings_everything_back() -> Result {
    let mut setting = Setting::new("sftp")?;
    let mut sshd = Sshd::start(&setting.workdir.join("sshd"))?;
    setting.appliance.make_recovery_kit(&setting.kit())?;
    add_vault(&setting.appliance, &sshd)?.done()?;
    setting.register()?;
    let content = Content::of(&setting.cluster)?;

    // It goes away while there is something to copy, and comes back.
    sshd.pause()?;
    setting.appliance.back_up(INSTANCE, "primary")?;
    sshd.resume()?;
    setting.appliance.run(["target", "sync", "vault"])?.done()?;
    setting.wait_for_protection()?;
    let target = setting.appliance.json(["target", "status", "vault"])?;
    ensure(target["status"]["conditionalWrites"] == true, || format!("links do not keep writers apart: {target}"))?;

    setting.appliance.kill()?;
    fs::remove_dir_all(setting.appliance.data())?;
    let (url, kit, access) = (sshd.url("backups")?, setting.kit().display().to_string(), sshd.arguments()?);

    // With nobody's help but the kit's.
    let nobody = Appliance::on(&setting.workdir.join("nobody"));
    let mut more = vec!["--from", &url, "--identity", &kit];
    more.extend(access.iter().map(String::as_str));
    let to = setting.workdir.join("restored-offline");
    nobody.restore(&format!("{INSTANCE}/latest"), &to, &[], &more)?.done()?;
    setting.must_hold(&to, &content)?;

    // And as an appliance that goes on.
    setting.appliance = Appliance::on(&setting.workdir.join("reborn"));
    let data = setting.appliance.data().display().to_string();
    let mut words: Vec<&str> = vec!["recover", "--from", &url, "--identity", &kit, "--data-dir", &data];
    words.extend(access.iter().map(String::as_str));
    setting.appliance.run(words)?.done()?;
    setting.appliance.start()?;
    setting.appliance.take_over()?;
    setting.appliance.verify(&format!("{INSTANCE}/latest"))?;
    setting.appliance.back_up(INSTANCE, "all").map(drop)
}

#[test]
fn a_server_that_nobody_vouched_for_is_refused_with_the_key_that_it_shows() -> Result {
    let setting = Setting::new("host-key")?;
    let sshd = Sshd::start(&setting.workdir.join("sshd"))?;
    let add = |more: &[&str], key: &Path| -> Result<Answer> {
        let (url, key) = (sshd.url("backups")?, format!("private-key={}", key.display()));
        let words = ["target", "add", "vault", &url, "--site", "there", "--secret-file", &key];
        setting.appliance.run(words.iter().chain(more))
    };
    let right = sshd.fingerprint()?;
    add(&[], &sshd.key())?.refused(&[&right, "ssh-keygen -lf"])?;
    add(&["--set", "host-key=SHA256:wrong"], &sshd.key())?.refused(&["host-key", "fingerprint"])?;
    add(&["--set", &format!("host-key={right}")], &sshd.strangers_key())?.refused(&["let this user in"])?;
    ensure(sshd.files()?.is_empty(), || "something was written".into())?;

    // Trusted at first sight if the operator says so, and from then on no other.
    add(&["--set", "host-key=first-seen"], &sshd.key())?.done()?;
    let target = setting.appliance.json(["target", "status", "vault"])?;
    ensure(target["settings"]["host-key"] == right.as_str(), || format!("the key was not kept: {target}"))
}

#[test]
fn what_was_found_at_a_target_is_shown() -> Result {
    let setting = Setting::new("findings")?;
    setting.appliance.add_vault(&setting.s3, &setting.workdir)?;
    let sshd = Sshd::without(&setting.workdir.join("sshd"), &["hardlink", "fsync"])?;
    let mut words: Vec<String> =
        ["target", "add", "poor", &sshd.url("backups")?, "--site", "elsewhere"].map(String::from).into();
    words.extend(sshd.arguments()?);
    setting.appliance.run(words)?.done()?;
    let works = |target: &str, what: &str| -> Result<bool> {
        let target = setting.appliance.json(["target", "show", target])?;
        let findings = target["status"]["findings"].as_array().into_iter().flatten();
        let found = findings.filter(|finding| finding["what"] == what).map(|finding| finding["works"] == true).next();
        found.ok_or_else(|| Failure::new(format!("nothing is said of {what}: {target}")))
    };
    for what in ["write", "read", "list", "replace", "delete"] {
        ensure(works("vault", what)? && works("poor", what)?, || format!("{what} does not work"))?;
    }
    ensure(works("vault", "conditional-writes")?, || "the S3 service keeps writers apart".into())?;
    for what in ["conditional-writes", "hard-link", "sync"] {
        ensure(!works("poor", what)?, || format!("{what} is claimed where it was refused"))?;
    }
    let shown = setting.appliance.run(["target", "show", "poor"])?.done()?;
    ensure(shown.stdout.contains("a power cut there may take away"), || format!("it is not told: {shown}"))
}

#[test]
fn two_sites_cannot_share_a_disk_or_a_service() -> Result {
    let setting = Setting::new("one-holder")?;
    let add = |name: &str, url: &str, site: &str| setting.appliance.run(["target", "add", name, url, "--site", site]);
    let beside = format!("file://{}", setting.workdir.join("beside").display());
    add("beside", &beside, "there")?.refused(&["both stand on", "--site here"])?;
    add("beside", &beside, "here")?.done()?;

    setting.appliance.add_vault(&setting.s3, &setting.workdir)?;
    let words = setting.s3.target_arguments("second", "elsewhere", "third-site", &setting.workdir)?;
    setting.appliance.run(words)?.refused(&["both stand on the service at 127.0.0.1", "--site there"])?;
    let words = setting.s3.target_arguments("second", "elsewhere", "there", &setting.workdir)?;
    setting.appliance.run(words)?.done().map(drop)
}
