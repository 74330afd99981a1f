use super::*;
use sha2::{Digest, Sha256};

fn sealed(body: &str) -> Vec<u8> {
    let sum = hex::encode(Sha256::digest(body));
    format!("{body}\"Manifest-Checksum\": \"{sum}\"}}\n").into_bytes()
}

const BODY: &str = r#"{ "PostgreSQL-Backup-Manifest-Version": 2,
"System-Identifier": 7300000000000000001,
"Files": [
{ "Path": "backup_label", "Size": 227, "Last-Modified": "2024-10-04 09:56:18 GMT", "Checksum-Algorithm": "CRC32C", "Checksum": "2a65a0a8" },
{ "Encoded-Path": "61ff62", "Size": 0, "Last-Modified": "2024-10-04 09:56:18 GMT" }
],
"WAL-Ranges": [
{ "Timeline": 1, "Start-LSN": "0/2000028", "End-LSN": "0/2000100" }
],
"#;

/// Gives bytes in pieces.
struct Pieces<'a>(&'a [u8], usize);

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.1.min(buffer.len());
        (&mut self.0).take(count as u64).read(buffer)
    }
}

#[test]
fn reads_files_ranges_and_identity_however_they_arrive() {
    let bytes = sealed(BODY);
    for piece in [1, 3, 100, 10_000] {
        let mut files = Vec::new();
        let manifest = read(Pieces(&bytes, piece), |file| {
            files.push((file.path()?, file.size, file.algorithm, file.checksum));
            Ok(())
        })
        .expect("valid");
        assert_eq!(manifest.files, 2);
        assert_eq!(manifest.system_identifier, Some(7_300_000_000_000_000_001));
        assert_eq!(manifest.wal_ranges, [WalRange { timeline: 1, start: Lsn(0x200_0028), end: Lsn(0x200_0100) }]);
        assert_eq!(files[0], ("backup_label".into(), 227, Some("CRC32C".into()), Some("2a65a0a8".into())));
        assert_eq!(files[1], ("a%FFb".into(), 0, None, None));
    }
}

#[test]
fn every_changed_byte_is_noticed() {
    let bytes = sealed(BODY);
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        assert!(read(&changed[..], |_| Ok(())).is_err(), "byte {at}");
    }
}

#[test]
fn every_cut_is_noticed() {
    let bytes = sealed(BODY);
    for end in 0..bytes.len() - 1 {
        assert!(read(&bytes[..end], |_| Ok(())).is_err(), "cut at {end}");
    }
}

#[test]
fn hostile_documents_are_refused() {
    for body in [
        "",
        "[\n",
        "{\n\"Files\": [{ \"Path\": \"a\" }],\n",
        "{\n\"Files\": [{ \"Path\": \"a\", \"Size\": -1 }],\n",
        "{\n\"WAL-Ranges\": [{ \"Timeline\": 1, \"Start-LSN\": \"x\", \"End-LSN\": \"0/1\" }],\n",
    ] {
        assert!(read(&sealed(body)[..], |_| Ok(())).is_err(), "{body:?}");
    }
    let mut seal = Seal::default();
    let endless = (0..64).try_for_each(|_| seal.update(&[b'x'; 65_536]));
    assert!(endless.is_err(), "a line without end");
    let escaping = sealed("{\n\"Files\": [{ \"Path\": \"../a\", \"Size\": 1 }],\n");
    assert!(read(&escaping[..], |file| file.path().map(drop)).is_err());
}

#[test]
fn the_callers_own_error_comes_out_as_it_is() {
    let error = read(&sealed(BODY)[..], |_| Err(Error::new("mine", "as it was").retryable())).expect_err("stopped");
    assert_eq!((error.code.as_ref(), error.retryable), ("mine", true));
}
