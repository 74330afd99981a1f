//! The operator's steps that the demo and most scenarios share, as methods of [`Appliance`].

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::appliance::{Answer, Appliance};
use crate::cluster::Cluster;
use crate::s3::{ACCESS_KEY, S3Server, SECRET_KEY};
use crate::{Account, Failure, Result, Workdir, ensure, wait_until};

/// The role that backs up, on every cluster of ours.
pub const ROLE: &str = "keeper";
/// Its password: a needle too.
pub const PASSWORD: &str = "pa55-needle-Vx7-orchid";

/// How long an event that must come may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// One attempt at a backup, ended.
#[derive(Debug)]
pub struct Attempt {
    /// The backup's full name.
    pub name: String,
    /// The backup.
    pub backup: Value,
    /// What went wrong: code, message, hint; null if nothing did.
    pub error: Value,
}

impl Attempt {
    /// Whether the backup can be used. One that cannot be must say why, what to do, and that it cannot.
    pub fn succeeded(&self) -> Result<bool> {
        let status = &self.backup["status"];
        if status["state"] == "Succeeded" {
            let is_whole = status["readyToUse"] == true && number(status, "entries")? > 0;
            ensure(is_whole, || format!("an empty backup: {self:?}"))?;
            return Ok(true);
        }
        let says = ["code", "message", "hint"].into_iter().all(|key| self.error[key].is_string());
        ensure(says && status["readyToUse"] == false, || {
            format!("not a failure with its reason and a hint: {self:?}")
        })?;
        Ok(false)
    }

    /// Fails unless the attempt failed with this code; returns what it said.
    pub fn failed_by(&self, code: &str) -> Result<String> {
        ensure(!self.succeeded()? && self.error["code"] == code, || format!("it was to fail by {code}: {self:?}"))?;
        Ok(self.error["message"].as_str().unwrap_or_default().to_owned())
    }
}

impl Appliance {
    /// Makes a recovery kit at this path.
    pub fn make_recovery_kit(&self, path: &Path) -> Result<Answer> {
        let words = [
            "key".as_ref(),
            "recipient".as_ref(),
            "add".as_ref(),
            "alice".as_ref(),
            "--generate".as_ref(),
            path.as_os_str(),
        ];
        self.run(words)?.done()
    }

    /// Adds the S3 service as target `vault` at site `there`.
    pub fn add_vault(&self, s3: &S3Server, workdir: &Workdir) -> Result<Answer> {
        self.run(s3.target_arguments("vault", "backups", "there", workdir)?)?.done()
    }

    /// Registers a cluster, on which [`ROLE`] exists, without TLS. More arguments may follow.
    pub fn add_instance(&self, name: &str, cluster: &Cluster, workdir: &Workdir, more: &[&str]) -> Result<Answer> {
        self.add_instance_at(name, cluster.port(), workdir, more)
    }

    /// The same by a port, which may be that of a proxy.
    pub fn add_instance_at(&self, name: &str, port: u16, workdir: &Workdir, more: &[&str]) -> Result<Answer> {
        let (port, user) = (format!("port={port}"), format!("user={ROLE}"));
        let secret = format!("password={}", workdir.secret("password", PASSWORD)?.display());
        let mut words =
            vec!["instance", "add", name, "--engine", "postgres", "--no-schedule", "--set", "host=127.0.0.1"];
        words.extend(["--set", &port, "--set", &user, "--secret-file", &secret]);
        words.extend(if more.is_empty() { &["--set", "tls=off"] } else { more });
        self.run(words)
    }

    /// Backs an instance up and waits: `primary`, `offsite` or `all`.
    pub fn back_up(&self, instance: &str, wait: &str) -> Result<Value> {
        let backup = self.json(["backup", "create", instance, &format!("--wait={wait}")])?;
        let status = &backup["status"];
        ensure(status["state"] == "Succeeded" && status["readyToUse"] == true, || {
            format!("not a usable backup: {backup}")
        })?;
        ensure(number(status, "logicalBytes")? > 0 && number(status, "entries")? > 0, || {
            format!("an empty backup: {backup}")
        })?;
        Ok(backup)
    }

    /// Looks at an instance: the problem that blocks its backups, as JSON with its code and its hint, if there is one.
    pub fn obstacle(&self, instance: &str) -> Result<Option<String>> {
        let answer = self.run(["instance", "check", instance, "-o", "json"])?;
        let found: Value =
            serde_json::from_str(&answer.stdout).map_err(|error| Failure::from(error).during(&answer))?;
        let obstacle = found["problems"].as_array().into_iter().flatten().find(|problem| problem["blocking"] == true);
        ensure((answer.code == Some(1)) == obstacle.is_some(), || format!("exit code and problems differ: {answer}"))?;
        let Some(obstacle) = obstacle else { return Ok(None) };
        let helps = ["code", "message", "hint"]
            .into_iter()
            .all(|key| obstacle[key].as_str().is_some_and(|text| !text.is_empty()));
        ensure(helps, || format!("a problem without a code, a message or a hint: {answer}"))?;
        Ok(Some(obstacle.to_string()))
    }

    /// Makes one attempt to back an instance up, and waits for its end.
    pub fn attempt(&self, instance: &str) -> Result<Attempt> {
        self.end_attempt(&self.begin_attempt(instance)?)
    }

    /// Begins to back an instance up; returns the backup that may become of it.
    pub fn begin_attempt(&self, instance: &str) -> Result<Value> {
        self.json(["backup", "create", instance])
    }

    /// Waits until an attempt has ended. Where the appliance would wait and try again, its job is cancelled.
    pub fn end_attempt(&self, begun: &Value) -> Result<Attempt> {
        let word = |key: &str| begun[key].as_str().unwrap_or_default();
        let name = format!("{}/{}/{}/{}", word("organization"), word("project"), word("instance"), word("name"));
        let id = begun["status"]["job"].as_str().unwrap_or_default();
        let job = wait_until("the attempt ends", PATIENCE, || {
            let job = self.json(["job", "show", id])?;
            let runs = job["state"] == "Running" || (job["state"] == "Queued" && job["nextAttemptAt"].is_null());
            Ok((!runs).then_some(job))
        })?;
        if job["state"] == "Queued" {
            self.run(["job", "cancel", id])?.done()?;
        }
        let backup = self.json(["backup", "show", &name])?;
        Ok(Attempt { name, backup, error: job["error"].clone() })
    }

    /// Waits until what the catalog knows of an instance is at every target too, so that a rebirth brings it back.
    pub fn wait_until_remembered(&self, instance: &str) -> Result {
        let instance = self.json(["instance", "show", instance])?;
        let since = instance["updatedAt"].as_str().unwrap_or_default().to_owned();
        wait_until("the catalog is off site", PATIENCE, || {
            let jobs = self.list(&["job", "list"])?;
            let of = |kind: &'static str| jobs.iter().filter(move |job| job["kind"] == kind);
            // An export asks for replication before it ends.
            let is_exported = of("export").any(|job| {
                job["state"] == "Succeeded" && job["startedAt"].as_str().is_some_and(|at| at > since.as_str())
            });
            let is_copying = of("replicate").any(|job| job["state"] == "Queued" || job["state"] == "Running");
            Ok((is_exported && !is_copying).then_some(()))
        })
    }

    /// Verifies a backup by its engine's rules.
    pub fn verify(&self, backup: &str) -> Result<Value> {
        let verified = self.json(["backup", "verify", backup, "--level", "engine", "--wait"])?;
        let backup = self.json(["backup", "show", backup])?;
        let proof = &backup["status"]["verified"];
        ensure(proof["passed"] == true && proof["level"] == "engine", || {
            format!("not verified: {verified}\n{backup}")
        })?;
        Ok(backup)
    }

    /// Restores into a directory, for the account of database servers, with tablespaces relocated.
    pub fn restore(&self, backup: &str, to: &Path, maps: &[(&Path, &Path)], more: &[&str]) -> Result<Answer> {
        let mut words: Vec<String> = ["restore", backup, "--to-directory"].map(String::from).into();
        words.push(to.display().to_string());
        for (old, new) in maps {
            words.extend(["--map".into(), format!("{}={}", old.display(), new.display())]);
        }
        if let Some(owner) = Account::for_databases()?.name() {
            words.extend(["--owner".into(), owner.into()]);
        }
        words.extend(more.iter().map(|word| (*word).to_owned()));
        self.run(words)
    }

    /// The same appliance with access to the S3 service through the environment, as recovery on an empty machine has it.
    pub fn with_access_to_vault(self) -> Self {
        self.environment("AWS_ACCESS_KEY_ID", ACCESS_KEY).environment("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    }

    /// Rebuilds the data directory from the S3 service with a recovery kit alone.
    pub fn recover(&self, s3: &S3Server, kit: &Path) -> Result<Answer> {
        let (url, kit, data) = (s3.url("backups"), kit.display().to_string(), self.data().display().to_string());
        self.run(["recover", "--from", &url, "--identity", &kit, "--data-dir", &data])?.done()
    }

    /// The id of the repository.
    pub fn repository(&self) -> Result<String> {
        let stats = self.json(["repository", "stats"])?;
        stats["repository"].as_str().map(String::from).ok_or_else(|| Failure::new(format!("no repository id: {stats}")))
    }

    /// Becomes the writer of the repository.
    pub fn take_over(&self) -> Result<Answer> {
        let repository = self.repository()?;
        self.run(["takeover", "--confirm", &repository])?.done()
    }
}

/// A number in a JSON object.
pub fn number(object: &Value, key: &str) -> Result<u64> {
    object[key].as_u64().ok_or_else(|| Failure::new(format!("no number {key} in {object}")))
}
