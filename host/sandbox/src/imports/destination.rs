//! `destination`: files and directories beneath the granted roots.

use std::sync::Arc;

use wasmtime::component::Resource;

use super::types::{CallError, misused};
use super::wit::destination::{Extraction, Host};
use crate::order::Order;
use crate::state::State;
use crate::streams::{Sink, SinkSlot};
use crate::tree::Tree;

/// Entries that one call may queue.
const QUEUED: usize = 1_024;

impl Host for State {
    async fn roots(&mut self) -> wasmtime::Result<Vec<(String, String)>> {
        Ok(self.tree.roots().map(|(name, path)| (name.to_owned(), path.to_string_lossy().into_owned())).collect())
    }

    async fn create_directory(&mut self, root: String, path: String, mode: u32) -> Result<(), CallError> {
        self.entries.make()?;
        self.tree.create_directory(&root, &path, mode)
    }

    async fn create_file(&mut self, root: String, path: String, mode: u32) -> Result<Resource<SinkSlot>, CallError> {
        self.entries.make()?;
        let place = self.streams.place()?;
        let file = Tree::create_file(&self.tree, &root, &path, mode)?;
        Ok(self.table.push(SinkSlot::new(Sink::File(Box::new(file)), Some(place)))?)
    }

    async fn link_root(&mut self, root: String, path: String, to_root: String) -> Result<(), CallError> {
        self.entries.make()?;
        self.tree.link_root(&root, &path, &to_root)
    }

    async fn extract(&mut self, files: Vec<Extraction>) -> Result<(), CallError> {
        if files.len() > QUEUED {
            return Err(misused("invalid-argument", format!("extract takes at most {QUEUED} files a call")));
        }
        let Some(backup) = &self.archive.current else {
            return Err(misused("not-granted", "this job reads no backup"));
        };
        self.extraction.start(backup, &self.tree, &self.guard, &self.output);
        for file in files {
            let Extraction { entry, root, path, mode } = file;
            self.entries.make()?;
            self.guard.wait(self.extraction.queue(Order { entry, root, path, mode })).await??;
        }
        Ok(())
    }

    async fn settle(&mut self) -> Result<u64, CallError> {
        State::settle(self).await
    }
}

impl State {
    /// Waits for everything queued, makes it durable, and returns the bytes written so far.
    pub(crate) async fn settle(&mut self) -> Result<u64, CallError> {
        self.guard.wait(self.extraction.drain()).await??;
        let tree = Arc::clone(&self.tree);
        let synced = self.guard.wait(tokio::task::spawn_blocking(move || tree.sync())).await?;
        synced.map_err(|error| CallError::Stopped(wasmtime::Error::new(error)))??;
        Ok(self.tree.written().bytes)
    }
}
