//! What a prune costs by the ledger, and what it costs where everything is looked at. It prints a JSON object for each prune.
//!
//! `pruned DIRECTORY BACKUPS CHUNKS`: makes as many backups of as many chunks there, of which a fiftieth is each backup's own, removes the first one and
//! prunes, which looks at everything and makes the ledger; then it removes the second one and prunes by the ledger. CPU time and the highest memory
//! are those of one prune, as Linux counts them.
#![allow(clippy::print_stdout)] // The result is for the one who ran us.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use holdfast_repository::{
    BackupId, BackupPlan, BackupRecord, Compression, ContentClass, DomainId, Entry, EntryKind, InstanceId, Keyring,
    PruneOptions, Repository, SharedKeyring,
};
use holdfast_storage::Local;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Of so many chunks of a backup one is its own.
const OWN: u64 = 50;
/// Bytes of a chunk: more than what lies inline.
const CHUNK: usize = 520;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, backups, chunks] = &arguments[..] else {
        return Err("usage: pruned DIRECTORY BACKUPS CHUNKS".into());
    };
    let (directory, backups, chunks) = (PathBuf::from(directory), backups.parse::<u64>()?, chunks.parse::<u64>()?);
    let keyring = SharedKeyring::new(Keyring::generate().with_domain("bench"));
    let domain = keyring.current().domain_of("bench").ok_or("there is no domain")?;
    let storage = Arc::new(Local::new(directory.join("repository")));
    let repository = Repository::open_or_create(storage, keyring).await?;
    let repository = repository.with_index_cache(directory.join("indexes"));
    let mut made = Vec::new();
    for number in 0..backups {
        made.push(back_up(&repository, domain, number, chunks).await?);
    }
    for (backup, looks_at) in made.iter().zip(["everything", "what died"]) {
        repository.remove_backup(domain, *backup, 1).await?;
        // Peaks are counted from here on.
        fs::write("/proc/self/clear_refs", "5")?;
        let (began, cpu) = (Instant::now(), cpu_seconds()?);
        let pruned = repository.prune(domain, PruneOptions::default(), &|_, _, _| {}).await?;
        let cost = serde_json::json!({
            "looksAt": looks_at,
            "seconds": began.elapsed().as_secs_f64(),
            "cpuSeconds": cpu_seconds()? - cpu,
            "peakMegabytes": peak_megabytes()?,
            "condemned": pruned.condemned.objects,
            "repacked": pruned.repacked.objects,
        });
        println!("{cost}");
    }
    Ok(())
}

async fn back_up(repository: &Repository, domain: DomainId, number: u64, chunks: u64) -> Result<BackupId> {
    let plan = BackupPlan {
        backup: BackupId::random(),
        domain,
        parent: None,
        component: None,
        started_ms: 1,
        compression: Compression::default(),
    };
    let backup = plan.backup;
    let writer = repository.begin_backup(plan).await?;
    for chunk in 0..chunks {
        let (kind, annotations) = (EntryKind::File, BTreeMap::new());
        let entry = Entry { path: format!("{chunk:09}"), kind, size: None, mode: 0o600, modified: 0, annotations };
        let mut entry = writer.begin_entry(entry, ContentClass::Bytes).await?;
        let owner = if chunk % OWN == 0 { number + 1 } else { 0 };
        let mut bytes = [0; CHUNK];
        blake3::Hasher::new()
            .update(&[chunk.to_le_bytes(), owner.to_le_bytes()].concat())
            .finalize_xof()
            .fill(&mut bytes);
        entry.write(&bytes).await?;
        entry.finish().await?;
    }
    let record = BackupRecord::new(BackupId([0; 16]), InstanceId([1; 16]), 1);
    writer.commit(record, "{}".into()).await?;
    Ok(backup)
}

/// Seconds of all cores, of this process and its kernel.
fn cpu_seconds() -> Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').ok_or("it has no name")?;
    let ticks: Vec<u64> =
        fields.split_whitespace().skip(11).take(2).map(str::parse).collect::<std::result::Result<_, _>>()?;
    Ok(ticks.iter().sum::<u64>() as f64 / 100.0)
}

/// The most memory since it was reset.
fn peak_megabytes() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("it has no peak")?;
    Ok(peak.trim().trim_end_matches(" kB").parse::<u64>()? / 1024)
}
