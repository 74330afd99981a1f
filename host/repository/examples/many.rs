//! A repository of many tiny backups, and how long it takes to make it, to rotate its keys and to read it: what no test waits for.
//!
//!     cargo run --release -p holdfast-repository --example many -- DIRECTORY BACKUPS
//!
//! The directory must be absent or empty. The repository is `DIRECTORY/repository`, its recovery kit `DIRECTORY/kit`, so that
//! `holdfast recover` can be tried on it. Each backup is one of ten instances' and has one file of 600 bytes.

#![allow(clippy::print_stdout)] // Its figures are what it is for.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

use holdfast_repository::{
    BackupId, BackupPlan, BackupRecord, Compression, ContentClass, DomainId, Entry, EntryKind, InstanceId, Keyring,
    RecoveryKit, Repository, SharedKeyring, recover_keyring,
};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Instances that the backups are of.
const INSTANCES: u64 = 10;

#[tokio::main]
async fn main() -> Outcome {
    let mut arguments = std::env::args().skip(1);
    let (Some(directory), Some(count)) = (arguments.next(), arguments.next()) else {
        return Err("usage: many DIRECTORY BACKUPS".into());
    };
    let (directory, count) = (std::path::absolute(PathBuf::from(directory))?, count.parse::<u64>()?);
    std::fs::create_dir_all(&directory)?;
    let url = format!("file://{}", directory.join("repository").display());
    let storage = holdfast_storage::open(&url, &Default::default())?;

    let mut kit = RecoveryKit::generate();
    let keyring = Keyring::generate().with_domain("acme").with_recipient("alice", &kit.recipient(), 1)?;
    kit.pin(keyring.repository(), keyring.verify_key(), vec![format!("here {url}")]);
    std::fs::write(directory.join("kit"), kit.to_text().as_bytes())?;
    let domain = keyring.domain_of("acme").ok_or("no domain")?;
    let keyring = SharedKeyring::new(keyring);
    let repository = Repository::open_or_create(storage.clone(), keyring.clone()).await?;

    let began = Instant::now();
    for number in 0..count {
        back_up(&repository, domain, number).await?;
    }
    told("backups made", count, began);

    let current = keyring.current();
    keyring.replace(current.with_new_organization_keys(&current.domains()));
    let began = Instant::now();
    let seen = repository.rewrap(domain, None, &|_, _| {}).await?;
    told("backups rewrapped", seen.rewrapped, began);
    let began = Instant::now();
    let seen = repository.rewrap(domain, None, &|_, _| {}).await?;
    told("backups looked at again", seen.backups, began);
    repository.retire_former_keyrings().await?;

    let began = Instant::now();
    let recovered = SharedKeyring::new(recover_keyring(storage.clone(), &kit, false).await?);
    let reborn = Repository::open_read_only(storage, recovered).await?;
    told("backups found by their heads", reborn.backups(domain).await?.len() as u64, began);
    Ok(())
}

fn told(what: &str, count: u64, began: Instant) {
    println!("{count} {what} in {:.2} s", began.elapsed().as_secs_f64());
}

async fn back_up(repository: &Repository, domain: DomainId, number: u64) -> Outcome {
    let plan = BackupPlan {
        backup: BackupId::random(),
        domain,
        parent: None,
        component: None,
        started_ms: 1_700_000_000_000 + number,
        compression: Compression::default(),
    };
    let writer = repository.begin_backup(plan).await?;
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
