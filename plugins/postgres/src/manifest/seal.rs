//! The checksum that a manifest carries in its last line: SHA-256 of all lines before.

use holdfast_sdk::Result;
use sha2::{Digest, Sha256};

use super::damaged;

/// No line of a manifest is longer.
const MAX_LINE: usize = 1 << 20;

/// Checks a manifest that passes by in pieces.
#[derive(Default)]
pub struct Seal {
    lines: Sha256,
    /// The last line so far: it may be the one that is not covered.
    held: Vec<u8>,
}

impl Seal {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) -> Result<()> {
        self.held.extend_from_slice(bytes);
        // A line is covered as soon as anything follows it.
        let before_last = self.held.len().saturating_sub(1);
        if let Some(end) = self.held[..before_last].iter().rposition(|byte| *byte == b'\n') {
            self.lines.update(&self.held[..=end]);
            self.held.drain(..=end);
        }
        if self.held.len() > MAX_LINE {
            return Err(damaged("a line without end"));
        }
        Ok(())
    }

    /// Fails unless the manifest ended with its own checksum.
    pub fn finish(self) -> Result<()> {
        let line = String::from_utf8_lossy(&self.held);
        let line = line.trim_end_matches('\n').strip_prefix("\"Manifest-Checksum\":").map(str::trim);
        let stated = line.and_then(|line| line.strip_suffix('}')).map(|value| value.trim().trim_matches('"'));
        let stated = stated.ok_or_else(|| damaged("it was cut before its end"))?;
        if hex::encode(self.lines.finalize()) != stated.to_ascii_lowercase() {
            return Err(damaged("its own checksum does not fit"));
        }
        Ok(())
    }
}
