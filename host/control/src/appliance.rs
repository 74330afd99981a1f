//! The appliance's state, and how it starts: data directory, keys, catalog, plugins, primary target, healing, queue.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use holdfast_catalog::{Catalog, TargetRow};
use holdfast_repository::{Compression, Keyring, Repository, SharedKeyring, UnlockKey, WriterId};
use holdfast_sandbox::{Compiler, Limits, RuntimeOptions};
use tokio::sync::OnceCell;

use crate::data_dir::DataDir;
use crate::jobs::Queue;
use crate::jobs::scrub::ScrubDays;
use crate::plugins::Plugins;
use crate::policies::Said;
use crate::unlock::{self, Unlocking};
use crate::{Appliance, Error, ErrorKind, clock, rollback, targets, tokens};

/// How an appliance starts.
#[derive(Clone, Debug)]
pub struct Options {
    /// The appliance's own directory; made where it is absent.
    pub data_dir: PathBuf,
    /// How the keyring is opened.
    pub unlocking: Unlocking,
    /// Components that came with the binary.
    pub components: Vec<Arc<[u8]>>,
    /// `[repository] url`; `file://DATA-DIR/repository` by default.
    pub primary_url: Option<String>,
    /// `[repository] site`; `local` by default.
    pub primary_site: Option<String>,
    /// Jobs of one lane that run side by side.
    pub workers: usize,
    /// Bounds on every run of a plugin.
    pub limits: Limits,
    /// Where plugins are compiled.
    pub compiler: Compiler,
    /// How hard backups are compressed.
    pub compression: Compression,
    /// In how many days every byte is read.
    pub scrub: ScrubDays,
}

/// What all operations and jobs share.
pub(crate) struct State {
    pub(crate) data: DataDir,
    pub(crate) catalog: Catalog,
    pub(crate) keyring: SharedKeyring,
    pub(crate) unlock: UnlockKey,
    /// Held while the keyring changes: a generation follows the one before.
    keyring_change: tokio::sync::Mutex<()>,
    pub(crate) plugins: Plugins,
    pub(crate) compression: Compression,
    pub(crate) scrub: ScrubDays,
    repositories: Mutex<HashMap<String, Arc<OnceCell<Repository>>>>,
    /// What keeps backups, for the next page of a list.
    pub(crate) said: Mutex<Said>,
    pub(crate) queue: Queue,
    /// Targets that somebody wants to be copied to outside of their window too, by uid.
    pub(crate) hurried: Mutex<BTreeSet<String>>,
    /// Shared by everything that reads or writes at a target, and taken alone by who deletes at once.
    pub(crate) at_work: tokio::sync::RwLock<()>,
    /// Names this appliance in the heads that it writes, over restarts.
    pub(crate) writer: WriterId,
    recovered: AtomicBool,
    /// Changes of the catalog that heads do not hold: how many there were, and how many of them an export holds.
    pub(crate) changes: AtomicU64,
    pub(crate) exported_changes: AtomicU64,
}

/// Meta key: `ready`, or `recovered` until a take over.
pub(crate) const MODE: &str = "mode";
/// The value of [`MODE`] that forbids writing to any target.
pub(crate) const RECOVERED: &str = "recovered";
/// Meta key: the highest epoch that this appliance writes in, decimal. It survives restarts: a target that is ahead of it has another writer.
const EPOCH: &str = "epoch";

/// Meta key: the id under which this appliance writes heads, hexadecimal.
const WRITER: &str = "writer";

impl Appliance {
    /// Opens the data directory (making keys, catalog, primary and admin token at first start), heals what a crash left, starts the queue.
    /// The admin token is written to `DATA-DIR/admin-token` (0600) once.
    pub async fn start(options: Options) -> Result<Self, Error> {
        let state = open(options).await?;
        crate::jobs::start(&state);
        Ok(Self(state))
    }

    /// Stops taking jobs and cancels running ones; they are healed at the next start.
    pub async fn stop(&self) {
        self.0.queue.stop().await;
    }

    /// Told whenever something in the catalog changed: for server-sent events and for waiting.
    pub fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.0.catalog.changes()
    }
}

/// All that an appliance is, with nothing running yet.
pub(crate) async fn open(options: Options) -> Result<Arc<State>, Error> {
    let data = DataDir::open(&options.data_dir)?;
    let (data, keyring, unlock) = keyring(data, options.unlocking).await?;
    let catalog = Catalog::open(&data.catalog()).await?;
    let runtime = RuntimeOptions {
        cache_directory: data.compiled_code(),
        cache_key: keyring.derive("compiled code"),
        limits: options.limits,
        compiler: options.compiler,
    };
    let plugins = Plugins::load(runtime, &options.components).await?;
    plugins.load_installed(&data, catalog.plugins().await?).await?;
    let recovered = catalog.meta(MODE).await?.is_some_and(|mode| mode == RECOVERED.as_bytes());
    let writer = own_writer(&catalog).await?;
    let state = Arc::new(State {
        data,
        catalog,
        keyring: SharedKeyring::new(keyring),
        unlock,
        keyring_change: tokio::sync::Mutex::new(()),
        plugins,
        compression: options.compression,
        scrub: options.scrub,
        repositories: Mutex::default(),
        said: Mutex::default(),
        queue: Queue::new(options.workers),
        hurried: Mutex::default(),
        at_work: tokio::sync::RwLock::default(),
        writer,
        recovered: AtomicBool::new(recovered),
        // What was changed before this start may be in no export.
        changes: AtomicU64::new(1),
        exported_changes: AtomicU64::new(0),
    });
    tokens::ensure_admin(&state).await?;
    targets::ensure_primary(&state, options.primary_url.as_deref(), options.primary_site.as_deref()).await?;
    crate::jobs::heal(&state).await?;
    Ok(state)
}

/// The keyring of a data directory, made at the first start. Asking for a passphrase and stretching it takes its time.
async fn keyring(data: DataDir, unlocking: Unlocking) -> Result<(DataDir, Keyring, UnlockKey), Error> {
    let opened = tokio::task::spawn_blocking(move || {
        if data.has_keyring() {
            let (keyring, unlock) = unlock::open(&data, &unlocking)?;
            return Ok((data, keyring, unlock));
        }
        if data.catalog().exists() {
            return Err(Error::conflict("keyring-missing", "the data directory has a catalog and no keyring").hint(
                "Put the keyring file back, or recover into a new directory from a target with the recovery kit.",
            ));
        }
        let (keyring, unlock) = (Keyring::generate(), unlock::begin(&data, &unlocking)?);
        data.write_keyring(&keyring, &unlock)?;
        Ok((data, keyring, unlock))
    });
    opened.await.map_err(|_| Error::new(ErrorKind::Internal, "stopped", "opening the keyring was cut off"))?
}

impl State {
    /// Whether this appliance was born again and has not taken over: it writes to no target.
    pub(crate) fn is_recovered(&self) -> bool {
        self.recovered.load(Ordering::Acquire)
    }

    /// Refuses what a recovered appliance must not do.
    pub(crate) fn must_be_writer(&self, what: &str) -> Result<(), Error> {
        if !self.is_recovered() {
            return Ok(());
        }
        let repository = self.keyring.current().repository();
        Err(Error::conflict(
            "recovered-read-only",
            format!("{what} is not possible before this recovered appliance has taken over"),
        )
        .hint(format!("If the former appliance is gone for good, run: holdfast takeover --confirm {repository}")))
    }

    /// Ends the recovered mode, once every target knows the new writer.
    pub(crate) async fn become_writer(&self, epoch: u64) -> Result<(), Error> {
        self.catalog.set_meta(EPOCH, epoch.to_string().as_bytes()).await?;
        self.catalog.set_meta(MODE, b"ready").await?;
        self.recovered.store(false, Ordering::Release);
        // Opened again, for writing.
        self.repositories.lock().unwrap_or_else(PoisonError::into_inner).clear();
        Ok(())
    }

    /// The repository at a target, opened at first use; read-only while this appliance is recovered.
    pub(crate) async fn repository(&self, target: &TargetRow) -> Result<Repository, Error> {
        let cell = self
            .repositories
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(target.uid.clone())
            .or_default()
            .clone();
        Ok(cell.get_or_try_init(|| self.open_repository(target)).await?.clone())
    }

    /// The same, opened anew: for a target whose row is not recorded yet.
    pub(crate) async fn open_repository(&self, target: &TargetRow) -> Result<Repository, Error> {
        let (storage, keyring) = (targets::storage(target, &self.keyring.current())?, self.keyring.clone());
        if self.is_recovered() {
            let repository = Repository::open_read_only(storage, keyring).await?;
            return Ok(repository.with_index_cache(self.data.index_cache(&target.uid)));
        }
        if targets::counts(self, target).await?.durable == 0 {
            return self.must_be_newest(target, Repository::open_or_create(storage, keyring).await?).await;
        }
        // An empty place where backups are known to lie is a loss, or a disk that is not mounted: never a place to begin anew.
        let repository = Repository::open_existing(storage, keyring).await.map_err(|error| match Error::from(error) {
            error if error.code == "no-repository" => Error::unprocessable("target-lost", format!("the target {} is empty, and backups are known to lie there", target.name))
                .hint("Mount its file system or restore its directory. If it is lost for good, recover into a new data directory from another target."),
            error => error,
        })?;
        self.must_be_newest(target, repository).await
    }

    /// Refuses a target that another appliance has taken over.
    async fn must_be_newest(&self, target: &TargetRow, repository: Repository) -> Result<Repository, Error> {
        let found = newest_epoch(&repository).await?;
        let own =
            self.catalog.meta(EPOCH).await?.and_then(|text| std::str::from_utf8(&text).ok()?.parse().ok()).unwrap_or(0);
        if found <= own {
            rollback::must_hold_all(self, target, &repository).await?;
            let repository = repository.with_writer(self.writer);
            return Ok(repository.with_index_cache(self.data.index_cache(&target.uid)));
        }
        Err(Error::conflict("superseded", format!("another appliance has taken the target {} over (epoch {found}, ours is {own})", target.name))
            .hint("Stop this appliance. If it shall be the writer again, recover into a new data directory and take over there."))
    }

    /// The repositories that are open now.
    pub(crate) fn open_repositories(&self) -> Vec<Repository> {
        let repositories = self.repositories.lock().unwrap_or_else(PoisonError::into_inner);
        repositories.values().filter_map(|cell| cell.get().cloned()).collect()
    }

    /// Forgets an open repository, after its target changed or went.
    pub(crate) fn forget_repository(&self, target_uid: &str) {
        self.repositories.lock().unwrap_or_else(PoisonError::into_inner).remove(target_uid);
    }

    /// Replaces the keyring by what `change` makes of it. Durable here before anything is sealed with it.
    pub(crate) async fn change_keyring(
        &self,
        change: impl FnOnce(&Keyring) -> Result<Option<Keyring>, Error>,
    ) -> Result<(), Error> {
        let _guard = self.keyring_change.lock().await;
        if let Some(next) = change(&self.keyring.current())? {
            self.data.write_keyring(&next, &self.unlock)?;
            self.keyring.replace(next);
        }
        Ok(())
    }

    /// The domain of an organization, made at its first backup.
    pub(crate) async fn domain(&self, organization: &str) -> Result<holdfast_repository::DomainId, Error> {
        self.change_keyring(|keyring| {
            Ok(keyring.domain_of(organization).is_none().then(|| keyring.with_domain(organization)))
        })
        .await?;
        self.keyring.current().domain_of(organization).ok_or_else(|| {
            Error::new(
                crate::ErrorKind::Internal,
                "no-domain",
                format!("the keyring has no domain for '{organization}'"),
            )
        })
    }

    /// Writes an audit row.
    pub(crate) async fn audit(&self, who: &crate::Principal, action: &str, subject: &str) -> Result<(), Error> {
        Ok(self.catalog.audit(clock::now_ms(), &who.name, action, subject, "").await?)
    }
}

/// The id under which this appliance writes. An export does not hold it: who is born again is another writer.
async fn own_writer(catalog: &Catalog) -> Result<WriterId, Error> {
    let kept = catalog.meta(WRITER).await?.and_then(|text| std::str::from_utf8(&text).ok()?.parse().ok());
    if let Some(writer) = kept {
        return Ok(writer);
    }
    let writer = WriterId::random();
    catalog.set_meta(WRITER, writer.to_string().as_bytes()).await?;
    Ok(writer)
}

/// The highest epoch that a target's heads know.
pub(crate) async fn newest_epoch(repository: &Repository) -> Result<u64, Error> {
    Ok(repository.newest_heads().await?.iter().map(|head| head.epoch).max().unwrap_or(0))
}
