//! What a guest says while it runs: its log and its progress, made harmless and bounded before anybody hears it.
//!
//! A guest's text may come from a hostile server: control characters never pass, and a flood is counted, not kept.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

/// Whose a plugin is, and with it whose its words are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Author {
    /// It came with the binary: its words are the product's own.
    Ours,
    /// It was installed, or came with a backup: people are told with each of its words that it is the plugin's.
    Stranger,
}

/// What stands before the words of a stranger's plugin; nothing before our own.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mark(Arc<str>);

impl Mark {
    pub(crate) fn new(author: Author, plugin: &str) -> Self {
        match author {
            Author::Ours => Self::default(),
            Author::Stranger => Self(format!("[plugin {plugin}] ").into()),
        }
    }

    pub(crate) fn on(&self, text: &str) -> String {
        if text.is_empty() { String::new() } else { format!("{}{text}", self.0) }
    }
}

/// Hears what a guest does while it runs, and can stop it.
#[derive(Clone)]
pub struct Watch {
    /// Who hears it.
    pub events: Arc<dyn Events>,
    /// Cancelled, the run ends in [`crate::Failure::Cancelled`] soon after.
    pub cancel: CancellationToken,
}

/// Called from the guest's thread; must not block.
pub trait Events: Send + Sync {
    /// `level` is `debug`, `info`, `warn` or `error`; control characters are already escaped.
    fn log(&self, level: &str, message: &str);
    /// `done` of `total`, in `unit`; ten times a second at most, and once more at the end of a phase.
    fn progress(&self, phase: &str, done: u64, total: Option<u64>, unit: &str);
}

/// Bytes kept of one message.
const MESSAGE: usize = 8 << 10;
/// Bytes kept of a phase's or a unit's name.
const NAME: usize = 64;
/// Lines that pass at once, and then each second.
const BURST: u32 = 1_000;
const LINES_PER_SECOND: u32 = 100;
const PROGRESS_EVERY: Duration = Duration::from_millis(100);
/// Beginnings and ends of phases that pass meanwhile.
const TURNS: u32 = 10;

/// What was passed on of a guest's progress.
struct Progress {
    phase: String,
    since: Instant,
    turns: u32,
}

/// One run's voice; clones share its bounds.
#[derive(Clone)]
pub(crate) struct Voice(Arc<Mutex<Inner>>);

struct Inner {
    events: Arc<dyn Events>,
    mark: Mark,
    allowance: u32,
    refilled: Instant,
    left_out: u64,
    progress: Option<Progress>,
    last_error: Option<String>,
}

impl Voice {
    pub(crate) fn new(events: Arc<dyn Events>, mark: Mark) -> Self {
        let refilled = Instant::now();
        let inner = Inner { events, mark, allowance: BURST, refilled, left_out: 0, progress: None, last_error: None };
        Self(Arc::new(Mutex::new(inner)))
    }

    pub(crate) fn log(&self, level: &str, message: &str) {
        let level = match level {
            "debug" | "warn" | "error" => level,
            _ => "info",
        };
        let message = harmless(message, MESSAGE);
        let mut inner = self.inner();
        inner.refill();
        if level == "error" {
            inner.last_error = Some(message.clone());
        }
        if inner.allowance == 0 {
            inner.left_out += 1;
            return;
        }
        inner.allowance -= 1;
        inner.admit_left_out();
        inner.events.log(level, &inner.mark.on(&message));
    }

    pub(crate) fn progress(&self, phase: &str, done: u64, total: Option<u64>, unit: &str) {
        let (phase, now) = (harmless(phase, NAME), Instant::now());
        let mut inner = self.inner();
        let recent = inner.progress.take().filter(|last| now - last.since < PROGRESS_EVERY);
        let (since, turns) = match recent {
            None => (now, TURNS),
            Some(last) if (last.phase != phase || total == Some(done)) && last.turns > 0 => {
                (last.since, last.turns - 1)
            }
            soon => return inner.progress = soon,
        };
        inner.events.progress(&inner.mark.on(&phase), done, total, &harmless(unit, NAME));
        inner.progress = Some(Progress { phase, since, turns });
    }

    /// What stands before the guest's words.
    pub(crate) fn mark(&self) -> Mark {
        self.inner().mark.clone()
    }

    /// The last error that the guest logged: a panic's message comes only this way.
    pub(crate) fn last_error(&self) -> Option<String> {
        self.inner().last_error.clone()
    }

    /// Says how many lines were left out, if any were. Called once, at the end.
    pub(crate) fn finish(&self) {
        self.inner().admit_left_out();
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn refill(&mut self) {
        let seconds = self.refilled.elapsed().as_secs();
        if seconds > 0 {
            let lines = u32::try_from(seconds).unwrap_or(u32::MAX).saturating_mul(LINES_PER_SECOND);
            self.allowance = self.allowance.saturating_add(lines).min(BURST);
            self.refilled = Instant::now();
        }
    }

    fn admit_left_out(&mut self) {
        let lines = std::mem::take(&mut self.left_out);
        if lines > 0 {
            self.events.log("warn", &format!("{lines} lines of the plugin's log were left out: too many at once"));
        }
    }
}

/// At most `limit` bytes of `text`, with everything escaped that could end a line, move a cursor or turn text around.
pub fn harmless(text: &str, limit: usize) -> String {
    let mut clean = String::with_capacity(text.len().min(limit));
    for character in text.chars() {
        if clean.len() >= limit {
            clean.push('…');
            break;
        }
        let turns = matches!(character, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}');
        if character.is_control() || turns {
            // Writing to a string cannot fail.
            let _ = write!(clean, "{}", character.escape_default());
        } else {
            clean.push(character);
        }
    }
    clean
}

/// Whether a text is a code as programs read it: kebab-case, and short.
pub fn is_code(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Keeps what it hears.
    #[derive(Default)]
    pub(crate) struct Heard(pub(crate) Mutex<Vec<String>>);

    impl Events for Heard {
        fn log(&self, level: &str, message: &str) {
            self.0.lock().expect("unpoisoned").push(format!("{level}: {message}"));
        }
        fn progress(&self, phase: &str, done: u64, _total: Option<u64>, unit: &str) {
            self.0.lock().expect("unpoisoned").push(format!("{phase} {done} {unit}"));
        }
    }

    #[test]
    fn control_characters_never_pass() {
        assert_eq!(harmless("a\nb\u{1b}[2J\u{202e}ü", 100), "a\\nb\\u{1b}[2J\\u{202e}ü");
        assert_eq!(harmless("abcdef", 3), "abc…");
    }

    #[test]
    fn the_words_of_a_strangers_plugin_are_marked_and_ours_are_not() {
        for (author, expected) in [
            (Author::Stranger, ["info: [plugin redis] done", "[plugin redis] copy 1 bytes"]),
            (Author::Ours, ["info: done", "copy 1 bytes"]),
        ] {
            let heard = Arc::new(Heard::default());
            let voice = Voice::new(heard.clone(), Mark::new(author, "redis"));
            voice.log("info", "done");
            voice.progress("copy", 1, None, "bytes");
            assert_eq!(*heard.0.lock().expect("unpoisoned"), expected);
        }
    }

    #[test]
    fn a_flood_is_counted() {
        let heard = Arc::new(Heard::default());
        let voice = Voice::new(heard.clone(), Mark::default());
        for _ in 0..100_000 {
            voice.log("nonsense", "again");
        }
        voice.finish();
        let lines = heard.0.lock().expect("unpoisoned");
        assert!(lines.len() < 50_000, "{} lines passed", lines.len());
        assert!(lines[0].starts_with("info: again"));
        assert!(lines.last().is_some_and(|line| line.contains("left out")));
    }

    #[test]
    fn progress_ends_with_its_last_value() {
        let heard = Arc::new(Heard::default());
        let voice = Voice::new(heard.clone(), Mark::default());
        for done in 0..=1_000 {
            voice.progress("copy", done, Some(1_000), "bytes");
        }
        let lines = heard.0.lock().expect("unpoisoned");
        assert_eq!(lines.first().map(String::as_str), Some("copy 0 bytes"));
        assert_eq!(lines.last().map(String::as_str), Some("copy 1000 bytes"));
        assert!(lines.len() < 1_000);
    }

    #[test]
    fn a_flood_of_phases_is_not_passed_on() {
        let heard = Arc::new(Heard::default());
        let voice = Voice::new(heard.clone(), Mark::default());
        let began = Instant::now();
        for number in 0..10_000 {
            voice.progress(&format!("phase {number}"), number, Some(number), "bytes");
        }
        let periods = 1 + began.elapsed().as_millis() / PROGRESS_EVERY.as_millis();
        let passed = heard.0.lock().expect("unpoisoned").len() as u128;
        assert!(passed > 1 && passed <= periods * u128::from(TURNS + 1), "{passed} in {periods} periods");
    }
}
