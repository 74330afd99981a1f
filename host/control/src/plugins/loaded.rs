//! The plugins that can be called now, by engine, and the limits that every call is given.
//!
//! What came with the binary goes first: an installed plugin never takes its engine or its name. One that cannot be loaded
//! any more keeps nothing else from starting; it is told as a problem of the appliance.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast_catalog::PluginRow;
use holdfast_repository::{Digest, Repository};
use holdfast_sandbox::{Author, Description, Limits, Plugin, Runtime, RuntimeOptions};

use crate::Error;
use crate::data_dir::DataDir;
use crate::resources::Problem;

/// The plugins, by engine.
pub(crate) struct Plugins {
    runtime: Runtime,
    limits: Limits,
    set: Mutex<Set>,
    /// Held by whoever installs or removes.
    change: tokio::sync::Mutex<()>,
}

/// A plugin, and since when it is installed if it did not come with the binary.
#[derive(Clone)]
pub(crate) struct Loaded {
    pub(crate) plugin: Plugin,
    pub(crate) installed_ms: Option<i64>,
}

#[derive(Default)]
struct Set {
    by_engine: BTreeMap<String, Loaded>,
    /// Installed and not loaded, by name: why.
    unusable: BTreeMap<String, Error>,
}

impl Plugins {
    /// Loads what came with the binary.
    pub(crate) async fn load(options: RuntimeOptions, components: &[Arc<[u8]>]) -> Result<Self, Error> {
        let limits = options.limits.clone();
        let plugins = Self {
            runtime: Runtime::new(options)?,
            limits,
            set: Mutex::default(),
            change: tokio::sync::Mutex::default(),
        };
        for component in components {
            let plugin = plugins.runtime.load(component.clone(), Author::Ours).await?;
            plugins.add(Loaded { plugin, installed_ms: None });
        }
        Ok(plugins)
    }

    /// Loads what is installed besides, and removes components that are not.
    pub(crate) async fn load_installed(&self, data: &DataDir, rows: Vec<PluginRow>) -> Result<(), Error> {
        data.keep_components(&rows.iter().filter_map(|row| row.digest.parse().ok()).collect::<BTreeSet<Digest>>())?;
        for row in rows {
            match self.load_one(data, &row).await {
                Ok(plugin) => self.add(Loaded { plugin, installed_ms: Some(row.installed_ms) }),
                Err(error) => {
                    tracing::error!(plugin = row.name, %error, "an installed plugin cannot be loaded");
                    self.set().unusable.insert(row.name, error);
                }
            }
        }
        Ok(())
    }

    async fn load_one(&self, data: &DataDir, row: &PluginRow) -> Result<Plugin, Error> {
        let damaged = || {
            Error::unprocessable("plugin-damaged", format!("the component of {} is not what was installed", row.name))
        };
        let digest = row.digest.parse().map_err(|_| damaged())?;
        let component = data.read_component(digest)?;
        if Digest::of(&component) != digest {
            return Err(damaged());
        }
        let plugin = self.compile(component.into()).await?;
        self.refuse_taken(plugin.description())?;
        Ok(plugin)
    }

    /// Compiles a component that did not come with the binary, and asks it who it is.
    pub(crate) async fn compile(&self, component: Arc<[u8]>) -> Result<Plugin, Error> {
        Ok(self.runtime.load(component, Author::Stranger).await?)
    }

    /// What every run is bounded by.
    pub(crate) fn limits(&self) -> Limits {
        self.limits.clone()
    }

    /// Waits for the right to install or remove.
    pub(crate) async fn change(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.change.lock().await
    }

    pub(crate) fn all(&self) -> Vec<Loaded> {
        self.set().by_engine.values().cloned().collect()
    }

    pub(crate) fn of_name(&self, name: &str) -> Option<Loaded> {
        self.set().by_engine.values().find(|loaded| loaded.plugin.description().name == name).cloned()
    }

    pub(crate) fn of_digest(&self, digest: Digest) -> Option<Loaded> {
        self.set().by_engine.values().find(|loaded| loaded.plugin.digest() == digest).cloned()
    }

    /// Refuses a plugin whose name or engine another one has.
    pub(crate) fn refuse_taken(&self, description: &Description) -> Result<(), Error> {
        for Loaded { plugin, installed_ms } in self.all() {
            let other = plugin.description();
            let (code, what) = if other.engine == description.engine {
                ("engine-served", format!("the engine '{}' is served", other.engine))
            } else if other.name == description.name {
                ("plugin-exists", format!("the name '{}' is taken", other.name))
            } else {
                continue;
            };
            let hint = match installed_ms {
                Some(_) => format!("To replace it, remove it first: holdfast plugin remove {}", other.name),
                None => {
                    "It came with this binary and stays; build yours with a name and an engine of its own.".to_owned()
                }
            };
            let message = format!("{what} by the plugin {}@{}", other.name, other.version);
            return Err(Error::conflict(code, message).hint(hint));
        }
        Ok(())
    }

    /// Serves a plugin's engine by it.
    pub(crate) fn add(&self, loaded: Loaded) {
        let description = loaded.plugin.description();
        let (name, engine) = (description.name.clone(), description.engine.clone());
        let mut set = self.set();
        set.unusable.remove(&name);
        set.by_engine.insert(engine, loaded);
    }

    /// Forgets an installed plugin. Runs of it go on to their end.
    pub(crate) fn remove(&self, row: &PluginRow) {
        let mut set = self.set();
        set.unusable.remove(&row.name);
        set.by_engine.retain(|_, loaded| loaded.plugin.digest().to_string() != row.digest);
        drop(set);
        if let Ok(digest) = row.digest.parse() {
            self.runtime.forget(digest);
        }
    }

    /// Installed plugins that cannot be loaded, as problems of the appliance.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        let set = self.set();
        let problem = |(name, error): (&String, &Error)| Problem {
            code: error.code.clone(),
            message: format!("the installed plugin {name} cannot be loaded: {error}"),
            hint: Some(format!("Install it again from its file, or remove it: holdfast plugin remove {name}")),
            blocking: false,
        };
        set.unusable.iter().map(problem).collect()
    }

    /// Whose plugin serves an engine. One that is not loaded is not ours.
    pub(crate) fn author(&self, engine: &str) -> Author {
        match self.set().by_engine.get(engine) {
            Some(Loaded { installed_ms: None, .. }) => Author::Ours,
            _ => Author::Stranger,
        }
    }

    /// The plugin for an engine.
    pub(crate) fn of_engine(&self, engine: &str) -> Result<Plugin, Error> {
        let set = self.set();
        if let Some(loaded) = set.by_engine.get(engine) {
            return Ok(loaded.plugin.clone());
        }
        let known = || set.by_engine.keys().map(String::as_str);
        let hint = match crate::names::nearest(engine, known()) {
            Some(near) => format!("Did you mean '{near}'?"),
            None if set.by_engine.is_empty() => {
                "This binary was built without plugins; build it with `cargo xtask build`.".to_owned()
            }
            None => format!("There are plugins for: {}.", known().collect::<Vec<_>>().join(", ")),
        };
        Err(Error::invalid("unknown-engine", format!("there is no plugin for the engine '{engine}'")).hint(hint))
    }

    /// The plugin that can read a backup: the loaded one of its engine, else the component that lies beside the backup.
    pub(crate) async fn for_backup(
        &self,
        engine: &str,
        repository: &Repository,
        component: Digest,
    ) -> Result<Plugin, Error> {
        if let Ok(plugin) = self.of_engine(engine) {
            return Ok(plugin);
        }
        self.compile(repository.component(component).await?.into()).await
    }

    fn set(&self) -> MutexGuard<'_, Set> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
