//! Parts of an entry, opened by whoever takes them: the same bytes as those of a stream, and never a wrong one.

use holdfast_repository::{BackupReader, ContentClass, Error, Opener};

use crate::setting::{Appliance, Files, files, noise, run};

/// Bytes of a part; no multiple of anything.
const PART: u64 = 700_001;

/// An entry's bytes, by parts of this length.
pub async fn in_parts(reader: &BackupReader, opener: &mut Opener, path: &str, length: u64) -> Result<Vec<u8>, Error> {
    let entry = reader.entry(path).await?;
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < entry.size() {
        let start = bytes.len() as u64;
        let mut part = entry.part(start..start + length).await?;
        while let Some(piece) = part.next(opener).await? {
            assert!(!piece.is_empty());
            bytes.extend_from_slice(piece);
        }
    }
    Ok(bytes)
}

#[test]
fn parts_are_the_bytes_of_their_range() {
    run(async {
        let appliance = Appliance::new().await;
        let mut files = files(1);
        let zeros = [noise(2, 3 << 20), vec![0; 3 << 20], noise(3, 1 << 20)].concat();
        files.insert("long".into(), (ContentClass::Bytes, noise(4, 5 << 20)));
        files.insert("sparse".into(), (ContentClass::Pages(8192), zeros));
        let record = appliance.back_up(&files).await.unwrap();
        let reader = appliance.reader(&record).await;
        let mut opener = Opener::new().unwrap();
        for (path, (_, bytes)) in &files {
            for length in [PART, 65_536, u64::MAX / 2] {
                assert!(in_parts(&reader, &mut opener, path, length).await.unwrap() == *bytes, "{path} by {length}");
            }
        }
        let entry = reader.entry("long").await.unwrap();
        let mut beyond = entry.part(entry.size()..u64::MAX).await.unwrap();
        assert!(beyond.next(&mut opener).await.unwrap().is_none());
        assert_eq!(reader.entry("absent").await.unwrap_err().code(), "no-such-entry");
    });
}

#[test]
fn parts_are_opened_by_many_threads_at_once() {
    run(async {
        let appliance = Appliance::new().await;
        let bytes = noise(5, 9 << 20);
        let files = Files::from([("big".to_owned(), (ContentClass::Pages(8192), bytes.clone()))]);
        let record = appliance.back_up(&files).await.unwrap();
        let entry = std::sync::Arc::new(appliance.reader(&record).await.entry("big").await.unwrap());
        let threads: Vec<_> = (0..entry.size().div_ceil(PART))
            .map(|number| {
                let entry = entry.clone();
                std::thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                    runtime.block_on(async {
                        let mut part = entry.part(number * PART..(number + 1) * PART).await.unwrap();
                        let mut opener = Opener::new().unwrap();
                        let mut bytes = Vec::new();
                        while let Some(piece) = part.next(&mut opener).await.unwrap() {
                            bytes.extend_from_slice(piece);
                        }
                        bytes
                    })
                })
            })
            .collect();
        let parts: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        assert!(parts == bytes);
    });
}

#[test]
fn damage_and_outages_end_a_part_with_an_error() {
    run(async {
        let appliance = Appliance::new().await;
        // So short that its record names its chunks: nothing but they must be fetched.
        let files = Files::from([("big".to_owned(), (ContentClass::Pages(8192), noise(6, 1 << 20)))]);
        let record = appliance.back_up(&files).await.unwrap();
        let reader = appliance.reader(&record).await;
        let entry = reader.entry("big").await.unwrap();
        let mut opener = Opener::new().unwrap();

        appliance.storage.cut_off_after(0, false);
        let mut part = entry.part(0..1 << 20).await.unwrap();
        assert_eq!(part.next(&mut opener).await.unwrap_err().code(), "storage-unreachable");
        // Who asks again gets no bytes either.
        assert!(part.next(&mut opener).await.is_err());
        appliance.storage.mend();

        let pack = appliance.storage.paths("/packs/").remove(0);
        appliance.storage.change(&pack, |bytes| bytes[600_000] ^= 1);
        let error = in_parts(&reader, &mut opener, "big", PART).await.unwrap_err();
        assert_eq!(error.code(), "damaged-chunk");
    });
}
