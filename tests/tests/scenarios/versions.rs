//! Every version of PostgreSQL that is in use comes back as it was: 12, without a manifest, to 18; up to 14 and from 15 on the server
//! speaks another grammar and sends its archives in another way.

use std::path::PathBuf;

use holdfast_tests::cluster::Blueprint;
use holdfast_tests::content::Content;
use holdfast_tests::{Result, ensure, number};

use crate::setting::{INSTANCE, Setting};

/// What a tablespace's path may be made of: blanks, quotes, what shells and archives read otherwise, and other scripts.
const ODD_PATH: &str = r#"an "ödd" pláce;\ 表 $(x) %2e*"#;

/// Backs up, proves, changes, backs up again, and restores both.
fn comes_back(major: u32, in_an_odd_place: bool) -> Result {
    let setting = Setting::of(&format!("version-{major}"), &Blueprint { major: Some(major), ..Blueprint::default() })?;
    let Setting { cluster, appliance, workdir, .. } = &setting;
    let version = cluster.sql("postgres", "SHOW server_version_num")?;
    ensure(version.starts_with(&major.to_string()), || format!("the server is of version {version}"))?;
    let mut moved: Option<PathBuf> = None;
    if in_an_odd_place {
        let place = cluster.directory(ODD_PATH)?;
        cluster.sql("postgres", &format!("CREATE TABLESPACE odd LOCATION '{}'", place.display()))?;
        cluster.sql(
            "postgres",
            "CREATE TABLE afar TABLESPACE odd AS SELECT n, md5(n::text) AS t FROM generate_series(1, 3000) n",
        )?;
        moved = Some(place);
    }
    setting.register()?;

    let mut contents = Vec::new();
    for change in ["SELECT 1", "DELETE FROM goods WHERE n = 7; CREATE TABLE later AS SELECT 1 AS n"] {
        cluster.sql("postgres", change)?;
        let content = Content::of(cluster)?;
        let backup = appliance.back_up(INSTANCE, "primary")?;
        appliance.verify(&format!("{INSTANCE}/latest"))?;
        contents.push((backup, content));
    }
    let stored = |index: usize| number(&contents[index].0["status"], "storedBytes");
    ensure(stored(1)? * 4 < stored(0)?, || {
        format!("little changed, yet {} bytes were stored", stored(1).unwrap_or(0))
    })?;

    for (backup, content) in &contents {
        let name = backup["name"].as_str().unwrap_or_default();
        let (to, place) = (workdir.join(&format!("restored-{name}")), workdir.join(&format!("{ODD_PATH}-{name}")));
        let maps: Vec<_> = moved.iter().map(|from| (from.as_path(), place.as_path())).collect();
        appliance.restore(&format!("{INSTANCE}/{name}"), &to, &maps, &["--wait"])?.done()?;
        setting.must_hold(&to, content)?;
    }
    Ok(())
}

#[test]
fn postgresql_12_comes_back_as_it_was() -> Result {
    comes_back(12, true)
}

#[test]
fn postgresql_13_comes_back_as_it_was() -> Result {
    comes_back(13, true)
}

#[test]
fn postgresql_14_comes_back_as_it_was() -> Result {
    comes_back(14, true)
}

#[test]
fn postgresql_15_comes_back_as_it_was() -> Result {
    comes_back(15, true)
}

#[test]
fn postgresql_16_comes_back_as_it_was() -> Result {
    comes_back(16, false)
}

#[test]
fn postgresql_17_comes_back_as_it_was() -> Result {
    comes_back(17, true)
}

#[test]
fn postgresql_18_comes_back_as_it_was() -> Result {
    comes_back(18, true)
}
