//! `job`: settings, secrets, voice, randomness, clocks.

use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use ring::rand::{SecureRandom, SystemRandom};

use super::types::{CallError, refused};
use super::wit::job::Host;
use crate::state::State;
use crate::streams::LIST;

/// Where `monotonic` begins: at the first call of the process, so before none that it is compared with.
static BEGINNING: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Host for State {
    async fn setting(&mut self, key: String) -> wasmtime::Result<Option<String>> {
        Ok(self.settings.get(&key).cloned())
    }

    async fn secret(&mut self, key: String) -> Result<Option<Vec<u8>>, CallError> {
        if !self.secured {
            return Err(refused(
                "tls-required",
                "secrets are not handed out before TLS",
                "The plugin must start TLS first; or set tls=off if the network is safe.",
            ));
        }
        Ok(self.secrets.get(&key).map(|secret| secret.to_vec()))
    }

    async fn log(&mut self, level: String, message: String) -> wasmtime::Result<()> {
        self.voice.log(&level, &message);
        Ok(())
    }

    async fn progress(&mut self, phase: String, done: u64, total: Option<u64>, unit: String) -> wasmtime::Result<()> {
        self.voice.progress(&phase, done, total, &unit);
        Ok(())
    }

    async fn stop_requested(&mut self) -> wasmtime::Result<bool> {
        Ok(self.guard.cancelled())
    }

    async fn random(&mut self, length: u32) -> wasmtime::Result<Vec<u8>> {
        // Fewer bytes than asked for would be a trap of the other kind: a short key.
        let length = usize::try_from(length).ok().filter(|length| *length <= LIST);
        let mut bytes = vec![0; length.ok_or_else(|| wasmtime::Error::msg("too many random bytes in one call"))?];
        SystemRandom::new()
            .fill(&mut bytes)
            .map_err(|_| wasmtime::Error::msg("the operating system gives no random bytes"))?;
        Ok(bytes)
    }

    #[allow(clippy::disallowed_methods)] // This is the guests' clock.
    async fn now(&mut self) -> wasmtime::Result<u64> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    async fn monotonic(&mut self) -> wasmtime::Result<u64> {
        Ok(u64::try_from(BEGINNING.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}
