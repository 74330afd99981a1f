//! A killed appliance leaves nothing that is not complete, and the next one goes on.

use std::time::Duration;

use holdfast_tests::content::Content;
use holdfast_tests::{Result, ensure, wait_until};
use serde_json::Value;

use crate::setting::{INSTANCE, Setting};

/// How long an event that must come may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Returns once a base backup has sent this many bytes, as the server itself reports; fails if none does within the time.
const UNTIL_STREAMING: &str = "
SET statement_timeout = '120s';
DO $$ BEGIN
  LOOP
    EXIT WHEN EXISTS (SELECT FROM pg_stat_progress_basebackup WHERE backup_streamed > 10000000);
    PERFORM pg_stat_clear_snapshot(), pg_sleep(0.002);
  END LOOP;
END $$;";

#[test]
fn an_appliance_killed_in_a_backup_leaves_no_partial_backup() -> Result {
    let mut setting = Setting::new("kill-backup")?;
    setting.cluster.fill("postgres", 15)?;
    setting.protect()?;
    let content = Content::of(&setting.cluster)?;

    setting.appliance.run(["backup", "create", INSTANCE])?.done()?;
    setting.cluster.sql("postgres", UNTIL_STREAMING)?;
    setting.appliance.kill()?;

    setting.appliance.start()?;
    // A job is never left running: it is tried again or it failed.
    let jobs = setting.settled_jobs("backup")?;
    ensure(jobs.len() == 1, || format!("not one backup job: {jobs:?}"))?;
    for backup in setting.appliance.list(&["backup", "list", INSTANCE])? {
        let (state, ready) = (&backup["status"]["state"], &backup["status"]["readyToUse"]);
        ensure((state == "Succeeded") == (ready == true), || format!("half a backup is offered: {backup}"))?;
    }

    setting.appliance.back_up(INSTANCE, "all")?;
    let to = setting.workdir.join("restored");
    setting.appliance.restore(&format!("{INSTANCE}/latest"), &to, &[], &["--wait"])?.done()?;
    setting.must_hold(&to, &content)
}

#[test]
fn an_appliance_killed_in_a_replication_leaves_no_partial_copy() -> Result {
    let mut setting = Setting::new("kill-copy")?;
    setting.protect()?;
    let content = Content::of(&setting.cluster)?;

    setting.s3.hold_uploads()?;
    setting.appliance.back_up(INSTANCE, "primary")?;
    setting.s3.wait_until_held(PATIENCE)?;
    setting.appliance.kill()?;
    setting.s3.release()?;

    // What is off site must be nothing at all, or whole: with only a part of the copy there, no backup is offered from there.
    let (url, kit) = (setting.s3.url("backups"), setting.kit().display().to_string());
    let nobody = holdfast_tests::appliance::Appliance::on(&setting.workdir.join("nobody")).with_access_to_vault();
    let early = setting.workdir.join("early");
    let answer = nobody.restore(&format!("{INSTANCE}/latest"), &early, &[], &["--from", &url, "--identity", &kit])?;
    answer.refused(&[])?;

    setting.appliance.start()?;
    setting.wait_for_protection()?;
    let to = setting.workdir.join("restored");
    nobody.restore(&format!("{INSTANCE}/latest"), &to, &[], &["--from", &url, "--identity", &kit])?.done()?;
    setting.must_hold(&to, &content)?;
    setting.appliance.back_up(INSTANCE, "all").map(drop)
}

impl Setting {
    /// Waits until the newest backup is durable at both sites.
    pub fn wait_for_protection(&self) -> Result {
        wait_until("the backup is protected", PATIENCE, || {
            let backup = self.appliance.json(["backup", "show", &format!("{INSTANCE}/latest")])?;
            Ok((backup["status"]["protection"] == "two-sites").then_some(()))
        })
    }

    /// Waits until no job of this kind is queued for now or running, and returns them.
    fn settled_jobs(&self, kind: &str) -> Result<Vec<Value>> {
        wait_until("the jobs settle", PATIENCE, || {
            let mut jobs = self.appliance.list(&["job", "list"])?;
            jobs.retain(|job| job["kind"] == kind);
            let settled = |job: &Value| {
                matches!(job["state"].as_str(), Some("Succeeded" | "Failed")) || !job["nextAttemptAt"].is_null()
            };
            Ok(jobs.iter().all(settled).then_some(jobs))
        })
    }
}
