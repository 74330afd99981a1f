//! Jobs that hang, of hostile plugins and of servers that say nothing, hold no place that other work needs.

use std::time::Duration;

use holdfast_tests::proxy::{Fault, Proxy};
use holdfast_tests::{Result, ensure, guest, wait_until};
use serde_json::Value;

use crate::setting::{INSTANCE, Setting};

/// How long an event that must come may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// In the middle of what a small cluster sends.
const MIDDLE: u64 = 9_000_000;

fn state(setting: &Setting, begun: &Value) -> Result<String> {
    let job = setting.appliance.json(["job", "show", begun["status"]["job"].as_str().unwrap_or_default()])?;
    Ok(job["state"].as_str().unwrap_or_default().to_owned())
}

fn wait_until_running(setting: &Setting, begun: &Value) -> Result {
    wait_until("the job runs", PATIENCE, || Ok((state(setting, begun)? == "Running").then_some(())))
}

#[test]
fn jobs_that_hang_hold_no_place_but_those_of_their_kind() -> Result {
    let mut setting = Setting::new("hostile-places")?;
    setting.appliance.limit(&[("workers", "1")])?;
    setting.appliance.stop()?;
    setting.appliance.start()?;
    setting.appliance.run(["plugin", "install", &guest("hostile")?.display().to_string()])?.done()?;
    for name in ["one", "other"] {
        let (instance, harm) = (format!("acme/hostile/{name}"), "dump=wait");
        let words = ["instance", "add", &instance, "--engine", "hostile", "--no-schedule", "--set", harm];
        setting.appliance.run(words)?.done()?;
    }

    // Two plugins that never end, and one place for their kind.
    let hung = setting.appliance.begin_attempt("acme/hostile/one")?;
    let waiting = setting.appliance.begin_attempt("acme/hostile/other")?;
    wait_until_running(&setting, &hung)?;
    let proxy = Proxy::before(setting.cluster.port())?;
    setting.appliance.add_instance_at(INSTANCE, proxy.port(), &setting.workdir, &[])?.done()?;
    setting.appliance.back_up(INSTANCE, "primary")?;
    let latest = format!("{INSTANCE}/latest");
    setting.appliance.verify(&latest)?;

    // A server in mid-backup that says nothing more: nobody who restores waits for it.
    proxy.set(Fault::Hold(MIDDLE));
    let held = setting.appliance.begin_attempt(INSTANCE)?;
    proxy.wait_until_held(PATIENCE)?;
    setting.appliance.restore(&latest, &setting.workdir.join("restored"), &[], &["--wait"])?.done()?;
    for (begun, expected) in [(&hung, "Running"), (&waiting, "Queued"), (&held, "Running")] {
        let found = state(&setting, begun)?;
        ensure(found == expected, || format!("it was to be {expected}, and is {found}: {begun}"))?;
    }

    // Who hangs is cancelled at once, and makes room.
    setting.appliance.run(["job", "cancel", hung["status"]["job"].as_str().unwrap_or_default()])?.done()?;
    wait_until_running(&setting, &waiting)?;
    let found = state(&setting, &hung)?;
    ensure(found == "Cancelled", || format!("it is {found}"))?;
    proxy.release();
    let attempt = setting.appliance.end_attempt(&held)?;
    ensure(attempt.succeeded()?, || format!("it was to succeed: {attempt:?}"))
}
