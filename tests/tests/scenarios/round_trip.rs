//! A backup of a real PostgreSQL comes back as it was.

use holdfast_tests::content::Content;
use holdfast_tests::{Result, ensure, number};

use crate::setting::{INSTANCE, Setting};

/// Large objects, names beyond ASCII, an unlogged table, an empty one, values too long for a page.
const ODD_THINGS: &str = r#"
CREATE TABLE "Größe" ("Schlüssel" int PRIMARY KEY, "日本語" text);
INSERT INTO "Größe" SELECT n, repeat('é', n % 40) FROM generate_series(1, 3000) n;
CREATE UNLOGGED TABLE passing AS SELECT generate_series(1, 1000) AS n;
CREATE TABLE empty (nothing text);
CREATE TABLE wide (body text); ALTER TABLE wide ALTER body SET STORAGE EXTERNAL;
INSERT INTO wide SELECT string_agg(md5(a::text || b::text), '') FROM generate_series(1, 5) a, generate_series(1, 4000) b GROUP BY a;
SELECT lo_from_bytea(0, convert_to(repeat(md5(n::text), n * 50), 'UTF8')) FROM generate_series(1, 20) n \g /dev/null
"#;

#[test]
fn backs_up_restores_and_verifies_a_real_postgresql() -> Result {
    let setting = Setting::new("round-trip")?;
    let Setting { cluster, appliance, workdir, .. } = &setting;
    let (fast, slow) = (cluster.directory("fast")?, cluster.directory("slöw disk")?);
    for (name, path) in [("fast", &fast), ("slow", &slow)] {
        cluster.sql("postgres", &format!("CREATE TABLESPACE {name} LOCATION '{}'", path.display()))?;
    }
    cluster.sql("postgres", ODD_THINGS)?;
    cluster.sql("postgres", "CREATE DATABASE \"Läden\" TABLESPACE slow")?;
    cluster.sql(
        "Läden",
        "CREATE TABLE far TABLESPACE fast AS SELECT n, md5(n::text) AS t FROM generate_series(1, 5000) n",
    )?;
    setting.register()?;

    let before = Content::of(cluster)?;
    let first = appliance.back_up(INSTANCE, "primary")?;
    appliance.verify(&format!("{INSTANCE}/latest"))?;

    cluster.sql("postgres", "UPDATE goods SET label = 'changed' WHERE n = 7")?;
    let after = Content::of(cluster)?;
    let second = appliance.back_up(INSTANCE, "primary")?;
    let (stored, again) = (number(&first["status"], "storedBytes")?, number(&second["status"], "storedBytes")?);
    ensure(again * 4 < stored, || format!("hardly anything changed, yet {again} bytes were stored after {stored}"))?;
    ensure(appliance.list(&["backup", "list", INSTANCE])?.len() == 2, || "there are not two backups".into())?;

    for (backup, content) in [(&first, &before), (&second, &after)] {
        let name = backup["name"].as_str().unwrap_or_default();
        let to = workdir.join(&format!("restored-{name}"));
        let (fast_to, slow_to) = (workdir.join(&format!("fast-{name}")), workdir.join(&format!("slow-{name}")));
        let maps = [(fast.as_path(), fast_to.as_path()), (slow.as_path(), slow_to.as_path())];
        appliance.restore(&format!("{INSTANCE}/{name}"), &to, &maps, &["--wait"])?.done()?;
        setting.must_hold(&to, content)?;
    }
    Ok(())
}

#[test]
fn a_tablespace_that_is_not_mapped_is_not_restored_over_the_original() -> Result {
    let setting = Setting::new("unmapped")?;
    let Setting { cluster, appliance, workdir, .. } = &setting;
    let elsewhere = cluster.directory("elsewhere")?;
    cluster.sql("postgres", &format!("CREATE TABLESPACE elsewhere LOCATION '{}'", elsewhere.display()))?;
    cluster.sql("postgres", "CREATE TABLE remote TABLESPACE elsewhere AS SELECT generate_series(1, 100) AS n")?;
    setting.register()?;
    appliance.back_up(INSTANCE, "primary")?;

    let refused = appliance.restore(&format!("{INSTANCE}/latest"), &workdir.join("restored"), &[], &["--wait"])?;
    refused.refused(&["--map", &elsewhere.display().to_string()])?;
    ensure(cluster.sql("postgres", "SELECT count(*) FROM remote")? == "100", || "the original lost rows".into())
}
