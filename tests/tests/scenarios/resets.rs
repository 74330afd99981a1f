//! A connection that breaks at any byte never makes a backup that looks whole and is not.
//!
//! The same 500 seeds each time: a byte of what the server sends, and how the connection ends there. A backup that succeeds in spite
//! of it is restored, and its files are compared with those of the server, byte by byte.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use holdfast_tests::cluster::Blueprint;
use holdfast_tests::proxy::{Fault, Proxy};
use holdfast_tests::{Failure, Result, ensure};

use crate::setting::Setting;

const SEEDS: u64 = 500;

/// Instances of the same server, each behind a proxy of its own, that are backed up side by side.
const LANES: usize = 4;

/// So many bytes at both ends of a stream are where every byte is another step: login, questions, headers; the end, the manifest.
const EDGE: u64 = 20_000;

#[test]
fn a_connection_reset_at_any_byte_never_makes_a_backup_that_is_not_whole() -> Result {
    let small = Blueprint {
        initdb: &["--wal-segsize=1"],
        settings: &[("min_wal_size", "2MB"), ("autovacuum", "off")],
        ..Blueprint::default()
    };
    let setting = Setting::of("resets", &small)?;
    let Setting { cluster, appliance, .. } = &setting;
    // What is left is small: each seed sends all of it.
    cluster.sql(
        "postgres",
        "UPDATE pg_database SET datistemplate = false; DROP DATABASE template0; DROP DATABASE template1; CHECKPOINT",
    )?;

    let lanes: Vec<Lane> = (0..LANES).map(|number| Lane::open(&setting, number)).collect::<Result<_>>()?;
    appliance.back_up(&lanes[0].instance, "primary")?;
    let length = lanes[0].proxy.passed();
    ensure(length > 4 * EDGE, || format!("the whole stream is {length} bytes"))?;

    let (next, outcomes) = (AtomicU64::new(0), Mutex::new(BTreeMap::<String, u32>::new()));
    let run = |lane: &Lane| -> Result {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= SEEDS {
                return Ok(());
            }
            let outcome =
                lane.try_seed(&setting, seed, length).map_err(|failure| failure.during(format!("seed {seed}")))?;
            *outcomes.lock().unwrap_or_else(std::sync::PoisonError::into_inner).entry(outcome).or_default() += 1;
        }
    };
    thread::scope(|scope| {
        let running: Vec<_> = lanes.iter().map(|lane| scope.spawn(|| run(lane))).collect();
        running
            .into_iter()
            .map(|lane| lane.join().map_err(|_| Failure::new("a lane panicked"))?)
            .collect::<Result<Vec<()>>>()
    })?;

    let outcomes = outcomes.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let _ = writeln!(std::io::stderr(), "{SEEDS} broken connections over {length} bytes: {outcomes:?}");
    // A run in which nothing broke, or nothing was left to compare, would prove nothing.
    ensure(outcomes.len() > 1 && outcomes.contains_key("Succeeded"), || {
        format!("not every kind of end was seen: {outcomes:?}")
    })
}

/// An instance behind a proxy.
struct Lane {
    instance: String,
    proxy: Proxy,
    number: usize,
}

impl Lane {
    fn open(setting: &Setting, number: usize) -> Result<Self> {
        let proxy = Proxy::before(setting.cluster.port())?;
        let instance = format!("acme/lane/n{number}");
        setting.appliance.add_instance_at(&instance, proxy.port(), &setting.workdir, &[])?.done()?;
        Ok(Self { instance, proxy, number })
    }

    /// One attempt with one fault: what became of it, once that is known to be honest.
    fn try_seed(&self, setting: &Setting, seed: u64, length: u64) -> Result<String> {
        let fault = fault(seed, length);
        self.proxy.set(fault);
        let attempt = setting.appliance.attempt(&self.instance)?;
        if !attempt.succeeded().map_err(|failure| failure.during(format!("{fault:?}")))? {
            return Ok(format!("Failed: {}", attempt.error["code"].as_str().unwrap_or_default()));
        }
        let to = setting.workdir.join(&format!("restored-{}-{seed}", self.number));
        setting.appliance.restore(&attempt.name, &to, &[], &["--wait"])?.done()?;
        must_be_the_same(setting.cluster.data(), &to).map_err(|failure| failure.during(format!("{fault:?}")))?;
        fs::remove_dir_all(&to)?;
        Ok("Succeeded".into())
    }
}

/// A seed's fault: one third anywhere, the rest near the ends of the stream, and a little past its end.
fn fault(seed: u64, length: u64) -> Fault {
    let random = mixed(seed);
    let at = match seed % 3 {
        0 => random % length,
        1 => random % EDGE,
        _ => length - EDGE + random % (EDGE + EDGE / 4),
    };
    if mixed(random).is_multiple_of(2) { Fault::Reset(at) } else { Fault::Close(at) }
}

/// A number without a pattern for each other one (SplitMix64).
fn mixed(seed: u64) -> u64 {
    let mut number = seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}

/// Compares the files of all relations.
fn must_be_the_same(source: &Path, restored: &Path) -> Result {
    let mut compared = 0;
    for directory in relation_directories(source)? {
        for entry in fs::read_dir(source.join(&directory))? {
            let name = entry?.file_name();
            let text = name.to_string_lossy();
            // Not of the data: written anew at each start, or with each checkpoint.
            if text.starts_with("pg_internal.init") || text == "pg_control" {
                continue;
            }
            let file = directory.join(&name);
            let read = |root: &Path| {
                fs::read(root.join(&file)).map_err(|error| Failure::from(error).during(root.join(&file).display()))
            };
            ensure(read(source)? == read(restored)?, || format!("{} differs", file.display()))?;
            compared += 1;
        }
    }
    ensure(compared > 200, || format!("only {compared} files were compared"))
}

fn relation_directories(source: &Path) -> Result<Vec<PathBuf>> {
    let mut directories = vec![PathBuf::from("global")];
    for entry in fs::read_dir(source.join("base"))? {
        let name = entry?.file_name();
        // The others hold temporary files.
        if name.to_string_lossy().parse::<u32>().is_ok() {
            directories.push(Path::new("base").join(name));
        }
    }
    Ok(directories)
}
