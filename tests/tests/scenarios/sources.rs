//! Sources that are not the plain server: a standby, a relation of more than one file, a cluster with checksums.

use std::fs;

use holdfast_tests::cluster::{Blueprint, Cluster};
use holdfast_tests::content::Content;
use holdfast_tests::{Result, ensure};

use crate::setting::{INSTANCE, Setting};

#[test]
fn a_standby_is_a_source_like_any_other() -> Result {
    let setting = Setting::new("standby")?;
    let Setting { cluster, appliance, workdir, .. } = &setting;
    let standby = Cluster::standby_of(cluster, &workdir.join("standby"))?;
    appliance.add_instance(INSTANCE, &standby, workdir, &[])?.done()?;
    let check = appliance.json(["instance", "check", INSTANCE])?;
    ensure(check["role"] == "standby", || format!("not seen as a standby: {check}"))?;

    cluster.sql("postgres", "CREATE TABLE news AS SELECT n, n * n AS square FROM generate_series(1, 5000) n")?;
    standby.catch_up(cluster)?;
    let content = Content::of(cluster)?;
    content.must_equal(&Content::of(&standby)?)?;
    appliance.back_up(INSTANCE, "primary")?;
    appliance.verify(&format!("{INSTANCE}/latest"))?;
    let to = workdir.join("restored");
    appliance.restore(&format!("{INSTANCE}/latest"), &to, &[], &["--wait"])?.done()?;
    setting.must_hold(&to, &content)
}

#[test]
fn a_table_of_more_than_one_file_comes_back_whole() -> Result {
    let setting = Setting::of("large", &Blueprint { settings: &[("max_wal_size", "4GB")], ..Blueprint::default() })?;
    let Setting { cluster, appliance, workdir, .. } = &setting;
    // One row a page, whatever its size: a gigabyte of file at the price of a tenth of its log.
    cluster.sql("postgres", "CREATE TABLE large (n int, pad text) WITH (fillfactor = 10); ALTER TABLE large ALTER pad SET STORAGE PLAIN; INSERT INTO large SELECT n, repeat('x', 800) FROM generate_series(1, 135000) n")?;
    let file = cluster.data().join(cluster.sql("postgres", "CHECKPOINT; SELECT pg_relation_filepath('large')")?);
    let second = file.with_extension("1");
    ensure(fs::metadata(&file)?.len() == 1 << 30 && fs::metadata(&second)?.len() > 10_000_000, || {
        "the table is in one file".into()
    })?;

    let content = Content::of(cluster)?;
    setting.register()?;
    appliance.back_up(INSTANCE, "primary")?;
    let to = workdir.join("restored");
    appliance.restore(&format!("{INSTANCE}/latest"), &to, &[], &["--wait"])?.done()?;
    setting.must_hold(&to, &content)
}

#[test]
fn a_cluster_with_checksums_keeps_them() -> Result {
    let setting = Setting::of("checksums", &Blueprint { initdb: &["--data-checksums"], ..Blueprint::default() })?;
    let Setting { cluster, appliance, workdir, .. } = &setting;
    let content = Content::of(cluster)?;
    setting.register()?;
    let check = appliance.json(["instance", "check", INSTANCE])?;
    ensure(!check.to_string().contains("data-checksums-off"), || format!("they are not seen: {check}"))?;
    appliance.back_up(INSTANCE, "primary")?;
    appliance.verify(&format!("{INSTANCE}/latest"))?;
    let to = workdir.join("restored");
    appliance.restore(&format!("{INSTANCE}/latest"), &to, &[], &["--wait"])?.done()?;
    setting.must_hold(&to, &content)?;
    // Read by the server itself, page after page, with its checksums looked at.
    let mut copy = Cluster::restored(&workdir.join("second"), &to)?;
    copy.start()?;
    ensure(copy.sql("postgres", "SHOW data_checksums")? == "on", || "the copy has none".into())
}
