//! What becomes of a target after it was added: edited, promoted, forgotten. None of it deletes a byte.

use holdfast_catalog::{TargetRole, TargetRow};

use super::{CONFIGURED, find, pace, primary, storage, try_out};
use crate::instances::seal_secrets;
use crate::names::check_part;
use crate::resources::{EditTarget, Target};
use crate::{Appliance, Error, Principal, clock, jobs, views};

impl Appliance {
    /// Changes a target, after trying it as it will be. The same repository must lie where it is then.
    pub async fn edit_target(&self, who: &Principal, name: &str, request: EditTarget) -> Result<Target, Error> {
        let state = &self.0;
        state.must_be_writer("editing a target")?;
        let before = find(state, name).await?;
        let version = request.resource_version.as_deref().map(views::resource_version).transpose()?;
        let mut row = self.edited(&before, request)?;
        pace(&row)?;
        let there = storage(&row, &state.keyring.current())?;
        self.refuse_same_place(&row, there.as_ref()).await?;
        try_out(&mut row, there.as_ref()).await?;
        self.refuse_shared_holder(&row, there.as_ref()).await?;
        state.open_repository(&row).await?.publish_keyring().await?;
        let change = {
            let row = row.clone();
            move |now: &mut TargetRow| {
                (now.url, now.site, now.settings, now.secrets) = (row.url, row.site, row.settings, row.secrets);
                (now.findings, now.conditional_writes, now.last_error) = (row.findings, row.conditional_writes, None);
            }
        };
        state.catalog.update_target(&row.uid, version, clock::now_ms(), change).await?;
        state.forget_repository(&row.uid);
        state.audit(who, "target.edit", name).await?;
        jobs::replicate::soon(state, &row).await?;
        jobs::export::soon(state).await?;
        self.target(name).await
    }

    fn edited(&self, before: &TargetRow, request: EditTarget) -> Result<TargetRow, Error> {
        let mut row = before.clone();
        if let Some(url) = request.url {
            if before.role == TargetRole::Primary && super::place(&url) != super::place(&before.url) {
                return Err(Error::unprocessable("primary-target", "the primary does not move by editing it")
                    .hint("Add a target at the new place, and promote it."));
            }
            row.url = url;
        }
        if let Some(site) = request.site {
            check_part("site", &site)?;
            row.site = site;
        }
        for (key, value) in request.settings {
            row.secrets.remove(&key);
            match value {
                Some(value) => row.settings.insert(key, value),
                None => row.settings.remove(&key),
            };
        }
        row.settings.retain(|key, _| !request.secrets.contains_key(key));
        let keyring = self.0.keyring.current();
        row.secrets.extend(seal_secrets(&keyring, &format!("target/{}", row.uid), &request.secrets));
        Ok(row)
    }

    /// Makes a secondary target the primary, at which backups are made from then on; the former primary is a secondary one.
    /// What the new primary lacks is copied to it.
    pub async fn promote_target(&self, who: &Principal, name: &str) -> Result<Target, Error> {
        let state = &self.0;
        state.must_be_writer("promoting a target")?;
        let row = find(state, name).await?;
        if row.role == TargetRole::Primary {
            return Err(Error::unprocessable("primary-target", format!("{name} is the primary already"))
                .hint("`holdfast target list` shows which targets can be promoted."));
        }
        // It must be usable now, for the next backup goes there.
        state.repository(&row).await?.publish_keyring().await?;
        let former = primary(state).await?;
        if state.catalog.meta(CONFIGURED).await?.is_none() {
            state.catalog.set_meta(CONFIGURED, former.uid.as_bytes()).await?;
        }
        let row = state.catalog.promote_target(&row.uid, clock::now_ms()).await?;
        state.audit(who, "target.promote", name).await?;
        for target in [row, former] {
            jobs::replicate::soon(state, &target).await?;
        }
        jobs::export::soon(state).await?;
        self.target(name).await
    }

    /// Forgets a secondary target. What lies there stays there; where some backup lies nowhere else, only with its name as
    /// a confirmation.
    pub async fn remove_target(&self, who: &Principal, name: &str, confirm: Option<&str>) -> Result<(), Error> {
        let state = &self.0;
        let row = find(state, name).await?;
        if row.role == TargetRole::Primary {
            return Err(Error::unprocessable("primary-target", format!("{name} is the primary target"))
                .hint("Promote another target first: `holdfast target promote NAME`."));
        }
        let last = state.catalog.backups_only_at(&row.uid).await?;
        if last > 0 && confirm != Some(name) {
            return Err(Error::unprocessable("last-copy", format!("{last} backups lie at {name} and at no other target"))
                .hint(format!("Let them be copied first, or say `--confirm {name}`: their bytes stay, but nothing here knows of them any more.")));
        }
        state.catalog.remove_target(&row.uid, clock::now_ms()).await?;
        state.forget_repository(&row.uid);
        state.data.remove_index_cache(&row.uid)?;
        state.audit(who, "target.remove", name).await?;
        jobs::export::soon(state).await
    }
}
