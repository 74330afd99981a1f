//! How far a job is, on stderr: a bar on a terminal, elsewhere a line now and then.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use holdfast_control::resources::{Job, Progress};
use indicatif::{ProgressBar, ProgressStyle};

use super::output::{printable, size};
use super::say;

/// Between two lines, where there is no terminal.
const PACE: Duration = Duration::from_secs(5);

/// Shows one job's progress; what it drew is gone when it is dropped.
pub struct Meter {
    bar: Option<ProgressBar>,
    said: Option<(String, Instant)>,
}

impl Meter {
    /// A meter for whatever stderr is.
    pub fn new() -> Self {
        Self { bar: std::io::stderr().is_terminal().then(ProgressBar::new_spinner), said: None }
    }

    /// Shows where a job is.
    pub fn job(&mut self, job: &Job) {
        let progress = &job.progress;
        match (&job.state[..], &job.error) {
            ("Queued", Some(error)) => self.text(&format!("waits after a failure: {}", error.message)),
            ("Queued", None) => self.text("queued"),
            _ => self.progress(progress),
        }
    }

    /// Shows progress as it is.
    pub fn progress(&mut self, progress: &Progress) {
        if let (Some(bar), Some(total)) = (&self.bar, progress.total.filter(|total| *total > 0)) {
            bar.set_length(total);
            bar.set_position(progress.done.min(total));
        }
        self.text(&words(progress));
    }

    /// Shows a line of words.
    pub fn text(&mut self, text: &str) {
        let text = printable(text);
        if let Some(bar) = &self.bar {
            bar.set_style(if bar.length().is_some() {
                style("{bar:30} {elapsed} {msg}")
            } else {
                style("{spinner} {elapsed} {msg}")
            });
            bar.set_message(text);
            bar.tick();
            return;
        }
        let due = self.said.as_ref().is_none_or(|(said, at)| *said != text && at.elapsed() >= PACE);
        if due {
            say(&text);
            self.said = Some((text, Instant::now()));
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn words(progress: &Progress) -> String {
    let amount = |count| if progress.unit == "bytes" { size(count) } else { format!("{count} {}", progress.unit) };
    match progress.total {
        Some(total) => format!("{}: {} of {}", progress.phase, amount(progress.done), amount(total)),
        None if progress.done > 0 => format!("{}: {}", progress.phase, amount(progress.done)),
        None => progress.phase.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_reads_as_a_sentence() {
        let progress =
            |done, total, unit: &str| words(&Progress { phase: "dump".to_owned(), done, total, unit: unit.to_owned() });
        assert_eq!(progress(1024, Some(4096), "bytes"), "dump: 1.0 KiB of 4.0 KiB");
        assert_eq!(progress(3, None, "entries"), "dump: 3 entries");
        assert_eq!(progress(0, None, "bytes"), "dump");
    }
}
