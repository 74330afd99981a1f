//! A server that lies cannot do more than fail its own backup: it fails soon, says why, in bounded memory, and writes nothing outside.

use std::fs;
use std::io;
use std::path::Path;

use holdfast_tests::appliance::Appliance;
use holdfast_tests::impostor::{Impostor, Peer, Tar, manifest};
use holdfast_tests::{Result, Workdir, ensure};

/// What one run may take here: a test cannot wait for a day.
const LIMITS: &str = "[limits]\ncpu = \"2s\"\nwall = \"30s\"\nidle = \"5s\"\noutput = \"200MiB\"\n";

/// The most that the appliance may have resident, in bytes.
const MEMORY: u64 = 300_000_000;

/// An appliance of its own, with tight limits.
fn wary(workdir: &Workdir) -> Result<Appliance> {
    let mut appliance = Appliance::on(&workdir.join("appliance"));
    appliance.configure("here", None)?;
    let configuration = appliance.data().join("holdfast.toml");
    fs::write(&configuration, fs::read_to_string(&configuration)? + LIMITS)?;
    appliance.start()?;
    Ok(appliance)
}

/// Plays each impostor to one backup: it must fail, with one of these words in what it says.
fn must_fail(name: &str, cases: Vec<(&str, Impostor, &[&str])>) -> Result {
    let workdir = Workdir::new(name)?;
    let appliance = wary(&workdir)?;
    let mut wrong = Vec::new();
    for (case, impostor, words) in cases {
        let instance = format!("acme/impostors/{case}");
        appliance.add_instance_at(&instance, impostor.port(), &workdir, &[])?.done()?;
        let attempt = appliance.attempt(&instance)?;
        let said = attempt.error.to_string();
        match attempt.succeeded() {
            Err(failure) => wrong.push(failure.during(case).to_string()),
            Ok(false) if words.iter().any(|word| said.contains(word)) => {}
            Ok(_) => wrong.push(format!("{case}: expected {words:?}, got {said}")),
        }
    }
    let peak = appliance.peak_memory_bytes()?;
    ensure(wrong.is_empty(), || wrong.join("\n"))?;
    ensure(peak < MEMORY, || format!("{} MB were resident", peak / 1_000_000))?;
    // It goes on as if nothing had happened.
    appliance.json(["status"]).or_else(|_| appliance.json(["instance", "list"])).map(drop)
}

/// Again and again, until nobody listens any more.
fn for_ever(mut act: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    loop {
        act()?;
    }
}

/// An offer of SCRAM; what the client says first.
fn scram(peer: &mut Peer) -> io::Result<String> {
    peer.message(b'R', b"\0\0\0\x0ASCRAM-SHA-256\0\0")?;
    let first = String::from_utf8_lossy(&peer.answer()?).into_owned();
    Ok(first.rsplit("r=").next().unwrap_or_default().to_owned())
}

#[test]
fn a_server_that_lies_before_the_backup_is_found_out() -> Result {
    let big_row = |peer: &mut Peer| {
        peer.admit()?;
        peer.answer()?;
        for_ever(|| peer.message(b'D', &[&[0, 1, 0, 0, 0xEA, 0x60][..], &[b'x'; 60_000]].concat()))
    };
    must_fail(
        "impostor-login",
        vec![
            (
                "http",
                Impostor::who_logs_in(|peer| peer.raw(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"))?,
                &["protocol-error"],
            ),
            ("short", Impostor::who_logs_in(|peer| peer.raw(b"R\0\0\0\x03"))?, &["protocol-error"]),
            ("negative", Impostor::who_logs_in(|peer| peer.raw(b"R\xFF\xFF\xFF\xFF"))?, &["protocol-error"]),
            ("huge", Impostor::who_logs_in(|peer| peer.raw(b"S\x7F\xFF\xFF\xFF"))?, &["protocol-error"]),
            ("nothing", Impostor::who_logs_in(|_| Ok(()))?, &["connection-lost"]),
            ("silence", Impostor::who_logs_in(|peer| peer.answer().map(drop))?, &["idle"]),
            ("garbage", Impostor::who_logs_in(|peer| peer.raw(&[0xA5; 100_000]))?, &["protocol-error"]),
            (
                "notices",
                Impostor::who_logs_in(|peer| {
                    for_ever(|| {
                        peer.message(b'N', &[&b"SWARNING\0VWARNING\0C01000\0M"[..], &[b'w'; 8_000], b"\0\0"].concat())
                    })
                })?,
                &["protocol-error"],
            ),
            (
                "parameters",
                Impostor::who_logs_in(|peer| {
                    for_ever(|| peer.message(b'S', &[&b"a\0"[..], &[b'b'; 8_000], b"\0"].concat()))
                })?,
                &["protocol-error"],
            ),
            ("rows", Impostor::who_logs_in(big_row)?, &["protocol-error"]),
            (
                "unproven",
                Impostor::who_logs_in(|peer| {
                    scram(peer)?;
                    peer.admit()
                })?,
                &["protocol-error", "server-not-authentic"],
            ),
            (
                "iterations",
                Impostor::who_logs_in(|peer| {
                    let nonce = scram(peer)?;
                    peer.message(
                        b'R',
                        format!("\0\0\0\x0Br={nonce}x,s=c2FsdHNhbHRzYWx0c2FsdA==,i=2147483647").as_bytes(),
                    )?;
                    peer.answer().map(drop)
                })?,
                &["iteration"],
            ),
        ],
    )
}

#[test]
fn a_server_that_lies_in_its_archive_is_found_out() -> Result {
    let base = |archive: Tar| Impostor::who_backs_up(move |peer| peer.send_backup(&[], &archive));
    let raw = |bytes: Vec<u8>| {
        Impostor::who_backs_up(move |peer| {
            peer.begin_backup(&[])?;
            peer.begin_archive("base.tar", "")?;
            peer.data(&bytes)?;
            peer.end_backup(&manifest("")?)
        })
    };
    must_fail(
        "impostor-archive",
        vec![
            ("upwards", base(Tar::whole().file("../evil", b"x"))?, &["impossible name"]),
            ("upwards-within", base(Tar::whole().file("base/../../evil", b"x"))?, &["impossible name"]),
            ("absolute", base(Tar::whole().file("/etc/evil", b"x"))?, &["impossible name"]),
            ("nameless", base(Tar::whole().file("", b"x"))?, &["impossible name"]),
            (
                "twice",
                base(Tar::whole().file("base/1/1", b"x").file("base/1/1", b"y"))?,
                &["twice", "already", "duplicate"],
            ),
            ("device", base(Tar::whole().member("base/zero", b'3', 0, ""))?, &["malformed-archive"]),
            ("hard-link", base(Tar::whole().member("base/shadow", b'1', 0, "/etc/shadow"))?, &["malformed-archive"]),
            (
                "full-directory",
                base(Tar::whole().member("base", b'5', 512, "").bytes(&[0; 512]))?,
                &["malformed-archive"],
            ),
            (
                "shorter",
                raw(Tar::whole().member("base/1/1", b'0', 5_000, "").bytes(&[1; 512]).open().to_vec())?,
                &["malformed-archive"],
            ),
            (
                "longer",
                raw(Tar::whole().member("base/1/1", b'0', 512, "").bytes(&[1; 5_120]).ended())?,
                &["malformed-archive"],
            ),
            ("after-the-end", raw([Tar::whole().ended(), vec![1; 512]].concat())?, &["malformed-archive"]),
            ("without-an-end", raw(Tar::whole().open().to_vec())?, &["malformed-archive"]),
            (
                "exabytes",
                raw(Tar::whole().member("base/1/1", b'0', 1 << 60, "").bytes(&[1; 5_120]).open().to_vec())?,
                &["malformed-archive"],
            ),
            (
                "long-name",
                raw(Tar::whole().member("long", b'L', 1 << 30, "").bytes(&[b'a'; 5_120]).open().to_vec())?,
                &["malformed-archive"],
            ),
            ("bad-sum", raw(Tar::whole().bytes(&[7; 512]).ended())?, &["malformed-archive"]),
            ("no-control", base(Tar::default().file("backup_label", b"x"))?, &["backup-incomplete"]),
            ("nothing", base(Tar::default())?, &["backup-incomplete"]),
            (
                "endless-file",
                Impostor::who_backs_up(|peer| {
                    peer.begin_backup(&[])?;
                    peer.begin_archive("base.tar", "")?;
                    peer.data(Tar::whole().member("base/1/1", b'0', 1 << 50, "").open())?;
                    for_ever(|| peer.data(&[0x5A; 60_000]))
                })?,
                &["output"],
            ),
            (
                "endless-progress",
                Impostor::who_backs_up(|peer| {
                    peer.begin_backup(&[])?;
                    for_ever(|| peer.message(b'd', b"p\0\0\0\0\0\0\0\0"))
                })?,
                &["protocol-error", "wall"],
            ),
        ],
    )
}

#[test]
fn a_server_that_lies_around_its_archive_is_found_out() -> Result {
    let ends = |manifest: Vec<u8>| {
        Impostor::who_backs_up(move |peer| {
            peer.begin_backup(&[])?;
            peer.begin_archive("base.tar", "")?;
            peer.data(&Tar::whole().ended())?;
            peer.end_backup(&manifest)
        })
    };
    let tablespaces =
        |list: &'static [(&str, &str)]| Impostor::who_backs_up(move |peer| peer.send_backup(list, &Tar::whole()));
    must_fail(
        "impostor-around",
        vec![
            ("cut-manifest", ends(b"{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n".to_vec())?, &["manifest"]),
            (
                "wrong-seal",
                ends(
                    String::from_utf8_lossy(&manifest("").unwrap_or_default())
                        .replace("Timeline\": 1", "Timeline\": 2")
                        .into_bytes(),
                )?,
                &["manifest"],
            ),
            ("no-manifest", ends(Vec::new())?, &["manifest"]),
            ("line-without-end", ends(vec![b'x'; 3 << 20])?, &["manifest"]),
            (
                "unknown-archive",
                Impostor::who_backs_up(|peer| {
                    peer.begin_backup(&[])?;
                    peer.begin_archive("4711.tar", "/etc")?;
                    peer.data(&Tar::whole().ended())?;
                    peer.end_backup(&manifest("")?)
                })?,
                &["unknown tablespace"],
            ),
            ("named-upwards", tablespaces(&[("../evil", "/tmp")])?, &["protocol-error"]),
            (
                "twice-the-same",
                tablespaces(&[("16385", "/srv/a"), ("16385", "/srv/b")])?,
                &["protocol-error", "twice", "already"],
            ),
            (
                "data-first",
                Impostor::who_backs_up(|peer| {
                    peer.begin_backup(&[])?;
                    peer.data(&Tar::whole().ended())
                })?,
                &["protocol-error"],
            ),
            (
                "names",
                Impostor::who_backs_up(|peer| {
                    peer.begin_backup(&[])?;
                    peer.begin_archive(&"x".repeat(1 << 20), "")
                })?,
                &["protocol-error"],
            ),
            ("no-start", Impostor::who_backs_up(|peer| peer.rows(&[]))?, &["protocol-error"]),
            (
                "odd-start",
                Impostor::who_backs_up(|peer| peer.rows(&[&[Some("over there"), Some("-1")]]))?,
                &["protocol-error"],
            ),
            (
                "refusal",
                Impostor::who_backs_up(|peer| peer.message(b'E', b"SERROR\0VERROR\0CXX000\0M\x1B[2Jno\x07\0\0"))?,
                &["server-error"],
            ),
        ],
    )
}

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
