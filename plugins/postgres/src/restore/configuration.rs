//! Configuration in a restore: what lay outside of the data directory comes into it, and what is missing is made.

use holdfast_sdk::archive::{self, Backup};
use holdfast_sdk::{Error, Result};

use crate::names;
use crate::rewrite::{self, Rewritten};

/// Configuration files that a backup kept from outside of the data directory.
pub struct Configuration {
    /// Relative to the directory of `postgresql.conf`.
    names: Vec<String>,
}

/// A file without which a server does not start.
pub struct Missing {
    /// Its name in the data directory.
    pub name: &'static str,
    /// What it gets.
    pub text: &'static str,
    /// What that means.
    pub note: &'static str,
}

const MINIMAL: [Missing; 3] = [
    Missing {
        name: "postgresql.conf",
        text: "# Made by a restore: the backup had none.\n",
        note: "all settings are the defaults",
    },
    Missing {
        name: "pg_hba.conf",
        text: "# Made by a restore: the backup had none.\nlocal all all peer\n",
        note: "only local users may connect, each as the role of the same name",
    },
    Missing { name: "pg_ident.conf", text: "# Made by a restore: the backup had none.\n", note: "it is empty" },
];

/// More than this is no configuration.
const MAX_FILES: usize = 1_000;

impl Configuration {
    /// What the backup has of it.
    pub fn find(backup: &Backup) -> Result<Self> {
        let mut names = Vec::new();
        for entry in archive::entries(backup, names::CONFIG) {
            names.extend(entry?.path.strip_prefix(names::CONFIG).map(str::to_owned));
            if names.len() > MAX_FILES {
                return Err(Error::new(
                    "invalid-document",
                    format!("the backup has more than {MAX_FILES} configuration files"),
                ));
            }
        }
        Ok(Self { names })
    }

    /// Files to be written into the data directory.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Whether one of them takes the place of a file of the data directory that the server did not use.
    pub fn replaces(&self, file: &str) -> bool {
        self.names.iter().any(|name| name == file)
    }

    /// Makes a file fit for its new place.
    pub fn rewrite(&self, backup: &Backup, name: &str, text: &str) -> Rewritten {
        rewrite::rewrite(name, text, |included| {
            let is_it = |path: &str| path == included || below(included, path);
            self.names.iter().any(|name| is_it(name)) || has_data(backup, included)
        })
    }

    /// What must be made, because neither the data directory nor `config/` has it.
    pub fn missing(&self, backup: &Backup) -> Result<Vec<&'static Missing>> {
        let absent = |missing: &&Missing| !self.replaces(missing.name) && !has_data(backup, missing.name);
        Ok(MINIMAL.iter().filter(absent).collect())
    }
}

fn below(directory: &str, path: &str) -> bool {
    path.strip_prefix(directory.trim_end_matches('/')).is_some_and(|rest| rest.starts_with('/'))
}

/// Whether the data directory has this file or directory.
fn has_data(backup: &Backup, path: &str) -> bool {
    let path = format!("{}{}", names::DATA, path.trim_end_matches('/'));
    // The exact path comes first of all that begin with it.
    backup.entries(&path, "", 1).is_ok_and(|found| found.first().is_some_and(|entry| entry.path == path))
}
