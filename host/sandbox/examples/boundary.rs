//! What the border between host and guest costs: the times of a guest beside those of native code that does the same.
//! `cargo xtask bench sandbox` runs it and judges; it prints seconds, a JSON array for each measurement, one item a round.
//!
//! What is compared, and with what:
//! - `transfer`: all that one socket sends, to another socket, 64 KiB at a time. Native: the same loop over tokio, on a runtime
//!   of one thread, which is what a guest has. Both ends are threads of ours that make and drop the bytes.
//! - `rows`: a COPY from PostgreSQL, taken apart row by row and written to an entry. Every chunk of it is known to the
//!   repository from a run before: nothing is compressed, sealed or stored, so that what remains beside the server's own work is
//!   the border's and one hash. Native: `psql`, whose output goes to `/dev/null`. Both use the same Unix socket.
//! - `start`: a runtime that finds the compiled plugin in its cache, to the plugin's description of itself.
#![allow(clippy::print_stdout)] // The result is for the program that ran us.

use std::env;
use std::error::Error;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use holdfast_repository::{
    BackupId, BackupPlan, BackupRecord, BackupWriter, Compression, DomainId, InstanceId, Keyring, Repository,
    SharedKeyring,
};
use holdfast_sandbox::{
    Author, Call, Compiler, Events, Grants, Limits, Member, Plugin, Runtime, RuntimeOptions, TlsMode, TlsPolicy, Watch,
};
use holdfast_storage::Local;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What one piece has in every loop here: the most that a guest may carry in a call.
const PIECE: usize = 64 << 10;

/// What is asked for, in the order of the arguments.
struct Arguments {
    /// The component that moves bytes.
    guest: PathBuf,
    /// The component whose start is measured.
    plugin: PathBuf,
    rounds: usize,
    /// Bytes of a transfer.
    transfer: u64,
    /// The server's Unix socket.
    socket: PathBuf,
    /// The COPY.
    query: String,
    /// `psql` with all it needs to run the same COPY.
    psql: Vec<String>,
}

impl Arguments {
    fn parse() -> Option<Self> {
        let mut words = env::args().skip(1);
        Some(Self {
            guest: words.next()?.into(),
            plugin: words.next()?.into(),
            rounds: words.next()?.parse().ok()?,
            transfer: words.next()?.parse().ok()?,
            socket: words.next()?.into(),
            query: words.next()?,
            psql: words.collect(),
        })
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse().ok_or("this is run by `cargo xtask bench sandbox`")?;
    let directory = tempfile::tempdir()?;
    let cache = directory.path().join("cache");
    let guest = runtime(&cache)?.load(fs::read(&arguments.guest)?.into(), Author::Ours).await?;
    let store = Store::new(&directory.path().join("repository")).await?;
    let plugin: Arc<[u8]> = fs::read(&arguments.plugin)?.into();
    runtime(&cache)?.load(plugin.clone(), Author::Ours).await?;
    // From now on every chunk is known.
    let backup = BackupId::random();
    let (_, writer) = rows_by_guest(backup, &guest, &store, &arguments).await?;
    writer.commit(BackupRecord::new(backup, InstanceId::random(), 1), "{}".to_owned()).await?;

    let (mut transfer, mut rows, mut start) = (Pairs::default(), Pairs::default(), Vec::new());
    for _ in 0..arguments.rounds {
        transfer.native.push(transfer_natively(arguments.transfer)?);
        transfer.guest.push(transfer_by_guest(&guest, arguments.transfer).await?);
        rows.native.push(rows_by_psql(&arguments)?);
        rows.guest.push(rows_by_guest(BackupId::random(), &guest, &store, &arguments).await?.0);
        start.push(start_of(&cache, plugin.clone()).await?);
    }
    println!("{}", json!({ "transfer": transfer.json(), "rows": rows.json(), "start": seconds(&start) }));
    Ok(())
}

/// Times of the same work on both sides of the border.
#[derive(Default)]
struct Pairs {
    native: Vec<Duration>,
    guest: Vec<Duration>,
}

impl Pairs {
    fn json(&self) -> Value {
        json!({ "native": seconds(&self.native), "guest": seconds(&self.guest) })
    }
}

fn seconds(times: &[Duration]) -> Vec<f64> {
    times.iter().map(Duration::as_secs_f64).collect()
}

fn runtime(cache: &Path) -> Result<Runtime> {
    let options = RuntimeOptions {
        cache_directory: cache.to_owned(),
        cache_key: [1; 32],
        limits: Limits::default(),
        compiler: Compiler::Here,
    };
    Ok(Runtime::new(options)?)
}

async fn start_of(cache: &Path, plugin: Arc<[u8]>) -> Result<Duration> {
    let begun = Instant::now();
    runtime(cache)?.load(plugin, Author::Ours).await?;
    Ok(begun.elapsed())
}

/// Nobody listens.
struct Silence;

impl Events for Silence {
    fn log(&self, _level: &str, _message: &str) {}
    fn progress(&self, _phase: &str, _done: u64, _total: Option<u64>, _unit: &str) {}
}

async fn dump(guest: &Plugin, method: &str, grants: Grants) -> Result<Value> {
    let request = json!({ "method": method, "type": "full", "job": "bench" });
    let watch = Watch { events: Arc::new(Silence), cancel: CancellationToken::new() };
    Ok(guest.run(Call::Dump(request), grants, watch).await?)
}

/// A server that sends so many bytes, and one that takes all it gets and says how many there were.
struct Ends {
    from: SocketAddr,
    to: SocketAddr,
    sender: JoinHandle<std::io::Result<()>>,
    receiver: JoinHandle<std::io::Result<u64>>,
}

impl Ends {
    fn new(bytes: u64) -> Result<Self> {
        let (sending, receiving) =
            (TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?, TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?);
        let (from, to) = (sending.local_addr()?, receiving.local_addr()?);
        let sender = thread::spawn(move || {
            let (mut stream, _) = sending.accept()?;
            let piece = vec![7; PIECE];
            for _ in 0..bytes / PIECE as u64 {
                stream.write_all(&piece)?;
            }
            Ok(())
        });
        let receiver = thread::spawn(move || {
            let (mut stream, _) = receiving.accept()?;
            let (mut piece, mut total) = (vec![0; PIECE], 0);
            loop {
                match stream.read(&mut piece)? {
                    0 => return Ok(total),
                    count => total += count as u64,
                }
            }
        });
        Ok(Self { from, to, sender, receiver })
    }

    /// Fails unless all of it arrived.
    fn must_have_moved(self, bytes: u64) -> Result<()> {
        let ended = |_| "a thread of the measurement panicked";
        self.sender.join().map_err(ended)??;
        let received = self.receiver.join().map_err(ended)??;
        if received == bytes { Ok(()) } else { Err(format!("{received} of {bytes} bytes arrived").into()) }
    }
}

async fn transfer_by_guest(guest: &Plugin, bytes: u64) -> Result<Duration> {
    let ends = Ends::new(bytes)?;
    let member = |address: SocketAddr| Member::Tcp { host: address.ip().to_string(), port: address.port() };
    let grants = Grants { members: vec![member(ends.from), member(ends.to)], ..plain() };
    let begun = Instant::now();
    dump(guest, "transfer", grants).await?;
    ends.must_have_moved(bytes)?;
    Ok(begun.elapsed())
}

fn transfer_natively(bytes: u64) -> Result<Duration> {
    let ends = Ends::new(bytes)?;
    let begun = Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (from, to) = (ends.from, ends.to);
    // A thread of its own, as a guest has.
    let mover = thread::spawn(move || runtime.block_on(move_all(from, to)));
    mover.join().map_err(|_| "a thread of the measurement panicked")??;
    ends.must_have_moved(bytes)?;
    Ok(begun.elapsed())
}

async fn move_all(from: SocketAddr, to: SocketAddr) -> std::io::Result<()> {
    let (mut source, mut sink) = (TcpStream::connect(from).await?, TcpStream::connect(to).await?);
    let mut piece = vec![0; PIECE];
    loop {
        match source.read(&mut piece).await? {
            0 => return sink.shutdown().await,
            count => sink.write_all(&piece[..count]).await?,
        }
    }
}

fn plain() -> Grants {
    Grants { tls: TlsPolicy { mode: TlsMode::Off, ..TlsPolicy::default() }, ..Grants::default() }
}

/// A repository on disk.
struct Store {
    repository: Repository,
    domain: DomainId,
}

impl Store {
    async fn new(path: &Path) -> Result<Self> {
        let keyring = Keyring::generate().with_domain("bench");
        let domain = keyring.domain_of("bench").ok_or("the domain was just made")?;
        let storage = Arc::new(Local::new(path));
        let repository = Repository::open_or_create(storage, SharedKeyring::new(keyring)).await?;
        Ok(Self { repository, domain })
    }
}

/// The writer that comes with the time leaves nothing behind unless it is committed.
async fn rows_by_guest(
    backup: BackupId,
    guest: &Plugin,
    store: &Store,
    arguments: &Arguments,
) -> Result<(Duration, BackupWriter)> {
    let plan = BackupPlan {
        backup,
        domain: store.domain,
        parent: None,
        component: None,
        started_ms: 1,
        compression: Compression::default(),
    };
    let writer = Arc::new(store.repository.begin_backup(plan).await?);
    let grants = Grants {
        members: vec![Member::Unix(arguments.socket.clone())],
        settings: [("query".to_owned(), arguments.query.clone())].into(),
        writer: Some(writer.clone()),
        ..plain()
    };
    let begun = Instant::now();
    dump(guest, "rows", grants).await?;
    let elapsed = begun.elapsed();
    Ok((elapsed, Arc::into_inner(writer).ok_or("the guest's run kept its writer")?))
}

fn rows_by_psql(arguments: &Arguments) -> Result<Duration> {
    let (program, words) = arguments.psql.split_first().ok_or("there is no psql to compare with")?;
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null());
    let begun = Instant::now();
    let status = command.status()?;
    if !status.success() {
        return Err(format!("psql: {status}").into());
    }
    Ok(begun.elapsed())
}
