//! What a backup takes of memory while it is written: a first one of made-up pages, and one in which a row changed in nearly every chunk.
//!
//!     cargo run --release -p holdfast-repository --example scattered -- DIRECTORY GIB
//!
//! The directory must be absent or empty. The pages are made as they are needed; half of each is noise. The figures are of the whole process,
//! by what the system counts, the highest while each backup ran.

#![allow(clippy::print_stdout)] // Its figures are what it is for.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use holdfast_repository::{
    BackupId, BackupPlan, BackupRecord, Compression, ContentClass, DomainId, Entry, EntryKind, InstanceId, Keyring,
    Repository, SharedKeyring,
};
use holdfast_storage::Local;

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

const PAGE: usize = 8192;
/// Pages of a file: 1 GiB, as PostgreSQL cuts its relations.
const PAGES: u64 = (1 << 30) / PAGE as u64;
/// One page in so many changes: one in each chunk.
const CHANGED: u64 = 8;

#[tokio::main]
async fn main() -> Outcome {
    let mut arguments = std::env::args().skip(1);
    let (Some(directory), Some(gib)) = (arguments.next(), arguments.next()) else {
        return Err("usage: scattered DIRECTORY GIB".into());
    };
    let (directory, gib) = (std::path::absolute(PathBuf::from(directory))?, gib.parse::<u64>()?);
    let keyring = SharedKeyring::new(Keyring::generate().with_domain("bench"));
    let domain = keyring.current().domain_of("bench").ok_or("there is no domain")?;
    let storage = Arc::new(Local::new(directory.join("repository")));
    let repository = Repository::open_or_create(storage, keyring).await?;
    let repository = repository.with_index_cache(directory.join("indexes"));

    let first = back_up(&repository, domain, None, gib).await?;
    back_up(&repository, domain, Some(first), gib).await?;
    Ok(())
}

async fn back_up(repository: &Repository, domain: DomainId, parent: Option<BackupId>, gib: u64) -> Outcome<BackupId> {
    // From here on the highest counts.
    std::fs::write("/proc/self/clear_refs", "5")?;
    let began = Instant::now();
    let compression = Compression::default();
    let plan = BackupPlan { backup: BackupId::random(), domain, parent, component: None, started_ms: 1, compression };
    let backup = plan.backup;
    let writer = repository.begin_backup(plan).await?;
    for file in 0..gib {
        let (kind, annotations) = (EntryKind::File, BTreeMap::new());
        let entry = Entry { path: format!("base/{file}"), kind, size: None, mode: 0o600, modified: 0, annotations };
        let mut entry = writer.begin_entry(entry, ContentClass::Pages(PAGE as u32)).await?;
        let mut page = [0; PAGE];
        for number in file * PAGES..(file + 1) * PAGES {
            fill(&mut page, number, parent.is_some() && number % CHANGED == 0);
            entry.write(&page).await?;
        }
        entry.finish().await?;
    }
    let record = writer.commit(record(), "{}".into()).await?;
    let what = if parent.is_some() { "scattered update" } else { "first backup" };
    println!(
        "{what} of {gib} GiB: {:.0} MB at the peak, {:.0} MB stored, {:.0} s",
        peak_bytes()? as f64 / 1e6,
        record.stored_bytes as f64 / 1e6,
        began.elapsed().as_secs_f64()
    );
    Ok(backup)
}

/// Makes a page: half noise, half rows that are much alike; one of these may have changed.
fn fill(page: &mut [u8; PAGE], number: u64, has_changed: bool) {
    // A small xorshift generator: nothing secret.
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let (noise, rows) = page.split_at_mut(PAGE / 2);
    noise.as_chunks_mut().0.iter_mut().for_each(|place| *place = next());
    rows.as_chunks_mut().0.iter_mut().for_each(|place| *place = *b"another ");
    if has_changed {
        let row = usize::from(u16::from_le_bytes([next()[0], next()[1]])) % (PAGE / 2 - 64);
        rows[row..row + 64].as_chunks_mut().0.iter_mut().for_each(|place| *place = next());
    }
}

/// The highest that the process reached.
fn peak_bytes() -> Outcome<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("there is no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

fn record() -> BackupRecord {
    BackupRecord {
        instance_name: "pages".into(),
        name: "pages".into(),
        engine: "pages".into(),
        ..BackupRecord::new(BackupId([0; 16]), InstanceId([1; 16]), 1)
    }
}
