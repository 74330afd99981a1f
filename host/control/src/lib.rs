//! Operations by noun, which API, UI and jobs call; jobs, a verb a file; the rules between them. No axum, no clap, no SQL.
//!
//! [`Appliance`] is the whole interface; each noun's file adds its operations. Requests and answers are [`resources`], the JSON forms
//! that API and CLI share.

mod appliance;
mod backups;
mod clock;
mod data_dir;
mod destination;
mod error;
#[cfg(test)]
mod fixtures;
mod instances;
mod jobs;
mod keys;
mod losses;
mod names;
mod pace;
mod plugins;
mod policies;
mod recovery;
mod repository;
pub mod resources;
mod restores;
mod retention;
mod rollback;
mod settings;
mod shredding;
mod status;
mod targets;
mod tokens;
mod unlock;
mod views;
mod words;

use std::sync::Arc;

pub use appliance::Options;
pub use error::{Error, ErrorKind};
pub use holdfast_repository::Compression;
pub use holdfast_sandbox::{COMPONENT_BYTES_MAX, Compiler, CompilerLimits, Limits};
pub use jobs::scrub::ScrubDays;
pub use names::{InstanceName, nearest};
pub use plugins::Installed;
pub use recovery::{Compared, OfflineRestore, RecoverRequest, Recovered, recover, restore_offline};
pub use unlock::{AskPassphrase, ChangeUnlock, UnlockSource, Unlocking, change_unlock};

/// The appliance: all operations. Cheap to clone.
#[derive(Clone)]
pub struct Appliance(Arc<appliance::State>);

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Name of the token, or `local socket`.
    pub name: String,
}

/// What to list.
#[derive(Clone, Debug, Default)]
pub struct ListQuery {
    /// `organization[/project[/instance]]`.
    pub scope: Option<String>,
    /// Only this state.
    pub state: Option<String>,
    /// 1 to 1000, 100 by default.
    pub limit: Option<u32>,
    /// Cursor: `next` of the page before.
    pub after: Option<String>,
}

impl ListQuery {
    fn catalog_scope(&self) -> holdfast_catalog::Scope {
        self.scope.as_deref().map_or_else(holdfast_catalog::Scope::all, holdfast_catalog::Scope::from_path)
    }

    /// The state as the catalog knows it.
    fn catalog_state<T: std::str::FromStr<Err = holdfast_catalog::UnknownWord>>(&self) -> Result<Option<T>, Error> {
        let state = self.state.as_deref().map(str::parse::<T>).transpose();
        state.map_err(|error| {
            Error::invalid("unknown-state", error.to_string())
                .hint("States are written as in the answers, such as Succeeded.")
        })
    }

    /// The limit, checked.
    fn page_size(&self) -> Result<u32, Error> {
        match self.limit.unwrap_or(100) {
            limit @ 1..=1000 => Ok(limit),
            limit => Err(Error::invalid("bad-limit", format!("a page of {limit} is not possible"))
                .hint("Ask for 1 to 1000 items; `next` leads to the following page.")),
        }
    }
}
