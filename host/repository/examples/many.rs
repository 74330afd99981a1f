//! A repository of many tiny backups, and how long it takes to make it, to open it, to rotate its keys and to recover it: what no test
//! waits for.
//!
//!     cargo run --release -p holdfast-repository --example many -- DIRECTORY BACKUPS [ORGANIZATIONS]
//!
//! The directory must be absent or empty. The backups are of one organization, or of so many in turn. The repository is `DIRECTORY/repository`, its recovery kit `DIRECTORY/kit`, so that
//! `holdfast recover` can be tried on it. Each backup is one of ten instances' and has one file of 600 bytes.

#![allow(clippy::print_stdout)] // Its figures are what it is for.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

use holdfast_repository::{
    BackupId, BackupPlan, BackupRecord, BackupWriter, Compression, ContentClass, DomainId, Entry, EntryKind,
    InstanceId, Keyring, RecoveryKit, Repository, SharedKeyring, recover_keyring,
};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Instances that the backups are of.
const INSTANCES: u64 = 10;

#[tokio::main]
async fn main() -> Outcome {
    let mut arguments = std::env::args().skip(1);
    let (Some(directory), Some(count)) = (arguments.next(), arguments.next()) else {
        return Err("usage: many DIRECTORY BACKUPS [ORGANIZATIONS]".into());
    };
    let organizations = arguments.next().map_or(Ok(1), |text| text.parse::<u64>())?;
    let (directory, count) = (std::path::absolute(PathBuf::from(directory))?, count.parse::<u64>()?);
    std::fs::create_dir_all(&directory)?;
    let url = format!("file://{}", directory.join("repository").display());
    let storage = holdfast_storage::open(&url, &Default::default())?;

    let mut kit = RecoveryKit::generate();
    let names: Vec<String> = (0..organizations).map(|number| format!("acme{number}")).collect();
    let keyring = names.iter().fold(Keyring::generate(), |keyring, name| keyring.with_domain(name));
    let keyring = keyring.with_recipient("alice", &kit.recipient(), 1)?;
    kit.pin(keyring.repository(), keyring.verify_key(), vec![format!("here {url}")]);
    std::fs::write(directory.join("kit"), kit.to_text().as_bytes())?;
    let domains: Vec<DomainId> = names.iter().filter_map(|name| keyring.domain_of(name)).collect();
    let keyring = SharedKeyring::new(keyring);
    let indexes = directory.join("indexes");
    let repository = Repository::open_or_create(storage.clone(), keyring.clone()).await?;
    let repository = repository.with_index_cache(indexes.clone());

    let began = Instant::now();
    for number in 0..count {
        let domain = domains[(number % organizations) as usize];
        finish(begin(&repository, domain, number).await?, number).await?;
    }
    told("backups made", count, began);
    drop(repository);

    let began = Instant::now();
    let repository = Repository::open_existing(storage.clone(), keyring.clone()).await?;
    let repository = repository.with_index_cache(indexes);
    told("backups: the repository opened", count, began);
    let began = Instant::now();
    let mut listed = 0;
    for domain in &domains {
        listed += repository.backups(*domain).await?.len() as u64;
    }
    told("backups listed", listed, began);
    let began = Instant::now();
    let writer = begin(&repository, domains[0], count).await?;
    told("first backup begun", 1, began);
    drop(writer);

    let current = keyring.current();
    keyring.replace(current.with_new_organization_keys(&current.domains()));
    let began = Instant::now();
    let mut rewrapped = 0;
    for domain in &domains {
        rewrapped += repository.rewrap(*domain, None, &|_, _| {}).await?.rewrapped;
    }
    told("backups rewrapped", rewrapped, began);
    let began = Instant::now();
    let mut seen = 0;
    for domain in &domains {
        seen += repository.rewrap(*domain, None, &|_, _| {}).await?.backups;
    }
    told("backups looked at again", seen, began);
    repository.retire_former_keyrings().await?;

    let began = Instant::now();
    let recovered = SharedKeyring::new(recover_keyring(storage.clone(), &kit, false).await?);
    let reborn = Repository::open_read_only(storage, recovered).await?;
    let mut found = 0;
    for domain in &domains {
        found += reborn.backups(*domain).await?.len() as u64;
    }
    told("backups found by their heads", found, began);
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
