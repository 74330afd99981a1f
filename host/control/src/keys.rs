//! Operations on keys: recovery recipients, rotation, the take over.

use base64::Engine;
use holdfast_catalog::{TargetRole, TargetRow};
use holdfast_repository::{DomainId, Keyring};

use crate::appliance::newest_epoch;
use crate::names::check_part;
use crate::resources::{
    CreateRecipient, Page, Recipient, RecipientAdded, RecipientRemoved, RotateKeys, Rotation, Status,
};
use crate::{Appliance, Error, ErrorKind, Principal, clock, jobs, rollback, targets};

impl Appliance {
    /// Adds a recovery recipient: from the next generation on, its identity opens the keyring at every target. Or one of an organization's own,
    /// whose identity opens its backups and no others, those that exist too.
    pub async fn add_recipient(&self, who: &Principal, request: CreateRecipient) -> Result<RecipientAdded, Error> {
        let state = &self.0;
        state.must_be_writer("adding a recipient")?;
        check_part("recipient", &request.name)?;
        let now = clock::now_ms();
        let sealed_keyring = match &request.organization {
            Some(organization) => {
                check_part("organization", organization)?;
                let domain = state.domain(organization).await?;
                let (name, public, now) = (&request.name, &request.public, clock::unsigned(now));
                jobs::rewrap::rotate(state, |keyring| Ok(keyring.with_tenant(domain, name, public, now)?)).await?;
                None
            }
            None => Some(self.add_recovery_recipient(&request, clock::unsigned(now)).await?),
        };
        state.audit(who, "recipient.add", &request.name).await?;
        jobs::export::soon(state).await?;
        let (keyring, all) = (state.keyring.current(), state.catalog.targets().await?);
        let CreateRecipient { name, public, organization } = request;
        Ok(RecipientAdded {
            recipient: Recipient { name, public, added_at: clock::text(now), organization },
            repository: keyring.repository().to_string(),
            verify_key: hex::encode(keyring.verify_key().0),
            targets: all.iter().map(|target| format!("{} {}", target.site, target.url)).collect(),
            sealed_keyring,
        })
    }

    /// The keyring sealed for the new recipient too, base64.
    async fn add_recovery_recipient(&self, request: &CreateRecipient, now_ms: u64) -> Result<String, Error> {
        let state = &self.0;
        state
            .change_keyring(|keyring| Ok(Some(keyring.with_recipient(&request.name, &request.public, now_ms)?)))
            .await?;
        let primary = state.repository(&targets::primary(state).await?).await?;
        primary.publish_keyring().await?;
        for target in state.catalog.targets().await?.iter().filter(|target| target.role != TargetRole::Primary) {
            jobs::replicate::now(state, target).await?;
        }
        let sealed = primary
            .sealed_keyring()
            .await?
            .ok_or_else(|| Error::new(ErrorKind::Internal, "no-keyring", "the keyring was not published"))?;
        Ok(base64::engine::general_purpose::STANDARD.encode(sealed))
    }

    /// Recovery recipients, then those of each organization's own.
    pub async fn recipients(&self) -> Result<Page<Recipient>, Error> {
        let keyring = self.0.keyring.current();
        let shown = |organization: Option<&String>, (name, public, added): (String, String, u64)| {
            let added_at = clock::text(clock::signed(added));
            Recipient { name, public, added_at, organization: organization.cloned() }
        };
        let mut items: Vec<_> = keyring.recipients().into_iter().map(|one| shown(None, one)).collect();
        for (domain, organization) in keyring.organizations() {
            items.extend(keyring.tenants(domain)?.into_iter().map(|one| shown(Some(&organization), one)));
        }
        Ok(Page { items, next: None })
    }

    /// Removes a recovery recipient, and rotates what they knew: new organization keys, whose slots are rewrapped at every target. Or removes a
    /// recipient of an organization's own, and its slots.
    ///
    /// Errors: there is no such recipient; it is the last one.
    pub async fn remove_recipient(
        &self,
        who: &Principal,
        name: &str,
        organization: Option<&str>,
    ) -> Result<RecipientRemoved, Error> {
        let state = &self.0;
        state.must_be_writer("removing a recipient")?;
        let job = jobs::rewrap::rotate(state, |keyring| match organization {
            None => Ok(keyring.without_recipient(name)?),
            Some(organization) => Ok(keyring.without_tenant(domain_of(keyring, organization)?, name)?),
        });
        let job = job.await?.id;
        let generation = state.keyring.current().generation();
        state.audit(who, "recipient.remove", name).await?;
        jobs::export::soon(state).await?;
        let still_readable = match organization {
            None => still_readable(name, generation, &state.catalog.targets().await?),
            Some(organization) => tenant_can_read(name, organization),
        };
        Ok(RecipientRemoved { name: name.to_owned(), generation, still_readable, job })
    }

    /// Makes new organization keys and has the slots of every backup rewrapped; or a new signing key.
    pub async fn rotate_keys(&self, who: &Principal, request: RotateKeys) -> Result<Rotation, Error> {
        let state = &self.0;
        state.must_be_writer("rotating keys")?;
        let job = match request {
            RotateKeys { organization: Some(_), signing: true } => {
                return Err(Error::invalid("bad-rotation", "an organization has no signing key of its own")
                    .hint("Ask for either: the key of an organization, or the signing key of the repository."));
            }
            RotateKeys { signing: true, .. } => {
                state.change_keyring(|keyring| Ok(Some(keyring.with_new_signing_key()))).await?;
                state.repository(&targets::primary(state).await?).await?.publish_keyring().await?;
                for target in state.catalog.targets().await?.iter().filter(|one| one.role != TargetRole::Primary) {
                    jobs::replicate::now(state, target).await?;
                }
                None
            }
            RotateKeys { organization, .. } => {
                let job = jobs::rewrap::rotate(state, |keyring| {
                    let domains = match &organization {
                        Some(organization) => vec![domain_of(keyring, organization)?],
                        None => keyring.domains(),
                    };
                    Ok(keyring.with_new_organization_keys(&domains))
                });
                Some(job.await?.id)
            }
        };
        state.audit(who, "key.rotate", if job.is_some() { "organization" } else { "signing" }).await?;
        jobs::export::soon(state).await?;
        let keyring = state.keyring.current();
        Ok(Rotation { generation: keyring.generation(), verify_key: keyring.verify_key().to_string(), job })
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
            let repository = repository.with_writer(state.writer);
            repository.take_over().await?;
            rollback::start_over(state, target, &repository).await?;
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

/// The domain of an organization.
fn domain_of(keyring: &Keyring, organization: &str) -> Result<DomainId, Error> {
    keyring.domain_of(organization).ok_or_else(|| {
        let known: Vec<_> = keyring.organizations().into_iter().map(|(_, name)| name).collect();
        Error::not_found("organization-not-found", format!("{organization} has no key: it never had a backup"))
            .hint(format!("Organizations with keys are: {}.", known.join(", ")))
    })
}

/// What a removed recipient of an organization's own can still read.
fn tenant_can_read(name: &str, organization: &str) -> Vec<String> {
    vec![
        format!(
            "every backup of {organization} made until now: {name} may have kept the data keys that were in their slots"
        ),
        format!(
            "names, labels, times and sizes of its later backups, with access to a target: {name} knows its index key, which stays"
        ),
        format!("whether contents that {name} can guess lie in its backups: the organization's secrets stay"),
    ]
}

/// What a removed recipient can still read: no rotation takes back what was copied, and none replaces a domain's secrets.
fn still_readable(name: &str, generation: u64, targets: &[TargetRow]) -> Vec<String> {
    let mut readable = vec![format!(
        "every backup made until now, from what {name} copied of a target together with a keyring before generation {generation}"
    )];
    readable.extend(targets.iter().map(|target| {
        format!(
            "the same at {} ({}), until the slots there are rewrapped; where its store locks objects or keeps former versions, until those end",
            target.name, target.site
        )
    }));
    readable.push(format!(
        "names, labels, times and sizes of all backups, later ones too, with access to a target: {name} knows the index keys, which stay"
    ));
    readable.push(format!(
        "whether contents that {name} can guess lie in an organization's backups: the organization's secrets stay"
    ));
    readable
}
