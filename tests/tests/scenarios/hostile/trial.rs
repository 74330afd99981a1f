//! One hostile guest on its stage, from its installation to what the operator is told of its end.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use holdfast_tests::appliance::Answer;
use holdfast_tests::{Failure, Result, ensure, wait_until};
use serde_json::Value;

use super::case::{Case, End, Export};
use super::servers::serve;
use super::stage::Stage;

/// What may pass after a deadline.
const GRACE: Duration = Duration::from_secs(2);
/// How long an event that must come may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// What a command itself may take, where no job says when it began.
const COMMAND: Duration = Duration::from_secs(1);
/// What lies beside a restored directory.
const CANARY: &str = "canary";

impl Stage {
    /// Installs or registers it, has it called as an operator would, and looks at how it ended and what it left.
    pub(super) fn try_one(&self, case: &Case) -> Result {
        let engine = match &case.component {
            Some(component) => {
                let file = self.workdir.join(&format!("{}.wasm", case.name));
                fs::write(&file, component)?;
                let begun = Instant::now();
                let installed = self.run(&["plugin", "install", &file.display().to_string(), "-o", "json"])?;
                if case.export == Export::Describe {
                    in_time(case, begun.elapsed(), COMMAND)?;
                    return self.installed_as_it_should(case, &installed);
                }
                installed.done()?;
                case.name.as_str()
            }
            None => "hostile",
        };
        let instance = self.register(case, engine)?;
        match case.export {
            Export::Describe => Err(Failure::new("nothing to install")),
            Export::Probe => self.probe(case, &instance),
            Export::Dump => self.dump(case, &instance),
            Export::Restore => self.restore(case, &instance),
            Export::Verify => self.verify(case, &instance),
        }
    }

    fn register(&self, case: &Case, engine: &str) -> Result<String> {
        let instance = format!("acme/hostile/{}", case.name);
        let mut words: Vec<String> =
            ["instance", "add", &instance, "--engine", engine, "--no-schedule"].map(String::from).into();
        let mut set = |key: &str, value: &str| words.extend(["--set".into(), format!("{key}={value}")]);
        if let Some(manner) = case.server {
            set("host", "127.0.0.1");
            set("port", &serve(manner)?.to_string());
        }
        set("tls", if case.tls { "verify-full" } else { "off" });
        if !case.harm.is_empty() {
            set(&format!("{:?}", case.export).to_lowercase(), case.harm);
            let secret = self.workdir.secret(&format!("{}-secret", case.name), "own-secret")?;
            words.extend(["--secret-file".into(), format!("password={}", secret.display())]);
        }
        self.run(&words.iter().map(String::as_str).collect::<Vec<_>>())?.done()?;
        Ok(instance)
    }

    fn installed_as_it_should(&self, case: &Case, answer: &Answer) -> Result {
        self.ended_as_it_should(case, answer, None)?;
        let plugins = self.json(&["plugin", "list"])?;
        ensure(!plugins.to_string().contains(&format!("\"{}\"", case.name)), || format!("it is installed: {plugins}"))
    }

    fn probe(&self, case: &Case, instance: &str) -> Result {
        let begun = Instant::now();
        let answer = self.run(&["instance", "check", instance, "-o", "json"])?;
        in_time(case, begun.elapsed(), COMMAND)?;
        let check: Value = serde_json::from_str(&answer.stdout).unwrap_or_default();
        let problem = check["problems"].as_array().and_then(|problems| problems.first());
        self.ended_as_it_should(case, &answer, problem)
    }

    fn dump(&self, case: &Case, instance: &str) -> Result {
        let answer = self.run(&["backup", "create", instance, "--wait", "-o", "json"])?;
        let backup: Value = serde_json::from_str(&answer.stdout)?;
        self.job_ended_as_it_should(case, &answer, backup["status"]["job"].as_str().unwrap_or_default())?;
        let backups = self.json(&["backup", "list", instance])?;
        let usable = |backup: &Value| backup["status"]["state"] != "Failed" || backup["status"]["readyToUse"] != false;
        let is_there = backups["items"].as_array().is_none_or(|backups| backups.iter().any(usable));
        let must_be = matches!(case.end, End::Harmless(_));
        ensure(is_there == must_be, || format!("a backup is offered: {is_there}, and not {must_be}: {backups}"))
    }

    fn restore(&self, case: &Case, instance: &str) -> Result {
        self.run(&["backup", "create", instance, "--wait"])?.done()?;
        let around = self.workdir.join(&case.name);
        fs::create_dir(&around)?;
        fs::write(around.join(CANARY), CANARY)?;
        let root = around.join("root");
        let answer =
            self.run(&["restore", instance, "--to-directory", &root.display().to_string(), "--wait", "-o", "json"])?;
        let job: Value = serde_json::from_str(&answer.stdout)?;
        self.job_ended_as_it_should(case, &answer, job["id"].as_str().unwrap_or_default())?;

        ensure(names(&around)?.iter().all(|name| name == CANARY || name == "root"), || {
            "something lies outside".into()
        })?;
        ensure(fs::read_to_string(around.join(CANARY))? == CANARY, || "what lay outside was changed".into())?;
        let left = if root.exists() { names(&root)? } else { Vec::new() };
        let must_be = matches!(case.end, End::Harmless(_));
        ensure(left.is_empty() != must_be, || format!("the directory holds {left:?}"))
    }

    fn verify(&self, case: &Case, instance: &str) -> Result {
        self.run(&["backup", "create", instance, "--wait"])?.done()?;
        let answer = self.run(&["backup", "verify", instance, "--wait", "-o", "json"])?;
        let job: Value = serde_json::from_str(&answer.stdout)?;
        self.job_ended_as_it_should(case, &answer, job["id"].as_str().unwrap_or_default())?;
        let backup = self.json(&["backup", "show", instance])?;
        let (proof, must_be) = (&backup["status"]["verified"]["passed"], matches!(case.end, End::Harmless(0)));
        ensure((*proof == true) == must_be, || format!("the proof is {proof}"))
    }

    fn job_ended_as_it_should(&self, case: &Case, answer: &Answer, id: &str) -> Result {
        // What it is about ends before the job itself.
        let job = wait_until("the job ends", PATIENCE, || {
            let job = self.json(&["job", "show", id])?;
            Ok((!job["finishedAt"].is_null()).then_some(job))
        })?;
        let state = if matches!(case.end, End::Fails(_)) { "Failed" } else { "Succeeded" };
        ensure(job["state"] == state, || format!("the job is not {state}: {job}\n{answer}"))?;
        in_time(case, between(&job["startedAt"], &job["finishedAt"])?, Duration::ZERO)?;
        self.ended_as_it_should(case, answer, Some(&job["error"]))
    }

    /// The exit code, the stable code where one is told, and the words that an operator reads.
    fn ended_as_it_should(&self, case: &Case, answer: &Answer, error: Option<&Value>) -> Result {
        let said = format!("{}\n{}", answer.stdout, answer.stderr).to_lowercase();
        match case.end {
            End::Harmless(exit) => ensure(answer.code == Some(exit), || format!("it was to be harmless: {answer}"))?,
            End::Fails(code) => {
                ensure(answer.code == Some(1), || format!("it was to fail: {answer}"))?;
                if let Some(error) = error {
                    let told = error["message"].as_str().is_some_and(|message| !message.is_empty());
                    ensure(error["code"] == code && told, || format!("it was to fail by {code}: {error}\n{answer}"))?;
                }
            }
        }
        match case.words.iter().find(|word| !said.contains(&word.to_lowercase())) {
            Some(word) => Err(Failure::new(format!("it did not say {word:?}: {answer}"))),
            None => Ok(()),
        }
    }
}

fn names(directory: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(directory)?;
    Ok(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}

/// Not later than two seconds after its deadline.
fn in_time(case: &Case, took: Duration, more: Duration) -> Result {
    let most = case.deadline + GRACE + more;
    ensure(took <= most, || format!("it took {} s, and may take {} s", took.as_secs_f32(), most.as_secs_f32()))
}

/// The time between two times of one day and the next, as `2026-11-21T06:10:01.123Z`.
fn between(from: &Value, to: &Value) -> Result<Duration> {
    let of_day = |time: &Value| -> Option<f64> {
        let clock = time.as_str()?.split_once('T')?.1.strip_suffix('Z')?;
        clock.split(':').try_fold(0.0, |sum, part| Some(sum * 60.0 + part.parse::<f64>().ok()?))
    };
    let seconds = of_day(from).zip(of_day(to)).map(|(from, to)| (to - from).rem_euclid(86_400.0));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| Failure::new(format!("no times: {from} to {to}")))
}
