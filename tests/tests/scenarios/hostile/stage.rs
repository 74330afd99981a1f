//! Where hostile guests are let loose: one appliance for many of them, several at a time, with honest work beside them.
//!
//! Whatever a guest does, what it may not touch is looked at afterwards: the server's process, its log and its memory, the
//! other instance's backups and its secret, and what lies beside the directories that were restored to.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use holdfast_tests::appliance::{Answer, Appliance};
use holdfast_tests::needles::{Needle, search};
use holdfast_tests::{Failure, Result, Workdir, ensure, guest};
use serde_json::Value;

use super::case::{Case, LIMITS};

/// Guests that are let loose side by side: most of them only wait for their limit.
const SIDE_BY_SIDE: usize = 6;
/// The most that the server may have resident: its own, and what the limits leave to the guests that run at once.
const MEMORY: u64 = 700_000_000;
/// Of the honest instance.
const SECRET: &str = "pa55-of-the-byst4nder";
const BYSTANDER: &str = "acme/hostile/bystander";
/// An appliance with short limits, the guest in Rust, and an honest instance.
pub struct Stage {
    pub(super) appliance: Appliance,
    pub(super) workdir: Workdir,
    /// All that any command said.
    said: Mutex<String>,
}

/// Lets all guests loose; every one must end as it should, and nothing else may notice.
pub fn must_withstand(kind: &str, cases: Vec<Case>) -> Result {
    let mut stage = Stage::new(kind)?;
    let count = cases.len();
    let failures = stage.let_loose(cases)?;
    ensure(failures.is_empty(), || format!("{} of {count} guests:\n{}", failures.len(), failures.join("\n")))?;
    let peak = stage.must_stand()?;
    // Past the harness's capture of output.
    Ok(writeln!(std::io::stderr(), "{kind}: {count} hostile guests, {} MB resident at most", peak / 1_000_000)?)
}

impl Stage {
    fn new(kind: &str) -> Result<Self> {
        let workdir = Workdir::new(&format!("hostile-{kind}"))?;
        let mut appliance = Appliance::on(&workdir.join("appliance"));
        appliance.configure("here", None)?;
        appliance.limit(&LIMITS)?;
        appliance.start()?;
        let stage = Self { appliance, workdir, said: Mutex::default() };
        stage.run(&["plugin", "install", &guest("hostile")?.display().to_string()])?.done()?;
        let secret = format!("password={}", stage.workdir.secret("secret", SECRET)?.display());
        stage
            .run(&["instance", "add", BYSTANDER, "--engine", "hostile", "--no-schedule", "--secret-file", &secret])?
            .done()?;
        Ok(stage)
    }

    /// Runs the cases to their ends beside honest work; what went wrong.
    fn let_loose(&mut self, cases: Vec<Case>) -> Result<Vec<String>> {
        let (queue, failures) = (Mutex::new(cases.into_iter()), Mutex::new(Vec::new()));
        let is_over = AtomicBool::new(false);
        let stage = &*self;
        thread::scope(|scope| {
            let honest = scope.spawn(|| stage.work_until(&is_over));
            let guests: Vec<_> = (0..SIDE_BY_SIDE)
                .map(|_| {
                    scope.spawn(|| {
                        while let Some(case) = next(&queue) {
                            if let Err(failure) = stage.try_one(&case) {
                                held(&failures).push(format!("{}: {failure}", case.name));
                            }
                        }
                    })
                })
                .collect();
            let joined = guests.into_iter().try_for_each(|guest| guest.join());
            is_over.store(true, Ordering::Relaxed);
            let worked = honest.join();
            joined.map_err(|_| Failure::new("a scenario panicked"))?;
            worked.map_err(|_| Failure::new("the honest work panicked"))?
        })?;
        Ok(failures.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// An honest instance is backed up and verified all the while.
    fn work_until(&self, is_over: &AtomicBool) -> Result {
        let mut times = 0;
        while times == 0 || !is_over.load(Ordering::Relaxed) {
            times += 1;
            let beside = |failure: Failure| failure.during("honest work beside hostile guests");
            let name = format!("honest-{times}");
            self.run(&["backup", "create", BYSTANDER, "--name", &name, "--wait"])?.done().map_err(beside)?;
            self.run(&["backup", "verify", BYSTANDER, "--wait"])?.done().map_err(beside)?;
        }
        Ok(())
    }

    /// What no guest may have touched; the most memory that the server had resident, in bytes.
    fn must_stand(&mut self) -> Result<u64> {
        self.json(&["instance", "list"]).map_err(|failure| failure.during("the server after hostile guests"))?;
        let peak = self.appliance.peak_memory_bytes()?;
        ensure(peak < MEMORY, || format!("{} MB were resident", peak / 1_000_000))?;
        self.appliance.stop()?;

        let log = self.appliance.log_text();
        ensure(!log.contains("thread '"), || format!("the server panicked:\n{log}"))?;
        must_be_printable(&log).map_err(|failure| failure.during("the server's log"))?;
        ensure(!log.lines().any(|line| line.starts_with("ERROR")), || format!("a line of the log was forged:\n{log}"))?;

        let needles = [Needle::text("another instance's secret", SECRET)];
        let mut found = search(self.appliance.log(), &needles)?.found;
        found.extend(search(&self.appliance.data().join("repository"), &needles)?.found);
        if held(&self.said).contains(SECRET) {
            found.push("another instance's secret was said".into());
        }
        ensure(found.is_empty(), || found.join("\n"))?;
        let escaped = ["/tmp/escaped", "/etc/escaped", "/etc/cron.d/up"].map(PathBuf::from);
        ensure(!escaped.iter().any(|path| path.exists()), || "a file was written to a place of the guest's".into())?;
        Ok(peak)
    }

    /// Runs a command; whatever it says, a terminal must be able to bear.
    pub(super) fn run(&self, words: &[&str]) -> Result<Answer> {
        let answer = self.appliance.run(words)?;
        held(&self.said).push_str(&answer.to_string());
        ensure(answer.code.is_some_and(|code| code != 101 && code != 124), || {
            format!("it did not end well: {answer}")
        })?;
        must_be_printable(&answer.stdout)
            .and_then(|()| must_be_printable(&answer.stderr))
            .map_err(|failure| failure.during(format!("holdfast {}", words.join(" "))))?;
        Ok(answer)
    }

    pub(super) fn json(&self, words: &[&str]) -> Result<Value> {
        self.run(&[words, &["-o", "json"]].concat())?.json()
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn next(queue: &Mutex<std::vec::IntoIter<Case>>) -> Option<Case> {
    held(queue).next()
}

/// Nothing in it moves a cursor, forges a line, or turns text around.
fn must_be_printable(text: &str) -> Result {
    let turns = |character: char| matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200f}');
    match text.lines().find(|line| line.chars().any(|character| character.is_control() || turns(character))) {
        Some(line) => Err(Failure::new(format!("it has control characters: {line:?}"))),
        None => Ok(()),
    }
}
