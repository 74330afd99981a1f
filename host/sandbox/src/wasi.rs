//! WASI 0.2 for guests whose language brings it along: no files, no network, no environment. What they print goes to the
//! job's log, line by line.

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, async_trait};

use crate::voice::Voice;

/// Bytes of one line and of one write.
const LINE: usize = 8 << 10;
/// Bytes of randomness that one call may ask for, as in `job.random`.
const RANDOM: u64 = 64 << 10;

/// A context in which nothing is to be had but clocks, randomness and a voice.
pub(crate) fn empty_context(voice: &Voice) -> WasiCtx {
    WasiCtxBuilder::new()
        .stdout(Printed { voice: voice.clone(), level: "info" })
        .stderr(Printed { voice: voice.clone(), level: "warn" })
        .max_random_size(RANDOM)
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false)
        .build()
}

/// One of the two streams that a guest prints to.
struct Printed {
    voice: Voice,
    level: &'static str,
}

impl IsTerminal for Printed {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Printed {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(Lines { voice: self.voice.clone(), level: self.level, line: Vec::new() })
    }

    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        // Only WASI 0.3 asks for this one, and that is not linked.
        Box::new(tokio::io::sink())
    }
}

struct Lines {
    voice: Voice,
    level: &'static str,
    line: Vec<u8>,
}

impl Lines {
    fn end(&mut self) {
        let line = std::mem::take(&mut self.line);
        self.voice.log(self.level, String::from_utf8_lossy(&line).trim_end_matches('\r'));
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        if !self.line.is_empty() {
            self.end();
        }
    }
}

#[async_trait]
impl Pollable for Lines {
    async fn ready(&mut self) {}
}

#[async_trait]
impl OutputStream for Lines {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let text = piece.strip_suffix(b"\n").unwrap_or(piece);
            // What a line has beyond its bound is cut off, not kept.
            self.line.extend_from_slice(&text[..text.len().min(LINE - self.line.len())]);
            if text.len() < piece.len() {
                self.end();
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(LINE)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::voice::Mark;
    use crate::voice::tests::Heard;

    #[test]
    fn printed_bytes_become_bounded_lines() {
        let heard = Arc::new(Heard::default());
        let printed = Printed { voice: Voice::new(heard.clone(), Mark::default()), level: "warn" };
        let mut stream = printed.p2_stream();
        for bytes in ["one\ntw".as_bytes(), b"o\r\n\xff", &[b'x'; 3 * LINE]] {
            assert!(stream.write(Bytes::copy_from_slice(bytes)).is_ok());
        }
        drop(stream);
        let lines = heard.0.lock().expect("unpoisoned");
        assert_eq!(lines[..2], ["warn: one", "warn: two"]);
        assert!(lines[2].starts_with("warn: \u{fffd}xxx") && lines[2].len() < LINE + 64);
        assert_eq!(lines.len(), 3);
    }
}
