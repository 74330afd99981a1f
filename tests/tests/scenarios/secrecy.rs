//! Nobody but the key holders reads a backup: nothing that could be read lies at any target or in a log.

use std::fs;
use std::path::Path;

use holdfast_tests::needles::{Needle, search};
use holdfast_tests::s3::SECRET_KEY;
use holdfast_tests::{PASSWORD, Result, ensure};

use crate::setting::Setting;

/// Looks like nothing else, and does not compress: it would survive compression as it is.
const ROW: &str = "rOw-Ndl-7fQz9XkV2mB8tLw3";
const TABLE: &str = "tbl_ndl_Zq84hX";
const FILE: &str = "file_ndl_Rk3vX";
const FILE_CONTENT: &str = "c0ntent-Ndl-pT6yHs";
const INSTANCE: &str = "org-ndl-kx7/prj-ndl-wv3/inst-ndl-jq9";

#[test]
fn nothing_readable_leaves_the_appliance() -> Result {
    let mut setting = Setting::new("needles")?;
    let Setting { cluster, s3, appliance, workdir } = &setting;
    appliance.make_recovery_kit(&setting.kit())?;
    appliance.add_vault(s3, workdir)?;
    let elsewhere = cluster.directory("space_ndl_Ht5")?;
    cluster.sql("postgres", &format!("CREATE TABLESPACE space_ndl_Ht5 LOCATION '{}'", elsewhere.display()))?;
    cluster.sql("postgres", &format!("CREATE TABLE \"{TABLE}\" TABLESPACE space_ndl_Ht5 AS SELECT '{ROW}' || n AS t FROM generate_series(1, 2000) n"))?;
    let file = cluster.sql("postgres", &format!("SELECT pg_relation_filepath('\"{TABLE}\"')"))?;
    let index_file = cluster.sql("postgres", "SELECT pg_relation_filepath('goods')")?;
    fs::write(cluster.data().join(FILE), FILE_CONTENT)?;
    appliance.add_instance(INSTANCE, cluster, workdir, &[])?.done()?;
    appliance.json(["instance", "check", INSTANCE])?;
    appliance.back_up(INSTANCE, "all")?;
    appliance.verify(&format!("{INSTANCE}/latest"))?;
    appliance
        .restore(
            &format!("{INSTANCE}/latest"),
            &workdir.join("restored"),
            &[(&elsewhere, &workdir.join("moved"))],
            &["--wait"],
        )?
        .done()?;
    // A failure is logged too.
    let wrong = format!("password={}", workdir.secret("wrong", "wr0ng-ndl-Pw41")?.display());
    let port = format!("port={}", cluster.port());
    let words = [
        "instance",
        "add",
        "org-ndl-kx7/prj-ndl-wv3/wrong",
        "--engine",
        "postgres",
        "--no-schedule",
        "--set",
        "host=127.0.0.1",
        "--set",
    ];
    appliance
        .run(words.into_iter().chain([
            port.as_str(),
            "--set",
            "user=keeper",
            "--set",
            "tls=off",
            "--secret-file",
            &wrong,
        ]))?
        .done()?;
    appliance.run(["backup", "create", "org-ndl-kx7/prj-ndl-wv3/wrong", "--wait"])?.refused(&[])?;

    let mut needles = vec![
        Needle::text("row content", ROW),
        Needle::text("table name", TABLE),
        Needle::text("tablespace name", "space_ndl_Ht5"),
        Needle::text("file name", file),
        Needle::text("file name", index_file),
        Needle::text("file name", FILE),
        Needle::text("file content", FILE_CONTENT),
        Needle::text("password", PASSWORD),
        Needle::text("wrong password", "wr0ng-ndl-Pw41"),
        Needle::text("S3 secret key", SECRET_KEY),
    ];
    for part in INSTANCE.split('/') {
        needles.push(Needle::text("instance name", part));
    }
    needles.extend(key_material(&setting.kit(), appliance.data())?);
    let data = appliance.data().to_path_buf();

    setting.appliance.stop()?;
    // The needles are sharp: what they look for is where it must be.
    let original = search(&setting.workdir.join("postgres"), &needles[..2])?;
    ensure(original.found.iter().any(|find| find.starts_with("row content")), || {
        "the row is not in the database's own files".into()
    })?;

    let mut found = Vec::new();
    for target in [data.join("repository"), setting.s3.root().to_path_buf()] {
        let search = search(&target, &needles)?;
        ensure(search.files > 5 && search.bytes > 1_000_000, || format!("{} is no repository", target.display()))?;
        found.extend(search.found);
    }
    let log = search(setting.appliance.log(), &needles)?;
    ensure(log.bytes > 0, || "nothing was logged".into())?;
    found.extend(log.found);
    ensure(found.is_empty(), || format!("readable:\n  {}", found.join("\n  ")))
}

/// The recovery identity, the administrator's token, and every small secret file in the data directory, as text and as bytes.
fn key_material(kit: &Path, data: &Path) -> Result<Vec<Needle>> {
    let mut needles = Vec::new();
    let kit = fs::read_to_string(kit)?;
    let identity = kit.lines().find(|line| line.starts_with("AGE-SECRET-KEY-")).unwrap_or_default();
    ensure(!identity.is_empty(), || "the recovery kit holds no identity".into())?;
    needles.push(Needle::text("recovery identity", identity));
    for entry in fs::read_dir(data)? {
        let path = entry?.path();
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        if path.extension().is_some_and(|extension| extension == "toml") {
            continue;
        }
        for word in text.split_whitespace().filter(|word| word.len() >= 32) {
            needles.push(Needle::text("key material", word));
            needles.extend(from_hex(word).map(|bytes| Needle { what: "key material", bytes }));
        }
    }
    ensure(needles.len() > 2, || format!("no key material in {}", data.display()))?;
    Ok(needles)
}

fn from_hex(word: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = word.chars().map(|digit| digit.to_digit(16).map(|value| value as u8)).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}
