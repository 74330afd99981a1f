//! A loaded plugin, and the calls that can be made of it.

use std::sync::Arc;

use holdfast_repository::Digest;

use crate::imports::EnginePre;
use crate::runtime::Prepared;
use crate::state::State;
use crate::voice::Mark;
use crate::{Author, Description, Failure, Grants, Watch, run};

/// A loaded plugin. Cheap to clone.
#[derive(Clone)]
pub struct Plugin {
    loaded: Arc<Loaded>,
}

struct Loaded {
    pre: EnginePre<State>,
    digest: Digest,
    imports: Vec<String>,
    component: Arc<[u8]>,
    description: Description,
    mark: Mark,
}

/// Which export, with its request document.
#[derive(Clone, Debug)]
pub enum Call {
    /// Looks at the server.
    Probe,
    /// Writes a backup; returns its inventory.
    Dump(serde_json::Value),
    /// Restores the current backup.
    Restore(serde_json::Value),
    /// Judges the current backup by the engine's rules.
    Verify(serde_json::Value),
}

impl Plugin {
    pub(crate) fn new(prepared: Prepared, component: Arc<[u8]>, description: Description, author: Author) -> Self {
        let Prepared { pre, digest, imports } = prepared;
        let mark = Mark::new(author, &description.name);
        Self { loaded: Arc::new(Loaded { pre, digest, imports, component, description, mark }) }
    }

    /// A text of one of its documents as people are to read it: marked where the plugin is not our own. What it says otherwise, in
    /// its errors, its log and its progress, is marked already.
    pub fn attribute(&self, text: &str) -> String {
        self.loaded.mark.on(text)
    }

    /// What the plugin said of itself when it was loaded.
    pub fn description(&self) -> &Description {
        &self.loaded.description
    }

    /// The interfaces that the component imports, such as `holdfast:engine/archive@1.0.0`.
    pub fn imports(&self) -> &[String] {
        &self.loaded.imports
    }

    /// Digest of the component's bytes.
    pub fn digest(&self) -> Digest {
        self.loaded.digest
    }

    /// The component's bytes.
    pub fn component(&self) -> Arc<[u8]> {
        self.loaded.component.clone()
    }

    /// Runs one export on a thread of its own, to its end, its limits or its cancellation. Returns the export's JSON document.
    ///
    /// All that was granted is dropped before it returns: the caller then holds the only `Arc` of a granted writer. Dropping
    /// the future cancels the run, which then ends by itself.
    pub async fn run(&self, call: Call, grants: Grants, watch: Watch) -> Result<serde_json::Value, Failure> {
        run::call(self.loaded.pre.clone(), call, grants, watch, self.loaded.mark.clone()).await
    }
}
