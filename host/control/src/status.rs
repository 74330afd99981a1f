//! What an operator wants to know first.

use holdfast_repository::UnlockMethod;

use crate::policies::UNCONFIRMED;
use crate::resources::{OffsiteLag, Problem, Status};
use crate::{Appliance, Error, clock, views};

impl Appliance {
    /// State of the appliance, and what wants attention.
    pub async fn status(&self) -> Result<Status, Error> {
        let state = &self.0;
        let counts = state.catalog.counts().await?;
        let jobs = state.catalog.job_counts().await?;
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            repository: state.keyring.current().repository().to_string(),
            mode: if state.is_recovered() { "recovered" } else { "ready" }.to_owned(),
            instances: counts.instances,
            backups: counts.backups,
            running_jobs: jobs.running,
            queued_jobs: jobs.queued,
            unlocked_by: match state.unlock.method() {
                UnlockMethod::KeyFile(_) => "key-file",
                UnlockMethod::Credential(_) => "credential",
                UnlockMethod::Passphrase(_) => "passphrase",
            }
            .to_owned(),
            worst_offsite: self.worst_offsite().await?,
            problems: self.problems().await?,
            advice: self.advice(),
        })
    }

    fn advice(&self) -> Vec<Problem> {
        let is_beside = matches!(self.0.unlock.method(), UnlockMethod::KeyFile(None));
        let beside = || {
            Problem {
            code: "unlock-key-beside".to_owned(),
            message: "the key that opens the keyring lies in the same directory: whoever copies it whole reads every backup".to_owned(),
            hint: Some("`holdfast key unlock credential` binds it to this machine, `key-file` to another disk, `passphrase` to a person at each start.".to_owned()),
            blocking: false,
        }
        };
        is_beside.then(beside).into_iter().collect()
    }

    /// What is off site the longest ago, or not at all.
    async fn worst_offsite(&self) -> Result<Option<OffsiteLag>, Error> {
        let worst = self.0.catalog.offsite(None).await?.into_iter().min_by_key(|found| found.offsite_ms);
        Ok(worst.map(|found| OffsiteLag {
            instance: found.instance,
            last_offsite_backup_at: found.offsite_ms.map(clock::text),
            lag_seconds: found.offsite_ms.map(views::seconds_since),
        }))
    }

    async fn problems(&self) -> Result<Vec<Problem>, Error> {
        let state = &self.0;
        let mut problems = Vec::new();
        let mut note = |code: &str, message: String, hint: String| {
            problems.push(Problem { code: code.to_owned(), message, hint: Some(hint), blocking: false });
        };
        if state.is_recovered() {
            note(
                "recovered-read-only",
                "this appliance was recovered and writes to no target yet".to_owned(),
                format!(
                    "If the former appliance is gone for good, run: holdfast takeover --confirm {}",
                    state.keyring.current().repository()
                ),
            );
        }
        if state.catalog.meta(UNCONFIRMED).await?.is_some() {
            note(
                "expiry-unconfirmed",
                "no backup expires: the catalog was rebuilt from heads, which know no policies".to_owned(),
                "Make the policies as they are to be, look at `holdfast policy preview`, then run `holdfast policy confirm`."
                    .to_owned(),
            );
        }
        if let Some((jobs, why)) = state.queue.unrecorded() {
            note(
                "catalog-takes-nothing",
                format!("what happened in {jobs} jobs cannot be recorded: {why}"),
                "Free space on the file system of the data directory: it is recorded by itself as soon as that works."
                    .to_owned(),
            );
        }
        if state.keyring.current().recipients().is_empty() {
            note(
                "no-recovery-recipient",
                "nobody can recover this repository if the appliance is lost".to_owned(),
                "Run `holdfast key recipient add NAME --generate FILE` and keep FILE off this machine.".to_owned(),
            );
        }
        let targets = state.catalog.targets().await?;
        let counts = state.catalog.target_counts().await?;
        if targets.iter().all(|target| target.site == targets[0].site) {
            note(
                "one-site",
                "backups are not protected against the loss of a site".to_owned(),
                "Add a target at another site: `holdfast target add NAME URL --site SITE`.".to_owned(),
            );
        }
        for target in &targets {
            let behind = counts.get(&target.uid).map_or(0, |counts| counts.behind);
            let hint = format!("It is tried again by itself; `holdfast target sync {}` tries now.", target.name);
            match &target.last_error {
                Some(error) if behind > 0 => {
                    note("target-behind", format!("the target {} lacks {behind} backups: {error}", target.name), hint);
                }
                Some(error) => note("target-failing", format!("the target {} fails: {error}", target.name), hint),
                None => {}
            }
            let damaged = state.catalog.backups_with_losses_at(&target.uid).await?;
            if damaged > 0 {
                note(
                    "target-losses",
                    format!("parts of {damaged} backups are lost at the target {}", target.name),
                    format!(
                        "`holdfast repository check --read-data --heal --target {}` brings back what is intact anywhere; `backup show` says what is lost.",
                        target.name
                    ),
                );
            }
        }
        problems.extend(state.plugins.problems());
        Ok(problems)
    }
}
