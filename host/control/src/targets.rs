//! Operations on targets: the primary, and the secondaries at other sites.

mod change;

use std::sync::Arc;

use holdfast_catalog::{TargetCounts, TargetRole, TargetRow};
use holdfast_repository::{Keyring, Repository, WriterId};
use holdfast_storage::{Storage, Throttled};

use crate::appliance::State;
use crate::instances::{open_secrets, seal_secrets};
use crate::names::check_part;
use crate::pace::Pace;
use crate::resources::{CreateTarget, Page, Target, TargetFinding};
use crate::{Appliance, Error, ErrorKind, Principal, clock, jobs, views};

/// Meta key: the uid of the target that `[repository]` in the configuration speaks of, once that is not the primary any more.
const CONFIGURED: &str = "configured-primary";

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
        let storage = storage(&row, &keyring)?;
        self.refuse_same_place(&row, storage.as_ref()).await?;
        try_out(&mut row, storage.as_ref()).await?;
        self.refuse_shared_holder(&row, storage.as_ref()).await?;
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
            let scrub = jobs::scrub::status(&self.0, &row).await?;
            items.push(views::target(&row, counts.get(&row.uid).copied().unwrap_or_default(), scrub));
        }
        Ok(Page { items, next: None })
    }

    /// One target.
    pub async fn target(&self, name: &str) -> Result<Target, Error> {
        self.view_target(&find(&self.0, name).await?).await
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
        Ok(views::target(row, counts(&self.0, row).await?, jobs::scrub::status(&self.0, row).await?))
    }

    /// Two targets that stand and fall together cannot be two sites.
    async fn refuse_shared_holder(&self, new: &TargetRow, there: &dyn Storage) -> Result<(), Error> {
        let holder = there.holder().await?;
        let keyring = self.0.keyring.current();
        for other in
            self.0.catalog.targets().await?.into_iter().filter(|other| other.uid != new.uid && other.site != new.site)
        {
            // One that cannot be asked cannot be compared either; it must not stand in the way of a better one.
            let Ok(there) = storage(&other, &keyring) else { continue };
            let Ok(shared) = there.holder().await else { continue };
            if shared == holder {
                let message = format!(
                    "{} and {} both stand on {holder}, and claim the sites {} and {}",
                    new.name, other.name, new.site, other.site
                );
                let hint = format!(
                    "Use another disk or service for the second site, or say `--site {}`: one fault would take both.",
                    other.site
                );
                return Err(Error::conflict("same-holder", message).hint(hint));
            }
        }
        Ok(())
    }

    /// Two targets on one place protect from nothing.
    async fn refuse_same_place(&self, new: &TargetRow, there: &dyn Storage) -> Result<(), Error> {
        let (location, keyring) = (there.location(), self.0.keyring.current());
        let is_there = |row: &TargetRow| storage(row, &keyring).is_ok_and(|other| other.location() == location);
        match self.0.catalog.targets().await?.into_iter().find(|row| row.uid != new.uid && is_there(row)) {
            Some(other) => {
                Err(Error::conflict("same-place", format!("the target {} already lies at {location}", other.name))
                    .hint("A second target must be another directory or bucket, at another site."))
            }
            None => Ok(()),
        }
    }
}

/// Tries a place, and keeps what was found and learned.
async fn try_out(row: &mut TargetRow, storage: &dyn Storage) -> Result<(), Error> {
    let found = holdfast_storage::probe(storage).await?;
    let findings = found.findings.into_iter().map(|finding| TargetFinding {
        what: finding.what.to_owned(),
        works: finding.works,
        detail: finding.detail,
    });
    row.findings = serde_json::to_string(&findings.collect::<Vec<_>>()).map_err(|error| {
        Error::new(ErrorKind::Internal, "encoding", format!("encoding what was found failed: {error}"))
    })?;
    row.conditional_writes = found.traits.conditional_writes;
    row.settings.extend(storage.learned());
    Ok(())
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
    let pace = Pace::take(&mut settings)?;
    for (key, secret) in open_secrets(keyring, &format!("target/{}", row.uid), &row.secrets)? {
        let secret = std::str::from_utf8(&secret)
            .map_err(|_| Error::invalid("bad-setting", format!("the secret '{key}' is not text")))?;
        settings.insert(key, secret.trim_end_matches(['\r', '\n']).to_owned());
    }
    let storage = holdfast_storage::open(&row.url, &settings)?;
    Ok(match pace.bytes_per_second {
        Some(rate) => Arc::new(Throttled::new(storage, rate)),
        None => storage,
    })
}

/// All targets but this one, opened, or why they cannot be.
pub(crate) async fn others(state: &State, uid: &str) -> Result<Vec<(TargetRow, Result<Repository, Error>)>, Error> {
    let mut others = Vec::new();
    for other in state.catalog.targets().await?.into_iter().filter(|other| other.uid != uid) {
        let opened = state.repository(&other).await;
        others.push((other, opened));
    }
    Ok(others)
}

/// When a target is copied to, and how fast.
pub(crate) fn pace(row: &TargetRow) -> Result<Pace, Error> {
    Pace::take(&mut row.settings.clone())
}

/// For how long a target lets nothing be deleted.
pub(crate) fn lock_ms(row: &TargetRow) -> i64 {
    let days = row.settings.get("lock-days").and_then(|days| days.parse::<u32>().ok());
    days.map_or(0, |days| i64::from(days) * 24 * 60 * 60 * 1000)
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
        findings: "[]".to_owned(),
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
    let row = match state.catalog.targets().await?.into_iter().find(|row| row.role == TargetRole::Primary) {
        None => {
            let url = url.map_or_else(|| state.data.default_primary(), str::to_owned);
            let row = new_row("primary", TargetRole::Primary, url, site_name);
            state.catalog.insert_target(row).await?
        }
        Some(primary) => {
            if let Some(configured) = configured(state, &primary).await? {
                follow_configuration(state, configured, url, site).await?;
            }
            self::primary(state).await?
        }
    };
    if state.is_recovered() {
        return Ok(());
    }
    // Fails here, at start, and not in the night, where the primary cannot be used.
    state.repository(&row).await.map(drop)
}

/// The target that `[repository]` in the configuration speaks of: the first primary, whatever its role is now. None if it is gone.
async fn configured(state: &State, primary: &TargetRow) -> Result<Option<TargetRow>, Error> {
    let Some(uid) = state.catalog.meta(CONFIGURED).await? else { return Ok(Some(primary.clone())) };
    let targets = state.catalog.targets().await?;
    Ok(targets.into_iter().find(|row| row.uid.as_bytes() == uid))
}

/// Takes over what the configuration says of its target now.
async fn follow_configuration(
    state: &State,
    row: TargetRow,
    url: Option<&str>,
    site: Option<&str>,
) -> Result<(), Error> {
    if let Some(url) = url
        && place(url) != place(&row.url)
    {
        return Err(Error::conflict(
            "primary-moved",
            format!("the configuration names the primary {url}, the catalog {}", row.url),
        )
        .hint("Put the former URL back into [repository]; the primary does not move by editing it, but by `holdfast target promote`."));
    }
    // The repository beside the catalog is its own, wherever the two were moved together.
    let beside = (url.is_none() && state.data.has_repository()).then(|| state.data.default_primary());
    let (url, site) = (beside.unwrap_or_else(|| row.url.clone()), site.unwrap_or(&row.site).to_owned());
    let follow = move |row: &mut TargetRow| (row.url, row.site) = (url, site);
    state.catalog.update_target(&row.uid, None, clock::now_ms(), follow).await.map(drop)?;
    Ok(())
}
