//! Lies in the archive: names, types, lengths, and no end.

use holdfast_tests::Result;
use holdfast_tests::impostor::{Impostor, Tar, manifest};

use super::{for_ever, must_fail};

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
                "endless-files",
                Impostor::who_backs_up(|peer| {
                    peer.begin_backup(&[])?;
                    peer.begin_archive("base.tar", "")?;
                    let mut number = 0_u64;
                    for_ever(|| {
                        number += 1;
                        peer.data(Tar::default().file(&format!("base/1/{number:080}"), b"").open())
                    })
                })?,
                &["entries"],
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
