//! Operations on keys: recovery recipients, the take over.

use base64::Engine;
use holdfast_catalog::TargetRole;

use crate::appliance::newest_epoch;
use crate::resources::{CreateRecipient, Page, Recipient, RecipientAdded, Status};
use crate::{Appliance, Error, ErrorKind, Principal, clock, jobs, targets};

impl Appliance {
    /// Adds a recovery recipient: from the next generation on, its identity opens the keyring at every target.
    pub async fn add_recipient(&self, who: &Principal, request: CreateRecipient) -> Result<RecipientAdded, Error> {
        let state = &self.0;
        state.must_be_writer("adding a recovery recipient")?;
        crate::names::check_part("recipient", &request.name)?;
        let now = clock::now_ms();
        state
            .change_keyring(|keyring| {
                Ok(Some(keyring.with_recipient(&request.name, &request.public, clock::unsigned(now))?))
            })
            .await?;
        let all = state.catalog.targets().await?;
        let primary = state.repository(&targets::primary(state).await?).await?;
        primary.publish_keyring().await?;
        for target in all.iter().filter(|target| target.role != TargetRole::Primary) {
            jobs::replicate::now(state, target).await?;
        }
        state.audit(who, "recipient.add", &request.name).await?;
        jobs::export::soon(state).await?;
        let sealed = primary
            .sealed_keyring()
            .await?
            .ok_or_else(|| Error::new(ErrorKind::Internal, "no-keyring", "the keyring was not published"))?;
        let keyring = state.keyring.current();
        Ok(RecipientAdded {
            recipient: Recipient { name: request.name, public: request.public, added_at: clock::text(now) },
            repository: keyring.repository().to_string(),
            verify_key: hex::encode(keyring.verify_key().0),
            targets: all.iter().map(|target| format!("{} {}", target.site, target.url)).collect(),
            sealed_keyring: base64::engine::general_purpose::STANDARD.encode(sealed),
        })
    }

    /// Recovery recipients.
    pub async fn recipients(&self) -> Result<Page<Recipient>, Error> {
        let items = self.0.keyring.current().recipients().into_iter();
        let items = items
            .map(|(name, public, added)| Recipient { name, public, added_at: clock::text(clock::signed(added)) })
            .collect();
        Ok(Page { items, next: None })
    }

    /// Becomes the writer of a recovered repository; `repository` must be its id. Every target must be reachable: one that is not told
    /// could still take the former appliance's writes.
    pub async fn take_over(&self, who: &Principal, repository: &str) -> Result<Status, Error> {
        let state = &self.0;
        let own = state.keyring.current().repository().to_string();
        if repository != own {
            return Err(Error::conflict("wrong-repository", format!("'{repository}' is not the id of this repository"))
                .hint("Give the id that `holdfast recover` and `holdfast repository stats` print; it protects from taking over the wrong one."));
        }
        if !state.is_recovered() {
            return self.status().await;
        }
        let all = state.catalog.targets().await?;
        let mut epoch = 0;
        for target in &all {
            let storage = targets::storage(target, &state.keyring.current())?;
            let repository = holdfast_repository::Repository::open_or_create(storage, state.keyring.clone()).await?;
            repository.take_over().await?;
            epoch = epoch.max(newest_epoch(&repository).await?);
        }
        state.become_writer(epoch).await?;
        for target in &all {
            jobs::replicate::now(state, target).await?;
        }
        state.audit(who, "takeover", &own).await?;
        jobs::export::soon(state).await?;
        self.status().await
    }
}
