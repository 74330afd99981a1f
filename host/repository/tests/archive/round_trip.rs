//! What goes in comes out: every class and length, ranges, digests, records; and equal bytes are stored once.

use holdfast_repository::{ContentClass, EntryKind};
use proptest::prelude::*;

use crate::setting::{Appliance, CHUNK, Files, file, files, noise, read, record, run};

#[test]
fn a_backup_gives_back_every_byte() {
    run(async {
        let appliance = Appliance::new().await;
        let files = files(1);
        let record = appliance.back_up(&files).await.unwrap();
        assert_eq!(record.entries, files.len() as u64);
        assert_eq!(record.logical_bytes, files.values().map(|(_, bytes)| bytes.len() as u64).sum::<u64>());
        assert!(record.finished_ms > 0 && record.stored_bytes > 0);
        assert!(appliance.holds(&record, &files).await.unwrap());
        let again = appliance.restarted().await;
        assert!(again.holds(&record, &files).await.unwrap());
        assert_eq!(again.repository.backups(again.domain).await.unwrap(), std::slice::from_ref(&record));
        let reader = again.reader(&record).await;
        assert_eq!(reader.document(), r#"{"entries":1}"#);
        assert_eq!(again.repository.component(reader.component()).await.unwrap(), b"a component");
        let entry = &reader.entries("base/512", "", 1).await.unwrap()[0];
        let mut expected = file("base/512");
        expected.size = Some(512);
        assert_eq!(*entry, expected);
    });
}

#[test]
fn long_entries_have_lists_and_every_range_of_them_is_read() {
    run(async {
        let appliance = Appliance::new().await;
        // More chunks than one list holds make a tree of two levels.
        let pages = [noise(1, 13 * CHUNK).repeat(80), noise(3, 5)].concat();
        let stream = noise(2, 40 << 20);
        let files = Files::from([
            ("pages".to_owned(), (ContentClass::Pages(8192), pages.clone())),
            ("stream".to_owned(), (ContentClass::Bytes, stream.clone())),
        ]);
        let record = appliance.back_up(&files).await.unwrap();
        let reader = appliance.reader(&record).await;
        for (path, bytes) in [("pages", &pages), ("stream", &stream)] {
            assert!(read(&reader, path, 0, None).await.unwrap() == *bytes);
            let end = bytes.len() as u64;
            for (offset, length) in [
                (0, 0),
                (0, 1),
                (CHUNK as u64 - 1, 2),
                (CHUNK as u64 * 1024 - 1, 3),
                (end - 1, 1),
                (end - 1, 9),
                (end, 1),
                (end + 9, 9),
            ] {
                let from = bytes.len().min(offset as usize);
                let to = bytes.len().min((offset + length) as usize);
                let part = read(&reader, path, offset, Some(length)).await.unwrap();
                assert!(part == bytes[from..to], "{path} {offset} {length}");
            }
            let blake3 = reader.digest(path, "blake3").await.unwrap();
            assert_eq!(blake3, *blake3_of(bytes));
        }
        assert_eq!(reader.digest("pages", "md5").await.unwrap_err().code(), "unknown-algorithm");
        assert_eq!(reader.open("absent", 0, None).await.unwrap_err().code(), "no-such-entry");
    });
}

fn blake3_of(bytes: &[u8]) -> Box<[u8; 32]> {
    Box::new(holdfast_repository::Digest::of(bytes).0)
}

#[test]
fn a_big_sparse_entry_costs_one_chunk() {
    run(async {
        let appliance = Appliance::new().await;
        let size = 3_u64 << 30;
        let writer = appliance.begin().await.unwrap();
        let mut entry = writer.begin_entry(file("sparse"), ContentClass::Pages(8192)).await.unwrap();
        let zeros = vec![0; 1 << 20];
        for _ in 0..size >> 20 {
            entry.write(&zeros).await.unwrap();
        }
        assert_eq!(entry.finish().await.unwrap(), size);
        assert_eq!(writer.totals(), (1, size));
        let record = writer.commit(record("sparse"), "{}".into()).await.unwrap();
        assert!(record.stored_bytes < 100_000, "{}", record.stored_bytes);
        let reader = appliance.reader(&record).await;
        let mut content = reader.open("sparse", 0, None).await.unwrap();
        let mut total = 0;
        while let Some(piece) = content.next().await.unwrap() {
            assert!(piece.iter().all(|byte| *byte == 0));
            total += piece.len() as u64;
        }
        assert_eq!(total, size);
    });
}

#[test]
fn a_second_backup_stores_what_changed() {
    run(async {
        let appliance = Appliance::new().await;
        let mut files = files(1);
        files.insert("big".into(), (ContentClass::Pages(8192), noise(9, 8 << 20)));
        let first = appliance.back_up(&files).await.unwrap();
        files.get_mut("big").unwrap().1[5_000_000] ^= 1;
        let second = appliance.restarted().await.back_up(&files).await.unwrap();
        assert!(first.stored_bytes > 8 << 20);
        assert!(second.stored_bytes < 2 * CHUNK as u64, "{}", second.stored_bytes);
        assert!(appliance.holds(&second, &files).await.unwrap());
        let stats = appliance.repository.stats().await.unwrap();
        assert_eq!((stats.backups, stats.packs), (2, 2));
        assert_eq!(stats.logical_bytes, first.logical_bytes + second.logical_bytes);
        assert!(stats.stored_bytes >= first.stored_bytes + second.stored_bytes && stats.chunks > 32);
    });
}

#[test]
fn equal_bytes_in_one_backup_are_stored_once() {
    run(async {
        let appliance = Appliance::new().await;
        let bytes = noise(1, 4 << 20);
        let copies = ["a", "b", "c"].map(|path| (path.to_owned(), (ContentClass::Pages(8192), bytes.clone())));
        let record = appliance.back_up(&copies.into()).await.unwrap();
        assert!(record.stored_bytes < 5 << 20, "{}", record.stored_bytes);
    });
}

#[test]
fn entries_may_be_written_side_by_side_from_any_thread() {
    run(async {
        let appliance = Appliance::new().await;
        let writer = std::sync::Arc::new(appliance.begin().await.unwrap());
        let threads: Vec<_> = (0..8)
            .map(|number| {
                let writer = writer.clone();
                // Each guest has a thread and a runtime of its own.
                std::thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                    runtime.block_on(async {
                        let class = if number % 2 == 0 { ContentClass::Bytes } else { ContentClass::Pages(4096) };
                        let mut entry = writer.begin_entry(file(&format!("part/{number}")), class).await.unwrap();
                        for step in 0..64 {
                            entry.write(&noise(number * 1000 + step, 100_003)).await.unwrap();
                        }
                        entry.finish().await.unwrap()
                    })
                })
            })
            .collect();
        let sizes: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert_eq!(sizes, [64 * 100_003; 8]);
        let writer = std::sync::Arc::into_inner(writer).unwrap();
        let record = writer.commit(record("parallel"), "{}".into()).await.unwrap();
        let reader = appliance.reader(&record).await;
        for number in 0..8 {
            let expected: Vec<_> = (0..64).flat_map(|step| noise(number * 1000 + step, 100_003)).collect();
            assert!(read(&reader, &format!("part/{number}"), 0, None).await.unwrap() == expected);
        }
        // Whoever polls, the storage is called on the runtime that the repository was opened on.
        let threads = appliance.storage.threads.lock().unwrap().clone();
        assert_eq!(threads.into_iter().collect::<Vec<_>>(), [Some("repository".to_owned())]);
    });
}

#[test]
fn directories_links_and_annotations_come_back() {
    run(async {
        let appliance = Appliance::new().await;
        let writer = appliance.begin().await.unwrap();
        for (path, kind) in [("d", EntryKind::Directory), ("d/link", EntryKind::Symlink("../elsewhere".into()))] {
            let mut entry = file(path);
            entry.kind = kind;
            let mut entry = writer.begin_entry(entry, ContentClass::Bytes).await.unwrap();
            assert_eq!(entry.write(b"x").await.unwrap_err().code(), "not-a-file");
            drop(entry);
        }
        for (path, kind) in [("d", EntryKind::Directory), ("d/link", EntryKind::Symlink("../elsewhere".into()))] {
            let mut entry = file(path);
            entry.kind = kind;
            writer.begin_entry(entry, ContentClass::Bytes).await.unwrap().finish().await.unwrap();
        }
        writer.annotate("d", "rows", "12").await.unwrap();
        assert_eq!(writer.annotate("absent", "k", "v").await.unwrap_err().code(), "no-such-entry");
        let too_long = "v".repeat(70_000);
        assert_eq!(writer.annotate("d", "k", &too_long).await.unwrap_err().code(), "annotations-too-long");
        let record = writer.commit(record("kinds"), "{}".into()).await.unwrap();
        let reader = appliance.reader(&record).await;
        let entries = reader.entries("", "", 10).await.unwrap();
        assert_eq!(entries[0].annotations["rows"], "12");
        assert_eq!(entries[1].kind, EntryKind::Symlink("../elsewhere".into()));
        assert_eq!(reader.open("d", 0, None).await.unwrap_err().code(), "not-a-file");
    });
}

#[test]
fn wrong_entries_are_refused_and_aborted_ones_forgotten() {
    run(async {
        let appliance = Appliance::new().await;
        let writer = appliance.begin().await.unwrap();
        for path in ["", "/etc/passwd", "a/../b", "a//b"] {
            let refused = writer.begin_entry(file(path), ContentClass::Bytes).await.unwrap_err();
            assert_eq!(refused.code(), "invalid-path", "{path}");
        }
        for page in [0, 2 << 20] {
            let refused = writer.begin_entry(file("p"), ContentClass::Pages(page)).await.unwrap_err();
            assert_eq!(refused.code(), "invalid-page-size");
        }
        let mut sized = file("sized");
        sized.size = Some(4);
        for bytes in [b"123".as_slice(), b"12345"] {
            let mut entry = writer.begin_entry(sized.clone(), ContentClass::Bytes).await.unwrap();
            let written = entry.write(bytes).await;
            let result = match written {
                Ok(()) => entry.finish().await,
                Err(error) => Err(error),
            };
            assert_eq!(result.unwrap_err().code(), "size-mismatch");
        }
        let mut aborted = writer.begin_entry(file("aborted"), ContentClass::Pages(8192)).await.unwrap();
        aborted.write(&noise(1, 200_000)).await.unwrap();
        let twice = writer.begin_entry(file("aborted"), ContentClass::Bytes).await.unwrap_err();
        assert_eq!(twice.code(), "duplicate-path");
        drop(aborted);
        assert_eq!(writer.totals(), (0, 0));
        let mut entry = writer.begin_entry(file("kept"), ContentClass::Pages(8192)).await.unwrap();
        entry.write(&noise(1, 200_000)).await.unwrap();
        entry.finish().await.unwrap();
        let twice = writer.begin_entry(file("kept"), ContentClass::Bytes).await.unwrap_err();
        assert_eq!(twice.code(), "duplicate-path");
        let record = writer.commit(record("kept"), "{}".into()).await.unwrap();
        assert_eq!((record.entries, record.logical_bytes), (1, 200_000));
        let reader = appliance.reader(&record).await;
        assert!(read(&reader, "kept", 0, None).await.unwrap() == noise(1, 200_000));
    });
}

#[test]
fn many_entries_are_found_and_paged() {
    run(async {
        let appliance = Appliance::new().await;
        let mut files = Files::new();
        for number in 0..20_000 {
            let path = format!("table/{:05}/part", number);
            files.insert(path, (ContentClass::Bytes, format!("row {number}").into_bytes()));
        }
        let first = appliance.back_up(&files).await.unwrap();
        let reader = appliance.reader(&first).await;
        let (mut after, mut seen) = (String::new(), 0);
        loop {
            let page = reader.entries("table/", &after, 777).await.unwrap();
            let Some(last) = page.last() else { break };
            after = last.path.clone();
            seen += page.len();
        }
        assert_eq!(seen, files.len());
        assert_eq!(reader.entries("table/0012", "", 1000).await.unwrap().len(), 10);
        assert!(reader.entries("zebra", "", 10).await.unwrap().is_empty());
        assert!(reader.entries("alpha", "", 10).await.unwrap().is_empty());
        for number in [0, 1, 9_999, 19_999] {
            let bytes = read(&reader, &format!("table/{number:05}/part"), 0, None).await.unwrap();
            assert_eq!(bytes, format!("row {number}").as_bytes());
        }
        // One entry more changes one table chunk.
        files.insert("table/10000/zone".into(), (ContentClass::Bytes, b"new".to_vec()));
        let second = appliance.back_up(&files).await.unwrap();
        assert!(second.stored_bytes < first.stored_bytes / 4, "{} {}", first.stored_bytes, second.stored_bytes);
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_files_written_in_any_pieces_come_back(
        lengths in proptest::collection::vec(0_usize..400_000, 1..5),
        pieces in proptest::collection::vec(1_usize..150_000, 1..6),
        pages in proptest::option::of(1_u32..70_000),
        offset in 0_u64..400_000,
        length in 0_u64..400_000,
    ) {
        run(async {
            let appliance = Appliance::new().await;
            let class = pages.map_or(ContentClass::Bytes, ContentClass::Pages);
            let writer = appliance.begin().await.unwrap();
            for (number, size) in lengths.iter().enumerate() {
                let bytes = noise(number as u64, *size);
                let mut entry = writer.begin_entry(file(&number.to_string()), class).await.unwrap();
                let (mut rest, mut piece) = (&bytes[..], pieces.iter().cycle());
                while !rest.is_empty() {
                    let space = entry.space();
                    let count = rest.len().min(space.len()).min(*piece.next().unwrap());
                    space[..count].copy_from_slice(&rest[..count]);
                    entry.advance(count).await.unwrap();
                    rest = &rest[count..];
                }
                assert_eq!(entry.finish().await.unwrap(), *size as u64);
            }
            let record = writer.commit(record("any"), "{}".into()).await.unwrap();
            let reader = appliance.reader(&record).await;
            for (number, size) in lengths.iter().enumerate() {
                let bytes = noise(number as u64, *size);
                assert!(read(&reader, &number.to_string(), 0, None).await.unwrap() == bytes);
                let (from, to) = (bytes.len().min(offset as usize), bytes.len().min((offset + length) as usize));
                let part = read(&reader, &number.to_string(), offset, Some(length)).await.unwrap();
                assert!(part == bytes[from..to]);
            }
        });
    }
}

#[test]
fn small_entries_that_lie_together_are_fetched_together() {
    run(async {
        let appliance = Appliance::new().await;
        let files: Files = (0..400)
            .map(|number| (format!("base/{number:03}"), (ContentClass::Pages(8192), noise(number, 8192))))
            .collect();
        let record = appliance.back_up(&files).await.unwrap();
        let reader = appliance.reader(&record).await;
        let before = appliance.storage.operations();
        for (path, (_, bytes)) in &files {
            assert!(read(&reader, path, 0, None).await.unwrap() == *bytes);
        }
        // 3.2 MB in four windows, each asked for once before it is fetched whole, and the table.
        let requests = appliance.storage.operations() - before;
        assert!(requests < 40, "{requests} requests");
    });
}
