//! What a backup takes of memory while it is written, and what reading it costs: a first one of made-up pages, and one for each of some
//! days on which a row changed in every second page.
//!
//!     cargo run --release -p holdfast-repository --example scattered -- DIRECTORY GIB [DAYS]
//!
//! The directory must be absent or empty. The pages are made as they are needed; half of each is noise. Memory is that of the whole process,
//! by what the system counts, the highest while each backup ran. Reading opens all chunks of the first and of the last backup in turn and
//! keeps nothing: its cost is the CPU time of the process.

#![allow(clippy::print_stdout)] // Its figures are what it is for.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use holdfast_repository::{
    BackupId, BackupPlan, BackupRecord, Compression, ContentClass, DomainId, Entry, EntryKind, InstanceId, Keyring,
    Opener, Repository, SharedKeyring,
};
use holdfast_storage::Local;

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

const PAGE: usize = 8192;
/// Pages of a file: 1 GiB, as PostgreSQL cuts its relations.
const PAGES: u64 = (1 << 30) / PAGE as u64;
/// Bytes that are read at once.
const PART: u64 = 4 << 20;
/// How often each backup is read; the least counts.
const ROUNDS: usize = 5;

#[tokio::main]
async fn main() -> Outcome {
    let mut arguments = std::env::args().skip(1);
    let (Some(directory), Some(gib)) = (arguments.next(), arguments.next()) else {
        return Err("usage: scattered DIRECTORY GIB [DAYS]".into());
    };
    let days = arguments.next().map_or(Ok(1), |days| days.parse::<u64>())?;
    let (directory, gib) = (std::path::absolute(PathBuf::from(directory))?, gib.parse::<u64>()?);
    let keyring = SharedKeyring::new(Keyring::generate().with_domain("bench"));
    let domain = keyring.current().domain_of("bench").ok_or("there is no domain")?;
    let storage = Arc::new(Local::new(directory.join("repository")));
    let repository = Repository::open_or_create(storage, keyring).await?;
    let repository = repository.with_index_cache(directory.join("indexes"));

    let first = back_up(&repository, domain, None, gib, 0).await?;
    let mut last = first;
    for day in 1..=days {
        last = back_up(&repository, domain, Some(last), gib, day).await?;
    }
    let mut least = [f64::MAX; 2];
    for _ in 0..ROUNDS {
        for (least, backup) in least.iter_mut().zip([first, last]) {
            *least = least.min(read(&repository, domain, backup).await?);
        }
    }
    let [first, last] = least;
    println!("reading: {first:.2} s of CPU the first, {last:.2} s the last, {:.2}x", last / first);
    Ok(())
}

async fn back_up(
    repository: &Repository,
    domain: DomainId,
    parent: Option<BackupId>,
    gib: u64,
    day: u64,
) -> Outcome<BackupId> {
    // From here on the highest counts.
    std::fs::write("/proc/self/clear_refs", "5")?;
    let began = Instant::now();
    let compression = Compression::default();
    let plan = BackupPlan { backup: BackupId::random(), domain, parent, component: None, started_ms: 1, compression };
    let backup = plan.backup;
    let writer = repository.begin_backup(plan).await?;
    for file in 0..gib {
        let (kind, annotations) = (EntryKind::File, BTreeMap::new());
        let entry = Entry { path: path(file), kind, size: None, mode: 0o600, modified: 0, annotations };
        let mut entry = writer.begin_entry(entry, ContentClass::Pages(PAGE as u32)).await?;
        let mut page = [0; PAGE];
        for number in file * PAGES..(file + 1) * PAGES {
            fill(&mut page, number, day);
            entry.write(&page).await?;
        }
        entry.finish().await?;
    }
    let record = writer.commit(record(), "{}".into()).await?;
    println!(
        "day {day} of {gib} GiB: {:.0} MB at the peak, {:.0} MB stored, {:.0} s",
        peak_bytes()? as f64 / 1e6,
        record.stored_bytes as f64 / 1e6,
        began.elapsed().as_secs_f64()
    );
    Ok(backup)
}

/// Opens all chunks of a backup: the seconds of CPU that the process took.
async fn read(repository: &Repository, domain: DomainId, backup: BackupId) -> Outcome<f64> {
    let began = cpu_seconds()?;
    let reader = repository.open_backup(domain, backup).await?;
    let mut opener = Opener::new()?;
    for entry in reader.entries("", "", usize::MAX).await? {
        let content = reader.entry(&entry.path).await?;
        for start in (0..content.size()).step_by(PART as usize) {
            let mut part = content.part(start..content.size().min(start + PART)).await?;
            while part.next(&mut opener).await?.is_some() {}
        }
    }
    Ok(cpu_seconds()? - began)
}

fn path(file: u64) -> String {
    format!("base/{file}")
}

/// Makes a page as it is on a day: half noise, half rows that are much alike, of which one changed on every other day.
fn fill(page: &mut [u8; PAGE], number: u64, day: u64) {
    let mut next = noise(number);
    let (noisy, rows) = page.split_at_mut(PAGE / 2);
    noisy.as_chunks_mut().0.iter_mut().for_each(|place| *place = next());
    rows.as_chunks_mut().0.iter_mut().for_each(|place| *place = *b"another ");
    for day in 1..=day {
        let mut next = noise(number ^ day << 48);
        if next()[0].is_multiple_of(2) {
            let row = usize::from(u16::from_le_bytes([next()[0], next()[1]])) % (PAGE / 2 - 64);
            rows[row..row + 64].as_chunks_mut().0.iter_mut().for_each(|place| *place = next());
        }
    }
}

/// A small xorshift generator: nothing secret.
fn noise(seed: u64) -> impl FnMut() -> [u8; 8] {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    }
}

/// CPU time of the process so far, in user mode and in the kernel.
fn cpu_seconds() -> Outcome<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |number: usize| fields.get(number).ok_or("a short stat").map(|field| field.parse::<f64>());
    // The kernel tells hundredths of seconds.
    Ok((ticks(11)?? + ticks(12)??) / 100.0)
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
