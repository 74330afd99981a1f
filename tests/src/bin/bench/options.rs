//! The options that every bench has.

use std::path::PathBuf;

/// How to measure, whatever is measured.
pub struct Common {
    /// Whether a missed goal is a failure.
    pub gate: bool,
    /// Whether the result is JSON.
    pub json: bool,
    /// How many times everything is done.
    pub rounds: usize,
    /// Where the cluster stays.
    pub directory: Option<PathBuf>,
}

impl Common {
    /// Takes an option with its value: whether it is one of these, and `None` where the value is not understood.
    pub fn take(&mut self, option: &str, values: &mut impl Iterator<Item = String>) -> Option<bool> {
        match option {
            "--gate" => self.gate = true,
            "--rounds" => self.rounds = values.next()?.parse().ok().filter(|rounds| *rounds > 0)?,
            "--dir" => self.directory = Some(std::path::absolute(values.next()?).ok()?),
            "-o" => {
                values.next().filter(|format| format == "json")?;
                self.json = true;
            }
            _ => return Some(false),
        }
        Some(true)
    }
}

impl Default for Common {
    fn default() -> Self {
        Self { gate: false, json: false, rounds: 3, directory: None }
    }
}
