//! Lies that a backup may keep: they do no harm in a restore, and a verification finds them.

use std::fs;
use std::path::Path;

use holdfast_tests::impostor::{Impostor, Tar, manifest};
use holdfast_tests::{Result, Workdir, ensure};

use super::wary;

#[test]
fn a_link_in_an_archive_leads_nothing_out_of_a_restore() -> Result {
    let workdir = Workdir::new("impostor-links")?;
    let appliance = wary(&workdir)?;
    let victim = workdir.join("victim");
    fs::create_dir(&victim)?;
    fs::write(victim.join("precious"), "do not lose me")?;
    let absolute = victim.display().to_string();
    let upwards = "../../victim".to_owned();
    let mut restored = 0;
    for (case, archive) in [
        ("absolute", Tar::whole().link("base", &absolute).file("base/evil", b"x")),
        ("relative", Tar::whole().link("base", &upwards).file("base/evil", b"x")),
        // The one link that a backup may have.
        ("tablespace", Tar::whole().link("pg_tblspc/16385", &absolute)),
        ("through-it", Tar::whole().link("pg_tblspc/16385", &absolute).file("pg_tblspc/16385/evil", b"x")),
        ("another", Tar::whole().link("pg_tblspc/16386", &absolute).file("pg_tblspc/16386/evil", b"x")),
        ("over-it", Tar::whole().link("base/1", &absolute).file("base/1/precious", b"x")),
        ("file", Tar::whole().link("evil", &format!("{absolute}/precious")).file("evil", b"x")),
    ] {
        let place = absolute.clone();
        let impostor = Impostor::who_backs_up(move |peer| peer.send_backup(&[("16385", &place)], &archive))?;
        let instance = format!("acme/links/{case}");
        appliance.add_instance_at(&instance, impostor.port(), &workdir, &[])?.done()?;
        let attempt = appliance.attempt(&instance)?;
        if attempt.succeeded()? {
            let to = workdir.join(&format!("restored-{case}"));
            let moved = [(victim.as_path(), workdir.join(&format!("moved-{case}")))];
            let maps: Vec<_> = moved.iter().map(|(from, to)| (*from, to.as_path())).collect();
            let answer = appliance.restore(&attempt.name, &to, &maps, &["--wait"])?;
            ensure(matches!(answer.code, Some(0 | 1)), || format!("{case}: {answer}"))?;
            restored += 1;
        }
        must_be_untouched(&victim).map_err(|failure| failure.during(format!("{case}: {attempt:?}")))?;
    }
    ensure(restored > 0, || "not one of them was restored".into())
}

fn must_be_untouched(victim: &Path) -> Result {
    let names: Vec<_> = fs::read_dir(victim)?.flatten().map(|entry| entry.file_name()).collect();
    ensure(names == ["precious"], || format!("there is more now: {names:?}"))?;
    ensure(fs::read_to_string(victim.join("precious"))? == "do not lose me", || "the file was changed".into())
}

#[test]
fn a_manifest_that_lies_is_found_by_a_verification() -> Result {
    let workdir = Workdir::new("impostor-manifest")?;
    let appliance = wary(&workdir)?;
    let entry = |path: &str, size: u64| {
        format!(
            "\n{{ \"Path\": \"{path}\", \"Size\": {size}, \"Last-Modified\": \"2026-01-01 00:00:00 GMT\", \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"00000000\" }}"
        )
    };
    for (case, files) in [
        ("another-checksum", entry("PG_VERSION", 3)),
        ("another-size", entry("PG_VERSION", 4_000)),
        ("not-there", entry("base/1/1259", 8_192)),
        ("upwards", entry("../../etc/passwd", 3)),
    ] {
        let impostor = Impostor::who_backs_up(move |peer| {
            peer.begin_backup(&[])?;
            peer.begin_archive("base.tar", "")?;
            peer.data(&Tar::whole().ended())?;
            peer.end_backup(&manifest(&files)?)
        })?;
        let instance = format!("acme/manifests/{case}");
        appliance.add_instance_at(&instance, impostor.port(), &workdir, &[])?.done()?;
        let attempt = appliance.attempt(&instance)?;
        if attempt.succeeded()? {
            let verified = appliance.run(["backup", "verify", &attempt.name, "--level", "engine", "--wait"])?;
            ensure(verified.code == Some(1), || format!("{case}: {verified}"))?;
        }
    }
    Ok(())
}
