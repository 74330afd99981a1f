//! A repository of many tiny backups, and how long it takes to make it, to open it, to rotate its keys and to recover it: what no test
//! waits for.
//!
//!     cargo run --release -p holdfast-repository --example many -- DIRECTORY BACKUPS [ORGANIZATIONS]
//!     cargo run --release -p holdfast-repository --example many -- DIRECTORY
//!
//! The first makes one in a directory that is absent or empty. The backups are of one organization, or of so many in turn; each is one of
//! ten instances' and has one file of 600 bytes. The repository is `DIRECTORY/repository`, its recovery kit `DIRECTORY/kit`, so that
//! `holdfast recover` can be tried on it. The second opens what lies there several times, and writes nothing.

#![allow(clippy::print_stdout)] // Its figures are what it is for.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use holdfast_repository::{
    BackupId, BackupPlan, BackupRecord, BackupWriter, Compression, ContentClass, DomainId, Entry, EntryKind,
    InstanceId, Keyring, RecoveryKit, Repository, SharedKeyring, recover_keyring,
};
use holdfast_storage::Storage;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Instances that the backups are of.
const INSTANCES: u64 = 10;
/// How often it is opened, to tell the median.
const OPENINGS: usize = 9;

#[tokio::main]
async fn main() -> Outcome {
    let mut arguments = std::env::args().skip(1);
    let Some(directory) = arguments.next() else {
        return Err("usage: many DIRECTORY [BACKUPS [ORGANIZATIONS]]".into());
    };
    let directory = std::path::absolute(PathBuf::from(directory))?;
    let url = format!("file://{}", directory.join("repository").display());
    let Some(count) = arguments.next() else {
        let kit = RecoveryKit::parse(&std::fs::read_to_string(directory.join("kit"))?)?;
        return open_again(&holdfast_storage::open(&url, &Default::default())?, &kit).await;
    };
    let organizations = arguments.next().map_or(Ok(1), |text| text.parse::<u64>())?;
    std::fs::create_dir_all(&directory)?;
    let storage = holdfast_storage::open(&url, &Default::default())?;

    let mut kit = RecoveryKit::generate();
    let names: Vec<String> = (0..organizations).map(|number| format!("acme{number}")).collect();
    let keyring = names.iter().fold(Keyring::generate(), |keyring, name| keyring.with_domain(name));
    let keyring = keyring.with_recipient("alice", &kit.recipient(), 1)?;
    kit.pin(keyring.repository(), keyring.verify_key(), vec![format!("here {url}")]);
    std::fs::write(directory.join("kit"), kit.to_text().as_bytes())?;
    let domains: Vec<DomainId> = names.iter().filter_map(|name| keyring.domain_of(name)).collect();
    let keyring = SharedKeyring::new(keyring);
    let repository = Repository::open_or_create(storage.clone(), keyring.clone()).await?;
    let repository = repository.with_index_cache(directory.join("indexes"));

    make(&repository, &domains, count.parse()?).await?;
    drop(repository);
    open_again(&storage, &kit).await?;
    let repository = Repository::open_existing(storage.clone(), keyring.clone()).await?;
    let repository = repository.with_index_cache(directory.join("indexes"));
    let began = Instant::now();
    drop(begin(&repository, domains[0], count.parse()?).await?);
    told("first backup begun", 1, began);
    rotate(&repository, &keyring, &domains).await
}

async fn make(repository: &Repository, domains: &[DomainId], count: u64) -> Outcome {
    let began = Instant::now();
    for (number, domain) in (0..count).zip(domains.iter().cycle()) {
        finish(begin(repository, *domain, number).await?, number).await?;
    }
    told("backups made", count, began);
    Ok(())
}

/// Finds the keyring and opens the repository as a new appliance does, several times.
async fn open_again(storage: &Arc<dyn Storage>, kit: &RecoveryKit) -> Outcome {
    let (mut opened, mut listed) = (Vec::new(), Vec::new());
    let mut count = 0;
    for opening in 0..OPENINGS {
        let keyring = SharedKeyring::new(recover_keyring(Arc::clone(storage), kit, false).await?);
        let began = Instant::now();
        let repository = Repository::open_read_only(Arc::clone(storage), keyring.clone()).await?;
        opened.push(began.elapsed());
        if opening == 0 {
            println!("memory at its highest: {}", memory_peak()?);
        }
        let began = Instant::now();
        count = 0;
        for domain in keyring.current().domains() {
            count += repository.backups(domain).await?.len();
        }
        listed.push(began.elapsed());
    }
    for (what, mut times) in [("opened", opened), ("listed", listed)] {
        times.sort_unstable();
        let (least, median, most) = (times[0], times[OPENINGS / 2], times[OPENINGS - 1]);
        println!("{count} backups {what} in {median:.2?} (median of {OPENINGS}, from {least:.2?} to {most:.2?})");
    }
    Ok(())
}

/// What the kernel says of this process.
fn memory_peak() -> Outcome<String> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    Ok(peak.ok_or("the kernel does not tell it")?.trim().to_owned())
}

async fn rotate(repository: &Repository, keyring: &SharedKeyring, domains: &[DomainId]) -> Outcome {
    let current = keyring.current();
    keyring.replace(current.with_new_organization_keys(&current.domains()));
    let began = Instant::now();
    let mut rewrapped = 0;
    for domain in domains {
        rewrapped += repository.rewrap(*domain, None, &|_, _| {}).await?.rewrapped;
    }
    told("backups rewrapped", rewrapped, began);
    let began = Instant::now();
    let mut seen = 0;
    for domain in domains {
        seen += repository.rewrap(*domain, None, &|_, _| {}).await?.backups;
    }
    told("backups looked at again", seen, began);
    repository.retire_former_keyrings().await?;
    Ok(())
}

fn told(what: &str, count: u64, began: Instant) {
    println!("{count} {what} in {:.2} s", began.elapsed().as_secs_f64());
}

async fn begin(repository: &Repository, domain: DomainId, number: u64) -> Outcome<BackupWriter> {
    let plan = BackupPlan {
        backup: BackupId::random(),
        domain,
        parent: None,
        component: None,
        started_ms: 1_700_000_000_000 + number,
        compression: Compression::default(),
    };
    Ok(repository.begin_backup(plan).await?)
}

async fn finish(writer: BackupWriter, number: u64) -> Outcome {
    let entry = Entry {
        path: "file".into(),
        kind: EntryKind::File,
        size: None,
        mode: 0o600,
        modified: 0,
        annotations: BTreeMap::new(),
    };
    let mut content = writer.begin_entry(entry, ContentClass::Bytes).await?;
    content.write(number.to_string().repeat(600).as_bytes().get(..600).unwrap_or_default()).await?;
    content.finish().await?;
    writer.commit(record(number), r#"{"entries":1,"bytes":600}"#.into()).await?;
    Ok(())
}

fn record(number: u64) -> BackupRecord {
    let instance = number % INSTANCES;
    let mut id = [0; 16];
    id[0] = instance as u8 + 1;
    BackupRecord {
        organization: "acme".into(),
        project: "shop".into(),
        instance_name: format!("pg{instance}"),
        name: format!("{number:014}"),
        engine: "postgres".into(),
        method: "basebackup".into(),
        plugin: "postgres@0.1.0".into(),
        site: "here".into(),
        ..BackupRecord::new(BackupId([0; 16]), InstanceId(id), 1_700_000_000_000 + number)
    }
}
