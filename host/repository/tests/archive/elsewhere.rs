//! What is damaged or gone where a backup is read comes from another target, chunk by chunk; what is intact nowhere is an error as before.

use std::slice::from_ref;

use futures_util::FutureExt as _;
use holdfast_repository::{BackupReader, BackupRecord, ContentClass, Opener, Repository};

use crate::deltas::days;
use crate::parts::in_parts;
use crate::setting::{Appliance, CHUNK, Files, noise, read, run};

/// A backup's reader here, which looks at these places too.
async fn reader(here: &Appliance, record: &BackupRecord, others: &[Repository]) -> BackupReader {
    let (reader, others) = (here.reader(record).await, others.to_vec());
    reader.look_also_at(move || {
        let others = others.clone();
        async move { others }.boxed()
    });
    reader
}

/// Reads all files of a backup in both ways; how many chunks came from elsewhere.
async fn must_be_read(here: &Appliance, (record, files): &(BackupRecord, Files), others: &[Repository]) -> u64 {
    let (reader, mut opener) = (reader(here, record, others).await, Opener::new().unwrap());
    for (path, (_, bytes)) in files {
        assert!(read(&reader, path, 0, None).await.unwrap() == *bytes, "{path}");
        assert!(in_parts(&reader, &mut opener, path, 700_001).await.unwrap() == *bytes, "{path} in parts");
    }
    reader.found_elsewhere()
}

/// Half of the packs are gone at one place, and the other half at the other.
fn lose_halves(places: [&Appliance; 2]) {
    let packs = places[0].storage.paths("/packs/");
    assert!(packs.len() > 1);
    for (number, pack) in packs.iter().enumerate() {
        assert!(places[number % 2].storage.objects.lock().unwrap().remove(pack).is_some());
    }
}

#[test]
fn chunks_that_are_damaged_come_from_another_target() {
    run(async {
        let here = Appliance::new().await;
        let files = Files::from([
            ("large".to_owned(), (ContentClass::Pages(8192), noise(1, 300 * CHUNK))),
            ("text".to_owned(), (ContentClass::Bytes, noise(2, 40 * CHUNK))),
        ]);
        let backup = (here.back_up(&files).await.unwrap(), files);
        let there = here.vault(&[&backup.0]).await;
        assert_eq!(must_be_read(&here, &backup, from_ref(&there.repository)).await, 0);
        let packs = here.storage.paths("/packs/");
        for (place, part) in [(&here, 4), (&there, 2)] {
            for pack in &packs {
                place.storage.change(pack, |bytes| {
                    let position = bytes.len() / part;
                    bytes[position] ^= 1;
                });
            }
        }
        for (near, far) in [(&here, &there), (&there, &here)] {
            assert!(must_be_read(near, &backup, from_ref(&far.repository)).await > 0);
            // Alone neither of them has all of it.
            assert_eq!(near.holds(&backup.0, &backup.1).await.unwrap_err().code(), "damaged-chunk");
        }
    });
}

#[test]
fn lists_tables_deltas_and_their_bases_are_put_together_from_two_targets() {
    run(async {
        let here = Appliance::new().await;
        let days = days(&here, 6).await;
        let there = here.vault(&days.iter().map(|(record, _)| record).collect::<Vec<_>>()).await;
        lose_halves([&here, &there]);
        let mut found = [0, 0];
        for day in &days {
            found[0] += must_be_read(&here, day, from_ref(&there.repository)).await;
            found[1] += must_be_read(&there, day, from_ref(&here.repository)).await;
        }
        assert!(found[0] > 0 && found[1] > 0, "{found:?}");
    });
}

#[test]
fn what_no_index_tells_of_any_more_comes_from_another_target() {
    run(async {
        let here = Appliance::new().await;
        let days = days(&here, 3).await;
        let there = here.vault(&days.iter().map(|(record, _)| record).collect::<Vec<_>>()).await;
        for part in ["/indexes/", "/packs/"] {
            for path in here.storage.paths(part) {
                here.storage.objects.lock().unwrap().remove(&path);
            }
        }
        let here = here.restarted().await;
        for day in &days {
            assert!(must_be_read(&here, day, from_ref(&there.repository)).await > 0);
        }
    });
}

#[test]
fn what_is_damaged_everywhere_is_never_delivered_and_an_outage_is_no_damage() {
    run(async {
        let here = Appliance::new().await;
        let files = Files::from([("large".to_owned(), (ContentClass::Pages(8192), noise(1, 20 * CHUNK)))]);
        let record = here.back_up(&files).await.unwrap();
        let there = here.vault(&[&record]).await;
        let whole = reader(&here, &record, from_ref(&there.repository)).await;
        here.storage.cut_off_after(0, false);
        assert_eq!(read(&whole, "large", 0, None).await.unwrap_err().code(), "storage-unreachable");
        assert_eq!(whole.found_elsewhere(), 0, "the restore goes on from another target as a whole");
        here.storage.mend();
        for place in [&here, &there] {
            for pack in place.storage.paths("/packs/") {
                place.storage.change(&pack, |bytes| bytes[200] ^= 1);
            }
        }
        let damaged = reader(&here, &record, from_ref(&there.repository)).await;
        assert_eq!(read(&damaged, "large", 0, None).await.unwrap_err().code(), "damaged-chunk");
    });
}
