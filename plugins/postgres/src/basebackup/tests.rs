use super::*;
use crate::wire::tests::{data_row, message, scripted};

/// A backup that began, of a server of this version with one tablespace.
fn begun(major: u32) -> BaseBackup {
    let spaces = [Some(16385), None].map(|oid| Space { oid, path: String::new(), bytes: 0 }).to_vec();
    let copies_expected = spaces.len() + 1;
    BaseBackup { major, start: Point { lsn: Lsn(7), timeline: 1 }, spaces, copies: 0, copies_expected, copying: false }
}

/// All pieces of a script up to the end or an error; of data only the lengths.
fn pieces(major: u32, script: &[Vec<u8>]) -> Result<Vec<Piece>> {
    let mut wire = scripted(script.concat());
    let mut backup = begun(major);
    let mut pieces = Vec::new();
    while let Some(piece) = backup.next(&mut wire)? {
        if let Piece::Data(length) = piece {
            let mut data = vec![0; usize::try_from(length).expect("small")];
            wire.read(&mut data)?;
        }
        pieces.push(piece);
    }
    Ok(pieces)
}

fn copy() -> Vec<u8> {
    message(b'H', &[0, 0, 0])
}

fn done() -> Vec<u8> {
    message(b'c', b"")
}

#[test]
fn one_copy_or_many_give_the_same_pieces() {
    let new = [
        copy(),
        message(b'd', b"n16385.tar\0/srv/fast\0"),
        message(b'd', b"dabc"),
        message(b'd', b"p\0\0\0\0\0\0\0\x07"),
        message(b'd', b"nbase.tar\0\0"),
        message(b'd', b"de"),
        message(b'd', b"m"),
        message(b'd', b"df"),
        done(),
    ];
    let old = [
        copy(),
        message(b'd', b"abc"),
        done(),
        copy(),
        message(b'd', b""),
        message(b'd', b"e"),
        done(),
        copy(),
        message(b'd', b"f"),
        done(),
    ];
    let expected = [
        Piece::Archive(Some(16385)),
        Piece::Data(3),
        Piece::Archive(None),
        Piece::Data(1),
        Piece::Manifest,
        Piece::Data(1),
    ];
    assert_eq!(pieces(15, &new).expect("valid"), expected);
    assert_eq!(pieces(14, &old).expect("valid"), expected);
}

#[test]
fn pieces_that_no_server_sends_are_refused() {
    for piece in [&b""[..], b"d", b"x", b"n", b"n../base.tar\0\0", b"n99999999999.tar\0\0"] {
        assert!(pieces(15, &[copy(), message(b'd', piece)]).is_err(), "{piece:?}");
    }
    let names = [b"n".as_slice(), &[b'a'; 10_000]].concat();
    assert!(pieces(15, &[copy(), message(b'd', &names)]).is_err(), "a name without end");
    for script in [
        vec![message(b'd', b"early")],
        vec![done()],
        vec![copy(), copy()],
        vec![copy(), message(b'Z', b"I")],
        vec![copy(), done(), message(b'd', b"between")],
        vec![copy(), message(b'E', b"SERROR\0C58P01\0Mgone\0\0")],
        vec![copy()],
    ] {
        assert!(pieces(14, &script).is_err(), "{script:?}");
    }
}

#[test]
fn endless_progress_ends_in_an_error() {
    let piece = [b"p".as_slice(), &[0; 8_000]].concat();
    let script = [vec![copy()], vec![message(b'd', &piece); 40_000]].concat();
    assert_eq!(pieces(15, &script).expect_err("endless").code, "protocol-error");
}

#[test]
fn a_backup_with_damaged_pages_has_an_end_all_the_same() {
    let position = [data_row(&[Some("0/2000100"), Some("1")]), message(b'C', b"SELECT\0")].concat();
    let corrupted = message(b'E', b"SERROR\0VERROR\0CXX001\0Mdamaged\0\0");
    let other = message(b'E', b"SERROR\0VERROR\0C58030\0Mno\0\0");
    let ready = message(b'Z', b"I");
    let end = |script: &[&[u8]]| begun(15).end(&mut scripted(script.concat()));
    let at = Point { lsn: Lsn(0x200_0100), timeline: 1 };
    assert_eq!(end(&[&position, &ready]).expect("whole"), (at, None));
    let (found, refusal) = end(&[&position, &corrupted, &ready]).expect("whole");
    assert_eq!((found, refusal.map(|error| error.code)), (at, Some(DATA_CORRUPTED.into())));
    assert_eq!(end(&[&corrupted, &ready]).expect_err("no position").code, DATA_CORRUPTED);
    assert_eq!(end(&[&position, &other, &ready]).expect_err("refused").code, "server-storage-failed");
    assert!(end(&[&position]).is_err(), "cut before the end");
}

#[test]
fn speaks_both_grammars() {
    let options = Options { label: "it's", manifest_checksums: Some("CRC32C") };
    let new = command(&options, 15);
    assert!(new.starts_with("BASE_BACKUP (LABEL 'it''s', "), "{new}");
    assert!(new.ends_with("TABLESPACE_MAP true, MANIFEST 'yes', MANIFEST_CHECKSUMS 'CRC32C')"), "{new}");
    let old = command(&options, 14);
    assert!(old.starts_with("BASE_BACKUP LABEL 'it''s' PROGRESS FAST WAL NOWAIT"), "{old}");
    assert!(old.ends_with("TABLESPACE_MAP MANIFEST 'yes' MANIFEST_CHECKSUMS 'CRC32C'"), "{old}");
    let oldest = command(&Options { manifest_checksums: None, ..options }, 12);
    assert!(oldest.ends_with("NOWAIT TABLESPACE_MAP"), "{oldest}");
}

#[test]
fn archives_have_known_names() {
    assert_eq!(archive(b"base.tar\0\0").expect("valid"), Piece::Archive(None));
    assert_eq!(archive(b"16385.tar\0/srv/fast\0").expect("valid"), Piece::Archive(Some(16385)));
    for body in [&b""[..], b"base", b"../x.tar\0", b"99999999999.tar\0", b"\xFF.tar\0"] {
        assert!(archive(body).is_err(), "{body:?}");
    }
}

#[test]
fn spaces_may_lack_everything_but_their_row() {
    let row = |columns: [Option<&str>; 3]| columns.map(|text| text.map(str::to_owned)).to_vec();
    let base = Space::read(&row([None, None, Some("8")])).expect("valid");
    assert_eq!(base, Space { oid: None, path: String::new(), bytes: 8192 });
    assert_eq!(Space::read(&row([Some("16385"), Some("/x"), None])).expect("valid").oid, Some(16385));
    assert!(Space::read(&row([Some("x"), None, None])).is_err());
}
