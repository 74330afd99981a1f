//! The main job, played on throw-away servers: back up, copy off site, lose everything here, come back from there alone.
//!
//! `demo [--keep] [--scale N]`. It fails loudly at the first step that does not do what it says, and cleans up after itself.

mod stage;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use holdfast_tests::appliance::Appliance;
use holdfast_tests::cluster::Cluster;
use holdfast_tests::content::Content;
use holdfast_tests::s3::S3Server;
use holdfast_tests::{PASSWORD, ROLE, Result, Workdir, ensure, free_port, let_daemons_outlive_us, number};
use serde_json::Value;
use stage::{Stage, Timed, megabytes, seconds};

const USAGE: &str = "\
usage: cargo xtask demo [--keep] [--scale N]

  --keep     leave everything running, and say how to reach it
  --scale N  how much data: about 15 MB for each unit, 20 by default
";

const INSTANCE: &str = "acme/shop/pg";

/// The most memory that the appliance may need, in bytes, however much data there is.
const MEMORY_LIMIT: u64 = 300_000_000;

/// Things that a careless backup loses: large objects, a tablespace, an unlogged table, names beyond ASCII.
const ODD_THINGS: &str = r#"
CREATE TABLE "Größe und Maß" ("Schlüssel" int PRIMARY KEY, "Wert" text, "日本語" text DEFAULT 'データ');
INSERT INTO "Größe und Maß" SELECT n, repeat('é', n % 40), chr(19968 + n) FROM generate_series(1, 5000) n;
CREATE SCHEMA "Ålesund"; CREATE TABLE "Ålesund"."crème brûlée" AS SELECT n, random() AS x, clock_timestamp() AS t FROM generate_series(1, 2000) n;
CREATE UNLOGGED TABLE passing AS SELECT generate_series(1, 10000) AS n;
CREATE TABLE remote (n int, t text) TABLESPACE elsewhere;
INSERT INTO remote SELECT n, md5(n::text) FROM generate_series(1, 50000) n;
CREATE INDEX remote_by_text ON remote (t) TABLESPACE elsewhere;
CREATE TABLE empty (nothing text);
CREATE TABLE wide (body text); ALTER TABLE wide ALTER body SET STORAGE EXTERNAL;
INSERT INTO wide SELECT string_agg(md5(a::text || b::text), '') FROM generate_series(1, 20) a, generate_series(1, 4000) b GROUP BY a;
SELECT lo_from_bytea(0, convert_to(repeat(md5(n::text), n * 50), 'UTF8')) FROM generate_series(1, 40) n \g /dev/null
CREATE MATERIALIZED VIEW summary AS SELECT count(*) AS rows FROM remote;
"#;

/// One per cent of the accounts, side by side, and one new large object.
const CHANGES: &str = "UPDATE pgbench_accounts SET abalance = abalance + 17 WHERE aid <= (SELECT max(aid) / 100 FROM pgbench_accounts); CHECKPOINT;";

/// What the command line asks for.
struct Options {
    keep: bool,
    scale: u32,
}

impl Options {
    /// `None` for anything that is not understood.
    fn parse(mut arguments: impl Iterator<Item = String>) -> Option<Self> {
        let mut options = Self { keep: false, scale: 20 };
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--keep" => options.keep = true,
                "--scale" => options.scale = arguments.next()?.parse().ok().filter(|scale| *scale > 0)?,
                _ => return None,
            }
        }
        Some(options)
    }
}

fn main() -> ExitCode {
    let Some(options) = Options::parse(std::env::args().skip(1)) else {
        eprint!("{USAGE}");
        return ExitCode::from(2);
    };
    match play(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("\nthe demo failed: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Everything that the play needs on the stage. Servers come before the directory that they work in: they end first.
struct Scenery {
    cluster: Cluster,
    s3: S3Server,
    appliance: Appliance,
    kit: PathBuf,
    tablespace: PathBuf,
    workdir: Workdir,
}

fn play(options: &Options) -> Result {
    let mut stage = Stage::new();
    let mut workdir = Workdir::new("demo")?;
    if options.keep {
        let_daemons_outlive_us();
        workdir.keep();
    }
    stage.say(format_args!("Holdfast's main job, in {}\n", workdir.path().display()));

    let mut scenery = build_scenery(&mut stage, workdir, options.scale)?;
    let protected = protect(&mut stage, &mut scenery)?;
    lose_everything_here(&mut stage, &mut scenery)?;
    let reborn = come_back(&mut stage, &mut scenery, &protected)?;

    summarize(&stage, &protected, &reborn)?;
    if options.keep {
        let (data, directory) = (scenery.appliance.data().display(), scenery.workdir.path().display());
        stage.say(format_args!("It keeps running. API: {}, token in {data}/admin-token", reborn.url));
        stage.say(format_args!(
            "  export HOLDFAST_DATA_DIR={data}; {} status",
            holdfast_tests::program("holdfast")?.display()
        ));
        let processes = [scenery.appliance.process()?, scenery.s3.process()?, scenery.cluster.process()?];
        let processes = processes.map(|id| id.to_string()).join(" ");
        stage.say(format_args!("To end it: kill -INT {processes}; then delete {directory}"));
    }
    Ok(())
}

fn build_scenery(stage: &mut Stage, workdir: Workdir, scale: u32) -> Result<Scenery> {
    let cluster = stage.step("make a PostgreSQL with pg_createcluster", || {
        let cluster = Cluster::create(&workdir.join("postgres"), &[])?;
        cluster.create_backup_role(ROLE, PASSWORD)?;
        let version = cluster.sql("postgres", "SHOW server_version")?;
        let note = format!("{version}, port {}", cluster.port());
        Ok((cluster, note))
    })?;
    let cluster = cluster.value;
    stage.step("fill a database with pgbench", || {
        cluster.sql("postgres", "CREATE DATABASE shop")?;
        cluster.fill("shop", scale)?;
        Ok(((), cluster.sql("postgres", "SELECT pg_size_pretty(pg_database_size('shop'))")?))
    })?;
    let tablespace = stage.step("fill another with odd things", || {
        let tablespace = cluster.directory("elsewhere")?;
        cluster.sql("postgres", &format!("CREATE TABLESPACE elsewhere LOCATION '{}'", tablespace.display()))?;
        cluster.sql("postgres", "CREATE DATABASE \"Krämerladen\"")?;
        cluster.sql("Krämerladen", ODD_THINGS)?;
        Ok((tablespace, "large objects, a tablespace, an unlogged table, names beyond ASCII".into()))
    })?;
    let s3 = stage.step("start an S3 service at the other site", || {
        let s3 = S3Server::start(&workdir.join("there"))?;
        let note = s3.url("backups");
        Ok((s3, note))
    })?;
    let (s3, tablespace) = (s3.value, tablespace.value);
    let appliance = stage.step("start the appliance", || {
        let mut appliance = Appliance::on(&workdir.join("appliance")).listen(free_port()?);
        appliance.configure("here", None)?;
        appliance.start()?;
        Ok((appliance, "primary target at site here".into()))
    })?;
    Ok(Scenery { cluster, s3, appliance: appliance.value, kit: workdir.join("alice.key"), tablespace, workdir })
}

/// What the first half of the play leaves for the second.
struct Protected {
    first: Timed<Value>,
    second: Timed<Value>,
    /// What the cluster held at the second backup.
    content: Content,
    peak_memory_bytes: u64,
}

fn protect(stage: &mut Stage, scenery: &mut Scenery) -> Result<Protected> {
    let Scenery { cluster, s3, appliance, kit, workdir, .. } = scenery;
    stage.step("make a recovery kit", || {
        appliance.make_recovery_kit(kit)?;
        Ok(((), "it leaves the building".into()))
    })?;
    stage.step("add the S3 service as target `vault` at site `there`", || {
        Ok((appliance.add_vault(s3, workdir)?, String::new()))
    })?;
    stage.step("register the instance, and check it", || {
        appliance.add_instance(INSTANCE, cluster, workdir, &[])?.done()?;
        let check = appliance.json(["instance", "check", INSTANCE])?;
        Ok(((), format!("PostgreSQL {}, {}", text(&check["version"]), text(&check["role"]))))
    })?;
    let first = stage.step("back up, until it is durable at both sites", || {
        let backup = appliance.back_up(INSTANCE, "offsite")?;
        let note = described(&backup)?;
        Ok((backup, note))
    })?;
    stage.step("verify it by the engine's rules", || {
        let backup = appliance.verify(&format!("{INSTANCE}/latest"))?;
        Ok(((), text(&backup["status"]["verified"]["detail"])))
    })?;
    let content = stage.step("change some data", || {
        cluster.sql("shop", CHANGES)?;
        cluster.sql(
            "Krämerladen",
            "SELECT lo_from_bytea(0, 'one more') \\g /dev/null\nDELETE FROM remote WHERE n % 100 = 0",
        )?;
        let content = Content::of(cluster)?;
        let note = format!("then hashed {} tables of {} rows", content.tables(), content.rows());
        Ok((content, note))
    })?;
    let second = stage.step("back up again", || {
        let backup = appliance.back_up(INSTANCE, "offsite")?;
        let note = described(&backup)?;
        Ok((backup, note))
    })?;
    let peak_memory_bytes = appliance.peak_memory_bytes()?;
    Ok(Protected { first, second, content: content.value, peak_memory_bytes })
}

fn lose_everything_here(stage: &mut Stage, scenery: &mut Scenery) -> Result {
    let appliance = &mut scenery.appliance;
    stage.step("lose the appliance: its data directory and its primary target", || {
        appliance.kill()?;
        fs::remove_dir_all(appliance.data())?;
        Ok(((), "deleted".into()))
    })?;
    Ok(())
}

/// What the second half of the play has to show.
struct Reborn {
    restored: Timed<()>,
    third: Timed<Value>,
    peak_memory_bytes: u64,
    url: String,
}

fn come_back(stage: &mut Stage, scenery: &mut Scenery, protected: &Protected) -> Result<Reborn> {
    let Scenery { cluster, s3, appliance, kit, tablespace, workdir } = scenery;
    let port = free_port()?;
    *appliance = Appliance::on(&workdir.join("reborn")).listen(port).with_access_to_vault();
    stage.step("recover from the S3 service with the recovery kit alone", || {
        appliance.recover(s3, kit)?;
        Ok(((), String::new()))
    })?;
    stage.step("serve, and take over", || {
        appliance.start()?;
        appliance.take_over()?;
        Ok(((), format!("{} backups are back", appliance.list(&["backup", "list", INSTANCE])?.len())))
    })?;
    let (data, moved) = (workdir.join("restored"), workdir.join("restored-elsewhere"));
    let restored = stage.step("restore to an empty directory", || {
        appliance.restore(&format!("{INSTANCE}/latest"), &data, &[(tablespace, &moved)], &["--wait"])?.done()?;
        Ok(((), data.display().to_string()))
    })?;
    stage.step("start PostgreSQL on it, and compare every table", || {
        let mut copy = Cluster::restored(&workdir.join("copy"), &data)?;
        copy.start()?;
        protected.content.must_equal(&Content::of(&copy)?)?;
        copy.stop()?;
        Ok(((), format!("{} tables, {} rows, all equal", protected.content.tables(), protected.content.rows())))
    })?;
    let third = stage.step("back up once more, into the reborn repository", || {
        ensure(cluster.sql("postgres", "SELECT 1")? == "1", || "the database server is gone".into())?;
        let backup = appliance.back_up(INSTANCE, "all")?;
        let note = described(&backup)?;
        Ok((backup, note))
    })?;
    let peak_memory_bytes = appliance.peak_memory_bytes()?;
    Ok(Reborn { restored, third, peak_memory_bytes, url: format!("https://127.0.0.1:{port}") })
}

fn summarize(stage: &Stage, protected: &Protected, reborn: &Reborn) -> Result {
    let mut rows = Vec::new();
    let backups = [
        ("first backup", &protected.first),
        ("second backup", &protected.second),
        ("backup after rebirth", &reborn.third),
    ];
    for (name, backup) in backups {
        let status = &backup.value["status"];
        let (logical, stored) = (number(status, "logicalBytes")?, number(status, "storedBytes")?);
        rows.push(vec![
            name.into(),
            seconds(backup.elapsed),
            megabytes(logical),
            megabytes(stored),
            megabytes(sent(&backup.value)),
        ]);
    }
    let read = number(&protected.second.value["status"], "logicalBytes")?;
    rows.push(vec!["restore".into(), seconds(reborn.restored.elapsed), megabytes(read), String::new(), String::new()]);
    stage.table(&["", "time", "logical", "stored", "sent off site"], &rows);

    let peaks = [protected.peak_memory_bytes, reborn.peak_memory_bytes];
    stage.say(format_args!(
        "  peak memory of the appliance: {} before the loss, {} after it",
        megabytes(peaks[0]),
        megabytes(peaks[1])
    ));
    stage.say(format_args!("  all of it in {}", seconds(stage.elapsed())));
    ensure(peaks.iter().all(|peak| *peak < MEMORY_LIMIT), || {
        format!("the appliance needed more than {}", megabytes(MEMORY_LIMIT))
    })
}

/// A backup in a line.
fn described(backup: &Value) -> Result<String> {
    let status = &backup["status"];
    let (logical, stored) = (megabytes(number(status, "logicalBytes")?), megabytes(number(status, "storedBytes")?));
    Ok(format!("{logical} read, {stored} stored, {} sent; {}", megabytes(sent(backup)), text(&status["protection"])))
}

/// Bytes that went to other sites for this backup.
fn sent(backup: &Value) -> u64 {
    let sites = backup["status"]["sites"].as_array();
    sites
        .into_iter()
        .flatten()
        .filter(|site| site["site"] == "there")
        .filter_map(|site| site["copiedBytes"].as_u64())
        .sum()
}

/// A JSON string as text; anything else as nothing.
fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
