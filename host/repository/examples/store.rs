//! The archive store by itself, without appliance or plugin, on a directory of files: what `cargo xtask bench repository` sets beside
//! other programs. It prints the seconds of each step as a JSON object.
//!
//! `store FILES REPOSITORY RESTORED`: a backup of all files, another one with nothing changed, a restore, a check that reads every byte.
//! Files that end in `.pages` are pages of 8 KiB, others are cut by content.
#![allow(clippy::print_stdout)] // The result is for the program that ran us.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use holdfast_repository::{
    BackupId, BackupPlan, BackupReader, BackupRecord, Compression, ContentClass, DomainId, Entry, EntryKind,
    InstanceId, Keyring, Opener, Repository, SharedKeyring,
};
use holdfast_storage::Local;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Bytes that one thread restores at once.
const PART: u64 = 4 << 20;

#[tokio::main]
async fn main() -> Result<()> {
    let paths: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [files, repository, restored] = &paths[..] else {
        return Err("usage: store FILES REPOSITORY RESTORED".into());
    };
    let keyring = SharedKeyring::new(Keyring::generate().with_domain("bench"));
    let domain = keyring.current().domain_of("bench").ok_or("there is no domain")?;
    let repository = Repository::open_or_create(Arc::new(Local::new(repository)), keyring).await?;

    let mut seconds = BTreeMap::new();
    let mut timed = |step: &'static str, begun: Instant| seconds.insert(step, begun.elapsed().as_secs_f64());
    let begun = Instant::now();
    let first = back_up(&repository, domain, None, files).await?;
    timed("new", begun);
    let begun = Instant::now();
    let second = back_up(&repository, domain, Some(first), files).await?;
    timed("known", begun);
    let begun = Instant::now();
    restore(repository.open_backup(domain, second).await?, restored).await?;
    timed("restore", begun);
    let begun = Instant::now();
    check(&repository, domain).await?;
    timed("check", begun);
    println!("{}", serde_json::to_string(&seconds)?);
    Ok(())
}

async fn back_up(
    repository: &Repository,
    domain: DomainId,
    parent: Option<BackupId>,
    files: &Path,
) -> Result<BackupId> {
    let plan = BackupPlan {
        backup: BackupId::random(),
        domain,
        parent,
        component: None,
        started_ms: 1,
        compression: Compression::default(),
    };
    let backup = plan.backup;
    let writer = repository.begin_backup(plan).await?;
    for file in fs::read_dir(files)? {
        let (path, name) = file.map(|file| (file.path(), file.file_name().to_string_lossy().into_owned()))?;
        let class = if name.ends_with(".pages") { ContentClass::Pages(8192) } else { ContentClass::Bytes };
        let (kind, annotations) = (EntryKind::File, BTreeMap::new());
        let entry = Entry { path: name, kind, size: None, mode: 0o600, modified: 0, annotations };
        let (mut entry, mut file) = (writer.begin_entry(entry, class).await?, File::open(path)?);
        loop {
            let count = file.read(entry.space())?;
            if count == 0 {
                break;
            }
            entry.advance(count).await?;
        }
        entry.finish().await?;
    }
    writer.commit(record(), "{}".into()).await?;
    Ok(backup)
}

fn record() -> BackupRecord {
    BackupRecord {
        instance_name: "files".into(),
        name: "files".into(),
        engine: "files".into(),
        ..BackupRecord::new(BackupId([0; 16]), InstanceId([1; 16]), 1)
    }
}

/// Writes all entries, on as many threads as there are cores.
async fn restore(reader: BackupReader, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    let mut parts = Vec::new();
    for entry in reader.entries("", "", usize::MAX).await? {
        let file = Arc::new(File::create(to.join(&entry.path))?);
        let size = entry.size.unwrap_or_default();
        parts.extend((0..size).step_by(PART as usize).map(|start| (entry.path.clone(), Arc::clone(&file), start)));
    }
    let (parts, next) = (Arc::new(parts), Arc::new(AtomicUsize::new(0)));
    let runtime = tokio::runtime::Handle::current();
    let threads = (0..std::thread::available_parallelism().map_or(2, usize::from)).map(|_| {
        let (parts, next, reader, runtime) = (Arc::clone(&parts), Arc::clone(&next), reader.clone(), runtime.clone());
        tokio::task::spawn_blocking(move || -> Result<()> {
            let mut opener = Opener::new()?;
            while let Some((path, file, start)) = parts.get(next.fetch_add(1, Ordering::Relaxed)) {
                runtime.block_on(write_part(&reader, path, file, *start, &mut opener))?;
            }
            Ok(())
        })
    });
    for thread in threads.collect::<Vec<_>>() {
        thread.await??;
    }
    Ok(())
}

async fn write_part(reader: &BackupReader, path: &str, file: &File, start: u64, opener: &mut Opener) -> Result<()> {
    let mut part = reader.entry(path).await?.part(start..start + PART).await?;
    let mut at = start;
    while let Some(piece) = part.next(opener).await? {
        file.write_all_at(piece, at)?;
        at += piece.len() as u64;
    }
    Ok(())
}

async fn check(repository: &Repository, domain: DomainId) -> Result<()> {
    let structure = repository.check_structure(domain, &|_, _| {}).await?;
    let read = repository.read_packs(domain, None, u64::MAX, None, &|_| {}).await?;
    if structure.damages.is_empty() && read.damages.is_empty() { Ok(()) } else { Err("something is damaged".into()) }
}
