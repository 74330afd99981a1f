//! What the audience sees: a line with its time for each step, and a table at the end.

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use holdfast_tests::Result;

/// Prints steps as they end; on a terminal, in colour, and also as they begin.
pub struct Stage {
    terminal: bool,
    begun: Instant,
    steps: u32,
}

/// How long a step took, with what it returned.
pub struct Timed<T> {
    /// What the step returned.
    pub value: T,
    /// How long it took.
    pub elapsed: Duration,
}

impl Stage {
    pub fn new() -> Self {
        Self { terminal: std::io::stdout().is_terminal(), begun: Instant::now(), steps: 0 }
    }

    /// Plays one step. The text that comes with its value is shown beside it.
    pub fn step<T>(&mut self, title: &str, play: impl FnOnce() -> Result<(T, String)>) -> Result<Timed<T>> {
        self.steps += 1;
        let number = self.steps;
        if self.terminal {
            print(format_args!("\x1b[2m{number:>3}  …         {title}\x1b[0m"));
        }
        let begun = Instant::now();
        let played = play();
        let elapsed = begun.elapsed();
        let seconds = elapsed.as_secs_f64();
        let clear = if self.terminal { "\r\x1b[2K" } else { "" };
        let (mark, title_end, dim) = if self.terminal { ("\x1b[32m", "\x1b[0m", "\x1b[2m") } else { ("", "", "") };
        match played {
            Ok((value, note)) => {
                print(format_args!(
                    "{clear}{number:>3}  {mark}{seconds:>6.2} s{title_end}  {title}{dim}  {note}{title_end}\n"
                ));
                Ok(Timed { value, elapsed })
            }
            Err(failure) => {
                let red = if self.terminal { "\x1b[1;31m" } else { "" };
                print(format_args!("{clear}{number:>3}  {red}FAILED after {seconds:.2} s{title_end}  {title}\n"));
                Err(failure.during(title))
            }
        }
    }

    /// Prints a table: the first column left, the others right.
    pub fn table(&self, head: &[&str], rows: &[Vec<String>]) {
        let all = || {
            std::iter::once(head.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>()).chain(rows.iter().cloned())
        };
        let widths: Vec<usize> =
            (0..head.len()).map(|at| all().map(|row| row[at].chars().count()).max().unwrap_or(0)).collect();
        print(format_args!("\n"));
        for (number, row) in all().enumerate() {
            let cells = row.iter().zip(&widths).enumerate();
            let line: Vec<String> = cells
                .map(|(at, (cell, width))| if at == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") })
                .collect();
            let (bold, end) = if self.terminal && number == 0 { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
            print(format_args!("  {bold}{}{end}\n", line.join("   ")));
        }
        print(format_args!("\n"));
    }

    /// Prints a line.
    pub fn say(&self, text: impl Display) {
        print(format_args!("{text}\n"));
    }

    /// Time since the curtain rose.
    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }
}

/// A closed pipe is no reason to stop.
fn print(text: std::fmt::Arguments<'_>) {
    let mut output = std::io::stdout().lock();
    let _ = output.write_fmt(text).and_then(|()| output.flush());
}

/// Bytes in the unit that a person would choose.
pub fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// Seconds with two digits.
pub fn seconds(elapsed: Duration) -> String {
    format!("{:.2} s", elapsed.as_secs_f64())
}
