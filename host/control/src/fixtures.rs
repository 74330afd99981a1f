//! An appliance for the tests of this room: open, and with nothing that runs by itself.

use std::sync::Arc;

use holdfast_sandbox::{Compiler, Limits};
use tempfile::TempDir;

use crate::Options;
use crate::appliance::{State, open};

/// An appliance in a directory of its own. Jobs run when a test runs them.
pub(crate) struct Fixture {
    state: Option<Arc<State>>,
    directory: TempDir,
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        let mut fixture = Self { state: None, directory: tempfile::tempdir().unwrap() };
        fixture.reopen().await;
        fixture
    }

    pub(crate) fn state(&self) -> &Arc<State> {
        self.state.as_ref().unwrap()
    }

    /// Closes everything and opens it again.
    pub(crate) async fn reopen(&mut self) {
        drop(self.state.take());
        let options = Options {
            data_dir: self.directory.path().join("data"),
            unlocking: Default::default(),
            components: Vec::new(),
            primary_url: None,
            primary_site: None,
            workers: 1,
            limits: Limits::default(),
            compiler: Compiler::Here,
            compression: Default::default(),
        };
        self.state = Some(open(options).await.unwrap());
    }
}
