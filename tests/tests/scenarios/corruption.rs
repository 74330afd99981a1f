//! Pages that are damaged in the source are named, by relation file and block; the backup is kept or refused as the operator says.

use std::fs;
use std::os::unix::fs::FileExt;

use holdfast_tests::cluster::Blueprint;
use holdfast_tests::{Result, ensure};

use crate::setting::{INSTANCE, Setting};

/// Bytes of a page.
const PAGE: u64 = 8192;

/// Which are damaged.
const BLOCKS: [u64; 2] = [3, 41];

#[test]
fn a_damaged_page_is_named_and_the_backup_is_kept_with_a_warning_or_refused() -> Result {
    let blueprint = Blueprint { initdb: &["--data-checksums"], ..Blueprint::default() };
    let Setting { mut cluster, appliance, workdir, s3: _s3 } = Setting::of("corruption", &blueprint)?;
    appliance.add_instance(INSTANCE, &cluster, &workdir, &[])?.done()?;
    appliance
        .add_instance("acme/shop/strict", &cluster, &workdir, &["--set", "tls=off", "--set", "corruption=refuse"])?
        .done()?;
    appliance.back_up("acme/shop/strict", "primary")?;

    let relation = cluster.sql("postgres", "SELECT pg_relation_filepath('goods')")?;
    cluster.stop()?;
    let path = cluster.data().join(&relation);
    let file = fs::OpenOptions::new().write(true).open(&path)?;
    for block in BLOCKS {
        file.write_all_at(b"flipped", block * PAGE + 5_000)?;
    }
    cluster.start()?;

    let answer = appliance.run(["backup", "create", INSTANCE, "--wait"])?;
    ensure(answer.code == Some(3), || format!("not kept with a warning: {answer}"))?;
    let backup = appliance.json(["backup", "show", &format!("{INSTANCE}/latest")])?;
    let warnings = backup["status"]["warnings"].to_string();
    for block in BLOCKS {
        let named = format!("block {block} of {relation}");
        ensure(warnings.contains(&named) && answer.stderr.contains(&named), || {
            format!("not named: {named}: {backup}\n{answer}")
        })?;
    }
    // What is kept is what the server has, damage and all.
    let to = workdir.join("restored");
    appliance.restore(&format!("{INSTANCE}/latest"), &to, &[], &["--wait"])?.done()?;
    ensure(fs::read(to.join(&relation))? == fs::read(&path)?, || "the damaged file came back otherwise".into())?;

    let said = appliance.attempt("acme/shop/strict")?.failed_by("data-corrupted")?;
    for block in BLOCKS {
        ensure(said.contains(&format!("block {block} of {relation}")), || format!("not named: {block}: {said}"))?;
    }
    let backups = appliance.list(&["backup", "list", "acme/shop/strict", "--state", "Succeeded"])?;
    ensure(backups.len() == 1, || format!("the good backup is not there any more, or a bad one is: {backups:?}"))
}
