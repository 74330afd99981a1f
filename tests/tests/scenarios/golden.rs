//! What an earlier version wrote, this one opens.

use std::fs;
use std::path::{Path, PathBuf};

use holdfast_tests::appliance::Appliance;
use holdfast_tests::cluster::Cluster;
use holdfast_tests::golden::{self, CONTENT, DATA, INSTANCE, KIT, Place, TABLE};
use holdfast_tests::{Result, Workdir, ensure};

/// Fails unless PostgreSQL starts on the restored directory and holds what the fixture's cluster held.
fn must_hold_golden_content(workdir: &Workdir, restored: &Path) -> Result {
    let mut cluster = Cluster::restored(&workdir.join("server"), restored)?;
    cluster.start()?;
    let content =
        cluster.sql("postgres", &format!("SELECT count(*), md5(string_agg(t, ',' ORDER BY n)) FROM {TABLE}"))?;
    ensure(content == CONTENT, || format!("{TABLE} holds {content}"))?;
    cluster.stop()
}

#[test]
fn golden_repository_and_catalog_of_0_1_0_open() -> Result {
    let (place, workdir) = (Place::take("0.1.0")?, Workdir::new("golden")?);
    golden::copy("0.1.0", place.path())?;
    let mut appliance = Appliance::on(&place.path().join(DATA));
    appliance.start()?;
    let backups = appliance.list(&["backup", "list", INSTANCE])?;
    let ready = |backup: &serde_json::Value| backup["status"]["readyToUse"] == true;
    ensure(backups.len() == 2 && backups.iter().all(ready), || format!("not the two backups: {backups:?}"))?;
    appliance.verify(&format!("{INSTANCE}/latest"))?;
    let to = workdir.join("restored");
    appliance.restore(&format!("{INSTANCE}/latest"), &to, &[], &["--wait"])?.done()?;
    must_hold_golden_content(&workdir, &to)
}

#[test]
fn golden_repository_of_0_1_0_restores_without_its_catalog() -> Result {
    let workdir = Workdir::new("golden-alone")?;
    golden::copy("0.1.0", workdir.path())?;
    let repository: PathBuf = fs::canonicalize(workdir.join(DATA))?.join("repository");
    let nobody = Appliance::on(&workdir.join("nobody"));
    let (url, kit, to) =
        (format!("file://{}", repository.display()), workdir.join(KIT).display().to_string(), workdir.join("restored"));
    nobody.restore(&format!("{INSTANCE}/latest"), &to, &[], &["--from", &url, "--identity", &kit])?.done()?;
    must_hold_golden_content(&workdir, &to)
}
