//! Operations on targets: the primary, and the secondaries at other sites.

use std::sync::Arc;

use holdfast_catalog::{TargetCounts, TargetRole, TargetRow};
use holdfast_repository::{Keyring, Repository, WriterId};
use holdfast_storage::Storage;

use crate::appliance::State;
use crate::instances::{open_secrets, seal_secrets};
use crate::names::check_part;
use crate::resources::{CreateTarget, Page, Target};
use crate::{Appliance, Error, ErrorKind, Principal, clock, jobs, views};

impl Appliance {
    /// Tests write, read, list, delete and conditional writes there; refuses a prefix with another repository; then replicates what is kept.
    pub async fn create_target(&self, who: &Principal, request: CreateTarget) -> Result<Target, Error> {
        let state = &self.0;
        state.must_be_writer("adding a target")?;
        check_part("target", &request.name)?;
        check_part("site", &request.site)?;
        let keyring = state.keyring.current();
        let mut row = new_row(&request.name, TargetRole::Secondary, request.url, &request.site);
        row.secrets = seal_secrets(&keyring, &format!("target/{}", row.uid), &request.secrets);
        row.settings = request.settings;
        self.refuse_same_place(&row).await?;
        let storage = storage(&row, &keyring)?;
        row.conditional_writes = holdfast_storage::probe(storage.as_ref()).await?.conditional_writes;
        Repository::open_or_create(storage, state.keyring.clone()).await?.publish_keyring().await?;
        let row = state.catalog.insert_target(row).await?;
        state.audit(who, "target.add", &row.name).await?;
        jobs::replicate::soon(state, &row).await?;
        jobs::export::soon(state).await?;
        self.target(&row.name).await
    }

    /// All targets, the primary first.
    pub async fn targets(&self) -> Result<Page<Target>, Error> {
        let mut items = Vec::new();
        let counts = self.0.catalog.target_counts().await?;
        for row in self.0.catalog.targets().await? {
            items.push(views::target(&row, counts.get(&row.uid).copied().unwrap_or_default()));
        }
        Ok(Page { items, next: None })
    }

    /// One target.
    pub async fn target(&self, name: &str) -> Result<Target, Error> {
        self.view_target(&find(&self.0, name).await?).await
    }

    /// Forgets a secondary target. What lies there stays there.
    pub async fn remove_target(&self, who: &Principal, name: &str) -> Result<(), Error> {
        let state = &self.0;
        let row = find(state, name).await?;
        if row.role == TargetRole::Primary {
            return Err(Error::unprocessable("primary-target", format!("{name} is the primary target"))
                .hint("Only a secondary target can be removed."));
        }
        state.catalog.remove_target(&row.uid, clock::now_ms()).await?;
        state.forget_repository(&row.uid);
        state.audit(who, "target.remove", name).await?;
        jobs::export::soon(state).await
    }

    /// Queues replication of all that the target lacks, now.
    pub async fn sync_target(&self, who: &Principal, name: &str) -> Result<Target, Error> {
        let state = &self.0;
        state.must_be_writer("replication")?;
        let row = find(state, name).await?;
        jobs::replicate::now(state, &row).await?;
        state.audit(who, "target.sync", name).await?;
        self.view_target(&row).await
    }

    async fn view_target(&self, row: &TargetRow) -> Result<Target, Error> {
        Ok(views::target(row, counts(&self.0, row).await?))
    }

    /// Two targets on one place protect from nothing.
    async fn refuse_same_place(&self, new: &TargetRow) -> Result<(), Error> {
        let place = place(&new.url);
        match self.0.catalog.targets().await?.into_iter().find(|row| self::place(&row.url) == place) {
            Some(other) => {
                Err(Error::conflict("same-place", format!("the target {} already lies at {place}", other.name))
                    .hint("A second target must be another directory or bucket, at another site."))
            }
            None => Ok(()),
        }
    }
}

/// How a target stands.
pub(crate) async fn counts(state: &State, row: &TargetRow) -> Result<TargetCounts, Error> {
    Ok(state.catalog.target_counts().await?.get(&row.uid).copied().unwrap_or_default())
}

/// The primary target.
pub(crate) async fn primary(state: &State) -> Result<TargetRow, Error> {
    let row = state.catalog.primary_target().await?;
    row.ok_or_else(|| Error::new(ErrorKind::Internal, "no-primary", "the catalog has no primary target"))
}

/// A URL without its query and closing slashes.
pub(crate) fn place(url: &str) -> &str {
    url.split('?').next().unwrap_or(url).trim_end_matches('/')
}

/// The live target of that name.
pub(crate) async fn find(state: &State, name: &str) -> Result<TargetRow, Error> {
    let targets = state.catalog.targets().await?;
    match targets.iter().find(|row| row.name == name) {
        Some(row) => Ok(row.clone()),
        None => {
            let names: Vec<_> = targets.iter().map(|row| row.name.as_str()).collect();
            Err(Error::not_found("target-not-found", format!("there is no target '{name}'"))
                .hint(format!("The targets are: {}.", names.join(", "))))
        }
    }
}

/// The bytes' place of a target, its secrets opened.
pub(crate) fn storage(row: &TargetRow, keyring: &Keyring) -> Result<Arc<dyn Storage>, Error> {
    let mut settings = row.settings.clone();
    for (key, secret) in open_secrets(keyring, &format!("target/{}", row.uid), &row.secrets)? {
        let secret = std::str::from_utf8(&secret)
            .map_err(|_| Error::invalid("bad-setting", format!("the secret '{key}' is not text")))?;
        settings.insert(key, secret.trim_end_matches(['\r', '\n']).to_owned());
    }
    Ok(holdfast_storage::open(&row.url, &settings)?)
}

/// A target without settings, as of now.
pub(crate) fn new_row(name: &str, role: TargetRole, url: String, site: &str) -> TargetRow {
    let now = clock::now_ms();
    TargetRow {
        uid: WriterId::random().to_string(),
        name: name.to_owned(),
        role,
        url,
        site: site.to_owned(),
        settings: Default::default(),
        secrets: Default::default(),
        conditional_writes: role == TargetRole::Primary,
        last_error: None,
        newest_heads: "[]".to_owned(),
        created_ms: now,
        updated_ms: now,
        resource_version: 1,
        removed_ms: None,
    }
}

/// Makes the primary's row at first start, and follows the configuration in later ones.
pub(crate) async fn ensure_primary(state: &State, url: Option<&str>, site: Option<&str>) -> Result<(), Error> {
    let site_name = site.unwrap_or("local");
    check_part("site", site_name)?;
    let now = clock::now_ms();
    let row = match state.catalog.targets().await?.into_iter().find(|row| row.role == TargetRole::Primary) {
        None => {
            let url = url.map_or_else(|| state.data.default_primary(), str::to_owned);
            let row = new_row("primary", TargetRole::Primary, url, site_name);
            state.catalog.insert_target(row).await?
        }
        Some(row) => {
            if let Some(url) = url
                && place(url) != place(&row.url)
            {
                return Err(Error::conflict(
                    "primary-moved",
                    format!("the configuration names the primary {url}, the catalog {}", row.url),
                )
                .hint("Put the former URL back into [repository]; the primary does not move by editing it."));
            }
            // The repository beside the catalog is its own, wherever the two were moved together.
            let beside = (url.is_none() && state.data.has_repository()).then(|| state.data.default_primary());
            let (url, site) = (beside.unwrap_or_else(|| row.url.clone()), site.unwrap_or(&row.site).to_owned());
            let follow = move |row: &mut TargetRow| (row.url, row.site) = (url, site);
            state.catalog.update_target(&row.uid, None, now, follow).await?
        }
    };
    if state.is_recovered() {
        return Ok(());
    }
    // Fails here, at start, and not in the night, where the primary cannot be used.
    state.repository(&row).await.map(drop)
}
