//! `io`: reading, writing, moving, waiting.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use tokio::time::timeout;
use wasmtime::component::Resource;

use super::types::{CallError, misused};
use super::wit::io::{Host, HostByteSink, HostByteSource};
use crate::state::State;
use crate::streams::{LIST, SinkSlot, Source, transfer};

/// Sources that one call may wait for.
const WAITED: usize = 1_024;

impl HostByteSource for State {
    async fn read(&mut self, this: Resource<Source>, max: u32) -> Result<Vec<u8>, CallError> {
        if max == 0 {
            return Err(misused("invalid-argument", "a read of no bytes cannot tell the end from the beginning"));
        }
        let max = usize::try_from(max).unwrap_or(LIST).min(LIST);
        Ok(self.table.get_mut(&this)?.piece(&self.guard, max).await?.into())
    }

    async fn read_exact(&mut self, this: Resource<Source>, length: u32) -> Result<Vec<u8>, CallError> {
        let length = list_length(length as usize)?;
        let bytes = self.table.get_mut(&this)?.exact(&self.guard, length).await?;
        if bytes.len() < length {
            let message = format!("the stream ended after {} of {length} bytes", bytes.len());
            return Err(super::types::refused_for_now(
                "unexpected-end",
                message,
                "Check the server's log for the reason why it ended the stream.",
            ));
        }
        Ok(bytes)
    }

    async fn skip(&mut self, this: Resource<Source>, length: u64) -> Result<u64, CallError> {
        let source = self.table.get_mut(&this)?;
        let mut skipped = 0;
        while skipped < length {
            self.guard.check()?;
            let wanted = usize::try_from(length - skipped).unwrap_or(usize::MAX);
            let piece = source.piece(&self.guard, wanted).await?;
            if piece.is_empty() {
                break;
            }
            skipped += piece.len() as u64;
        }
        Ok(skipped)
    }

    async fn drop(&mut self, this: Resource<Source>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

impl HostByteSink for State {
    async fn write(&mut self, this: Resource<SinkSlot>, bytes: Vec<u8>) -> Result<(), CallError> {
        list_length(bytes.len())?;
        self.table.get_mut(&this)?.get()?.write(&self.guard, &self.output, &bytes).await
    }

    async fn finish(&mut self, sink: Resource<SinkSlot>) -> Result<u64, CallError> {
        self.table.delete(sink)?.take()?.finish(&self.guard).await
    }

    async fn drop(&mut self, this: Resource<SinkSlot>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

impl Host for State {
    async fn transfer(
        &mut self,
        source: Resource<Source>,
        sink: Resource<SinkSlot>,
        length: u64,
    ) -> Result<u64, CallError> {
        let mut target = self.table.get_mut(&sink)?.take()?;
        let moved = match self.table.get_mut(&source) {
            Ok(source) => transfer(source, &mut target, length, &self.guard, &self.output).await,
            Err(error) => Err(error.into()),
        };
        self.table.get_mut(&sink)?.put(target);
        moved
    }

    async fn wait(&mut self, sources: Vec<Resource<Source>>, timeout_ms: u32) -> Result<Vec<u32>, CallError> {
        let distinct: BTreeSet<u32> = sources.iter().map(Resource::rep).collect();
        if sources.len() > WAITED || distinct.len() < sources.len() {
            return Err(misused("invalid-argument", format!("wait takes at most {WAITED} sources, each once")));
        }
        let mut sockets = Vec::with_capacity(sources.len());
        for source in &sources {
            sockets.push(match self.table.get(source)? {
                Source::Socket(socket) => Some(socket.clone()),
                // An entry's bytes come from our own storage: a read is as good as a wait.
                Source::Content(_) => None,
            });
        }
        let readable = poll_fn(|cx| {
            let mut readable = Vec::new();
            for (position, socket) in (0..).zip(&sockets) {
                if socket.as_ref().is_none_or(|socket| socket.poll_readable(cx).is_ready()) {
                    readable.push(position);
                }
            }
            if readable.is_empty() { Poll::Pending } else { Poll::Ready(readable) }
        });
        let limit = Duration::from_millis(timeout_ms.into());
        Ok(self.guard.wait(timeout(limit, readable)).await?.unwrap_or_default())
    }
}

fn list_length(length: usize) -> Result<usize, CallError> {
    if length > LIST {
        return Err(misused("invalid-argument", format!("a list may have {LIST} bytes and not {length}")));
    }
    Ok(length)
}
