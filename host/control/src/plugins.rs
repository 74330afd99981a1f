//! Operations on plugins: those that came with the binary, and those that an operator installs.
//!
//! An installed plugin exists from the moment in which the catalog has its row; its component is durable before that. A
//! component without a row is what a crash left: it is removed at the next start.

mod loaded;

use std::sync::Arc;

use holdfast_catalog::PluginRow;
use holdfast_repository::Digest;

pub(crate) use loaded::{Loaded, Plugins};

use crate::appliance::State;
use crate::resources::PluginInfo;
use crate::{Appliance, Error, ErrorKind, Principal, clock, jobs, views};

/// What an installation did.
#[derive(Clone, Debug)]
pub struct Installed {
    /// The plugin as it is now.
    pub plugin: PluginInfo,
    /// False where the same component was there already.
    pub is_new: bool,
}

impl Appliance {
    /// The plugins that are loaded, by engine.
    pub async fn plugins(&self) -> Vec<PluginInfo> {
        self.0.plugins.all().iter().map(views::plugin).collect()
    }

    /// One loaded plugin.
    pub async fn plugin(&self, name: &str) -> Result<PluginInfo, Error> {
        self.0.plugins.of_name(name).as_ref().map(views::plugin).ok_or_else(|| not_found(name))
    }

    /// Compiles a component, asks it who it is, and serves its engine from now on. The same component again changes nothing.
    ///
    /// Errors: it is not a usable plugin; another plugin has its name or its engine.
    pub async fn install_plugin(&self, who: &Principal, component: Arc<[u8]>) -> Result<Installed, Error> {
        let state = &self.0;
        let _change = state.plugins.change().await;
        let digest = Digest::of(&component);
        if let Some(loaded) = state.plugins.of_digest(digest) {
            return Ok(Installed { plugin: views::plugin(&loaded), is_new: false });
        }
        let plugin = state.plugins.compile(Arc::clone(&component)).await?;
        let description = plugin.description();
        state.plugins.refuse_taken(description)?;
        let row = PluginRow {
            name: description.name.clone(),
            version: description.version.clone(),
            engine: description.engine.clone(),
            digest: digest.to_string(),
            installed_ms: clock::now_ms(),
        };
        let known = state.catalog.plugins().await?.into_iter().find(|known| known.digest == row.digest);
        keep(state, digest, component).await?;
        let (row, is_new) = match known {
            // Its component was lost or damaged, and is back.
            Some(known) => (known, false),
            None => {
                record(state, digest, &row).await?;
                (row, true)
            }
        };
        let loaded = Loaded { plugin, installed_ms: Some(row.installed_ms) };
        let plugin = views::plugin(&loaded);
        state.plugins.add(loaded);
        state.audit(who, "plugin.install", &format!("{}@{} {digest}", row.name, row.version)).await?;
        jobs::export::soon(state).await?;
        Ok(Installed { plugin, is_new })
    }

    /// Removes an installed plugin. Its backups stay, and each target holds the component that they need.
    ///
    /// Errors: it came with the binary; instances have its engine.
    pub async fn remove_plugin(&self, who: &Principal, name: &str) -> Result<(), Error> {
        let state = &self.0;
        let _change = state.plugins.change().await;
        if state.plugins.of_name(name).is_some_and(|loaded| loaded.installed_ms.is_none()) {
            return Err(Error::unprocessable("plugin-built-in", format!("the plugin {name} came with this binary"))
                .hint("Only installed plugins can be removed; `holdfast plugin list` shows which they are."));
        }
        let row = state.catalog.remove_plugin(name).await.map_err(|error| match error {
            holdfast_catalog::Error::NotFound { .. } => not_found(name),
            error => error.into(),
        })?;
        state.plugins.remove(&row);
        if let Ok(digest) = row.digest.parse() {
            // The row is gone, so the next start would remove what stays here.
            if let Err(error) = state.data.remove_component(digest) {
                tracing::warn!(plugin = name, %error, "the component of a removed plugin is still there");
            }
        }
        state.audit(who, "plugin.remove", &format!("{name}@{} {}", row.version, row.digest)).await?;
        jobs::export::soon(state).await
    }
}

/// Makes the component durable in the data directory.
async fn keep(state: &Arc<State>, digest: Digest, component: Arc<[u8]>) -> Result<(), Error> {
    let state = Arc::clone(state);
    tokio::task::spawn_blocking(move || state.data.write_component(digest, &component)).await.map_err(|error| {
        Error::new(ErrorKind::Internal, "internal", format!("writing a component ended early: {error}"))
    })?
}

/// Writes the row, which makes the plugin exist; without it the component is not kept.
async fn record(state: &State, digest: Digest, row: &PluginRow) -> Result<(), Error> {
    let recorded = state.catalog.insert_plugin(row.clone()).await;
    if recorded.is_err()
        && let Err(error) = state.data.remove_component(digest)
    {
        tracing::warn!(%error, "a component that was not installed is still there");
    }
    Ok(recorded?)
}

fn not_found(name: &str) -> Error {
    Error::not_found("plugin-not-found", format!("there is no plugin {name}")).hint("`holdfast plugin list` shows all.")
}
