//! What only somebody could bring about who does not keep to the rules.

use std::collections::BTreeMap;
use std::sync::Arc;

use holdfast_storage::Local;

use super::PruneOptions;
use crate::heads::{Change, DomainState};
use crate::repository::Repository;
use crate::{
    BackupId, BackupPlan, BackupRecord, Compression, ContentClass, Entry, EntryKind, InstanceId, Keyring, SharedKeyring,
};

const NOW: PruneOptions = PruneOptions { dry_run: false, now: true };
const CHUNK: usize = 64 << 10;

/// A version of one chunk: versions differ a little.
fn version(number: u8) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..CHUNK / 32).flat_map(|at| *blake3::hash(&at.to_le_bytes()).as_bytes()).collect();
    bytes[..100].fill(number);
    bytes
}

async fn back_up(repository: &Repository, parent: Option<BackupId>, number: u8) -> BackupRecord {
    let domain = repository.inner.keyring.current().domain_of("acme").unwrap();
    let plan = BackupPlan {
        backup: BackupId::random(),
        domain,
        parent,
        component: None,
        started_ms: 1,
        compression: Compression::default(),
    };
    let writer = repository.begin_backup(plan).await.unwrap();
    let entry = Entry {
        path: "base/1".into(),
        kind: EntryKind::File,
        size: None,
        mode: 0o600,
        modified: 1,
        annotations: BTreeMap::new(),
    };
    let mut entry = writer.begin_entry(entry, ContentClass::Pages(8192)).await.unwrap();
    entry.write(&version(number)).await.unwrap();
    entry.finish().await.unwrap();
    let record = BackupRecord::new(BackupId([0; 16]), InstanceId([1; 16]), 1);
    writer.commit(record, "{}".into()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_condemned_though_it_is_needed_is_moved_with_all_that_it_stands_on() {
    let directory = tempfile::tempdir().unwrap();
    let keyring = SharedKeyring::new(Keyring::generate().with_domain("acme"));
    let domain = keyring.current().domain_of("acme").unwrap();
    let storage = Arc::new(Local::new(directory.path()));
    let repository = Repository::open_or_create(storage, keyring).await.unwrap();
    let quiet = |_: &'static str, _: u64, _: u64| {};
    let first = back_up(&repository, None, 1).await;
    let second = back_up(&repository, Some(first.backup), 2).await;
    let third = back_up(&repository, Some(second.backup), 3).await;
    repository.remove_backup(domain, first.backup, 1).await.unwrap();
    repository.prune(domain, NOW, &quiet).await.unwrap();
    assert!(repository.ledger(domain).await.unwrap().looked_ms() > 0);

    // Packs, and the indexes that tell of them: only the packs themselves say now what is in them.
    let condemn = |state: &DomainState| {
        let condemned = state.live_packs().chain(state.live_indexes()).map(|digest| (*digest, 1)).collect();
        Ok(Some(Change { condemned, ..Change::default() }))
    };
    repository.commit(domain, condemn).await.unwrap();
    repository.remove_backup(domain, second.backup, 1).await.unwrap();
    repository.prune(domain, NOW, &quiet).await.unwrap();
    let reader = repository.open_backup(domain, third.backup).await.unwrap();
    let mut content = reader.open("base/1", 0, None).await.unwrap();
    let mut bytes = Vec::new();
    while let Some(piece) = content.next().await.unwrap() {
        bytes.extend(piece);
    }
    assert!(bytes == version(3));
    assert_eq!(repository.check_structure(domain, &|_, _| {}).await.unwrap().damages, []);
}
