//! What a prune costs by the ledger, and what it costs where everything is looked at.
//!
//!     cargo run --release -p holdfast-repository --example pruned -- DIRECTORY [BACKUPS CHUNKS]
//!
//! With two numbers it makes as many backups of as many chunks in a directory that is absent or empty; a fiftieth of each is its own. Without, it removes
//! the first of those that are left and prunes: the first time by a look at everything, then by what died. Memory is that of the whole process,
//! the highest while it ran, time that of the prune alone.

#![allow(clippy::print_stdout)] // Its figures are what it is for.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use holdfast_repository::{
    BackupId, BackupPlan, BackupRecord, Compression, ContentClass, DomainId, Entry, EntryKind, InstanceId, Keyring,
    PruneOptions, RecoveryKit, Repository, SharedKeyring, recover_keyring,
};
use holdfast_storage::Local;

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// Of so many chunks of a backup one is its own.
const OWN: u64 = 50;
/// Bytes of a chunk: more than what lies inline.
const CHUNK: usize = 520;

#[tokio::main]
async fn main() -> Outcome {
    let mut arguments = std::env::args().skip(1);
    let directory = PathBuf::from(arguments.next().ok_or("usage: pruned DIRECTORY [BACKUPS CHUNKS]")?);
    let storage = Arc::new(Local::new(directory.join("repository")));
    let Some(backups) = arguments.next() else {
        let kit = RecoveryKit::parse(&std::fs::read_to_string(directory.join("kit"))?)?;
        let keyring = SharedKeyring::new(recover_keyring(storage.clone(), &kit, false).await?);
        let domain = keyring.current().domain_of("bench").ok_or("there is no domain")?;
        let repository = Repository::open_existing(storage, keyring).await?;
        return prune(&repository.with_index_cache(directory.join("indexes")), domain).await;
    };
    let chunks = arguments.next().ok_or("how many chunks?")?.parse()?;
    std::fs::create_dir_all(&directory)?;
    let mut kit = RecoveryKit::generate();
    let keyring = Keyring::generate().with_domain("bench").with_recipient("alice", &kit.recipient(), 1)?;
    kit.pin(keyring.repository(), keyring.verify_key(), Vec::new());
    std::fs::write(directory.join("kit"), kit.to_text().as_bytes())?;
    let domain = keyring.domain_of("bench").ok_or("there is no domain")?;
    let repository = Repository::open_or_create(storage, SharedKeyring::new(keyring)).await?;
    let repository = repository.with_index_cache(directory.join("indexes"));
    for number in 0..backups.parse()? {
        back_up(&repository, domain, number, chunks).await?;
    }
    Ok(())
}

async fn prune(repository: &Repository, domain: DomainId) -> Outcome {
    let mut backups = repository.backups(domain).await?;
    backups.sort_unstable_by_key(|record| record.created_ms);
    let first = backups.first().ok_or("no backup is left")?;
    repository.remove_backup(domain, first.backup, 1).await?;
    let began = Instant::now();
    let pruned = repository.prune(domain, PruneOptions::default(), &|_, _, _| {}).await?;
    println!(
        "one of {} backups pruned in {:.2?}: {} objects condemned, memory at its highest {}",
        backups.len(),
        began.elapsed(),
        pruned.condemned.objects,
        memory_peak()?
    );
    Ok(())
}

async fn back_up(repository: &Repository, domain: DomainId, number: u64, chunks: u64) -> Outcome {
    let plan = BackupPlan {
        backup: BackupId::random(),
        domain,
        parent: None,
        component: None,
        started_ms: 1,
        compression: Compression::default(),
    };
    let writer = repository.begin_backup(plan).await?;
    for chunk in 0..chunks {
        let (kind, annotations) = (EntryKind::File, BTreeMap::new());
        let entry = Entry { path: format!("{chunk:09}"), kind, size: None, mode: 0o600, modified: 0, annotations };
        let mut entry = writer.begin_entry(entry, ContentClass::Bytes).await?;
        let owner = if chunk % OWN == 0 { number + 1 } else { 0 };
        let mut bytes = [0; CHUNK];
        let names = [chunk.to_le_bytes(), owner.to_le_bytes()].concat();
        blake3::Hasher::new().update(&names).finalize_xof().fill(&mut bytes);
        entry.write(&bytes).await?;
        entry.finish().await?;
    }
    let record = BackupRecord::new(BackupId([0; 16]), InstanceId([1; 16]), number + 1);
    writer.commit(record, "{}".into()).await?;
    Ok(())
}

/// What the kernel says of this process.
fn memory_peak() -> Outcome<String> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    Ok(peak.ok_or("the kernel does not tell it")?.trim().to_owned())
}
