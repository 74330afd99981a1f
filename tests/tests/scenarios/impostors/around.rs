//! Lies around the archive: in the positions, the tablespaces and the manifest.

use holdfast_tests::Result;
use holdfast_tests::impostor::{Impostor, Tar, manifest};

use super::must_fail;

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
