//! What opens the keyring in the data directory can be changed, and without it nothing starts.

use std::fs;
use std::path::Path;

use holdfast_tests::appliance::Appliance;
use holdfast_tests::{Result, Workdir, ensure};

const PASSPHRASE: &str = "needle orchid lantern seven";

/// An appliance that ran once.
fn stopped(workdir: &Workdir) -> Result<Appliance> {
    let mut appliance = Appliance::on(&workdir.join("appliance"));
    appliance.configure("here", None)?;
    appliance.start()?;
    appliance.stop()?;
    Ok(appliance)
}

fn configure_unlock(appliance: &Appliance, unlock: &str) -> Result {
    let text = format!("[repository]\nsite = \"here\"\n[keyring]\nunlock = \"{unlock}\"\n");
    Ok(fs::write(appliance.data().join("holdfast.toml"), text)?)
}

/// Fails unless the appliance refuses to start and says these words.
fn must_not_start(appliance: &mut Appliance, words: &str) -> Result {
    let before = appliance.log_text().len();
    ensure(appliance.start().is_err(), || format!("it started: {words}"))?;
    let said = appliance.log_text().split_off(before);
    ensure(said.contains(words) && said.contains("hint:"), || format!("it did not say {words:?}: {said}"))?;
    ensure(!said.contains(PASSPHRASE), || format!("the passphrase is in the log: {said}"))
}

#[test]
fn a_passphrase_opens_the_keyring_and_a_wrong_one_is_told() -> Result {
    let workdir = Workdir::new("passphrase")?;
    let mut appliance = stopped(&workdir)?;
    let file = workdir.secret("passphrase", PASSPHRASE)?;
    let path = file.display().to_string();
    appliance.run(["key", "unlock", "passphrase", "--passphrase-file", &path])?.done()?;
    ensure(!appliance.data().join("unlock.key").exists(), || "the former key is still there".into())?;

    // Nobody sits at a terminal.
    must_not_start(&mut appliance, "asking for the passphrase of the keyring failed")?;
    configure_unlock(&appliance, &format!("passphrase-file:{path}"))?;
    appliance.start()?;
    let status = appliance.run(["status", "-o", "json"])?;
    ensure(status.stdout.contains(r#""unlockedBy": "passphrase""#), || format!("not by a passphrase: {status}"))?;
    appliance.run(["key", "unlock", "key-file"])?.refused(&["another appliance runs"])?;
    appliance.stop()?;

    fs::write(&file, "needle orchid lantern eight")?;
    must_not_start(&mut appliance, "does not open with this passphrase")?;
    let current = workdir.secret("current", PASSPHRASE)?.display().to_string();
    appliance.run(["key", "unlock", "key-file", "--current-passphrase-file", &current])?.ended(3)?;
    configure_unlock(&appliance, "key-file")?;
    appliance.start()
}

#[test]
fn a_passphrase_is_asked_for_at_a_terminal_that_does_not_show_it() -> Result {
    let workdir = Workdir::new("terminal")?;
    let mut appliance = stopped(&workdir)?;
    let command = "key unlock passphrase";
    let new = |again| [("new passphrase of the keyring: ", PASSPHRASE), ("the same again: ", again)];
    appliance.run_at_a_terminal(command, &new("needle orchid lantern eight"))?.refused(&["are not the same"])?;
    let said = appliance.run_at_a_terminal(command, &new(PASSPHRASE))?.done()?;
    ensure(!said.stdout.contains("orchid"), || format!("the terminal shows it: {said}"))?;

    let current = ("passphrase of the keyring: ", PASSPHRASE);
    appliance
        .run_at_a_terminal("key unlock key-file", &[("passphrase of the keyring: ", "wrong")])?
        .refused(&["does not open"])?;
    appliance.run_at_a_terminal("key unlock key-file", &[current])?.done()?;
    appliance.start()
}

#[test]
fn a_key_elsewhere_opens_the_keyring_and_is_never_made_anew() -> Result {
    let workdir = Workdir::new("key-elsewhere")?;
    let mut appliance = stopped(&workdir)?;
    let stick = workdir.join("stick.key");
    appliance.run(["key", "unlock", "key-file", &stick.display().to_string()])?.done()?;
    appliance.start()?;
    appliance.stop()?;
    let key = fs::read(&stick)?;
    fs::remove_file(&stick)?;
    must_not_start(&mut appliance, "stick.key failed")?;
    ensure(!stick.exists(), || "a key was made in the place of the one that is away".into())?;
    fs::write(workdir.join("mounted.key"), key)?;
    configure_unlock(&appliance, &format!("key-file:{}", workdir.join("mounted.key").display()))?;
    appliance.start()
}

#[test]
fn a_credential_of_the_service_opens_the_keyring() -> Result {
    let workdir = Workdir::new("credential")?;
    let mut appliance = stopped(&workdir)?;
    let key = appliance.data().join("unlock.key");
    let words = ["key", "unlock", "credential", "holdfast", "--key-file", &key.display().to_string()];
    let said = appliance.run(words)?.done()?;
    ensure(said.stderr.contains("holds this very key"), || format!("it did not say what is left: {said}"))?;
    must_not_start(&mut appliance, "was given no credentials")?;
    // As systemd would lay them out.
    let credentials = workdir.join("credentials");
    fs::create_dir(&credentials)?;
    fs::copy(&key, credentials.join("holdfast"))?;
    fs::remove_file(&key)?;
    appliance = with_credentials(&workdir, &credentials);
    appliance.start()
}

fn with_credentials(workdir: &Workdir, credentials: &Path) -> Appliance {
    Appliance::on(&workdir.join("appliance")).environment("CREDENTIALS_DIRECTORY", &credentials.display().to_string())
}
