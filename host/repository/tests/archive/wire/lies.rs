//! A service that lies: wrong bytes, objects that it does not show, an older state, heads that are none, another service altogether.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use holdfast_repository::Repository;
use holdfast_tests::certificates::Authority;
use holdfast_tests::s3::{BUCKET, S3Server};
use holdfast_tests::wire::{Asked, Fault, Said, Wire};

use super::{ALWAYS, PATIENCE, Scene, Service, any, must_be_clear, one_in, pairs, puts_a_head, told_with};
use crate::setting::run;
use crate::story::{Failure, Stage};

fn is_reading(asked: &Asked) -> bool {
    asked.is_reading()
}

fn is_listing(asked: &Asked) -> bool {
    asked.is_listing()
}

fn reads_a_head(asked: &Asked) -> bool {
    asked.is_reading() && asked.path.contains("/heads/")
}

/// Reads or lists heads.
fn looks_at_heads(asked: &Asked) -> bool {
    reads_a_head(asked) || asked.is_listing() && asked.query.contains("heads%2F")
}

fn looks_at_keyrings(asked: &Asked) -> bool {
    asked.path.contains("/keyring/") || asked.is_listing() && asked.query.contains("keyring%2F")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => drop(fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

/// A story that was told to its end, and a service that shows the state in which it was at its second backup.
async fn with_an_older_state() -> (Scene, S3Server, Stage) {
    let scene = Scene::new();
    // The last head of the first two backups and their copies, then no more.
    scene.wire.strike(puts_a_head, 4, ALWAYS, Fault::Answer(Said::error(403, "AccessDenied")));
    scene.story(PATIENCE).tell().await.unwrap_err();
    let Service::Directory(service) = &scene.service else { panic!("it has no directory") };
    let stage = Stage::new();
    let older = S3Server::start(&stage.places()).unwrap();
    copy(&service.root().join(BUCKET), &older.root().join(BUCKET));
    scene.wire.clear();
    scene.story(PATIENCE).tell().await.unwrap();
    (scene, older, stage)
}

#[test]
fn wrong_bytes_and_hidden_objects_are_passed_on_nowhere() {
    let faults = [
        Fault::FlipAnswer,
        Fault::ShortenAnswer,
        Fault::Lengthen,
        Fault::Exchange(Said::text(200, "not what was kept")),
        Fault::Answer(Said::error(404, "NoSuchKey")),
    ];
    run(async {
        for (fault, skip) in pairs(&faults, 150, 2) {
            // Whether anybody needed them, or asked again.
            let _ = told_with(PATIENCE, is_reading, (skip, 1), fault).await;
        }
    });
}

#[test]
fn a_listing_that_is_none_or_does_not_end_is_no_listing() {
    let cases = [
        Fault::Answer(Said::text(200, "")),
        Fault::Answer(Said::text(200, "<html><body>Welcome to the console</body></html>")),
        Fault::Answer(Said::text(200, "<ListBucketResult><Contents><Key>here/")),
        Fault::Answer(Said::text(200, "<ListBucketResult><KeyCount>1</KeyCount><IsTruncated>false</IsTruncated>")),
        Fault::Repeat,
    ];
    run(async {
        for (fault, skip) in pairs(&cases, 30, 1) {
            match told_with(PATIENCE, is_listing, (skip, ALWAYS), fault.clone()).await {
                Err(Failure::Step(error)) => assert_eq!(error.code(), "storage-protocol", "{fault:?}: {error}"),
                told => panic!("{fault:?} at listing {skip}: {told:?}"),
            }
        }
    });
}

#[test]
fn a_listing_that_lags_or_repeats_itself_costs_nothing() {
    run(async {
        let stage = Stage::new();
        let empty = S3Server::start(&stage.places()).unwrap();
        for (fault, times) in [(Fault::Elsewhere(empty.port().unwrap()), ALWAYS), (Fault::Repeat, 1)] {
            let told = told_with(PATIENCE, is_listing, (3, times), fault.clone()).await;
            assert!(told.is_ok(), "{fault:?}: {told:?}");
        }
    });
}

#[test]
fn an_older_state_is_written_over_nowhere_and_costs_nothing() {
    run(async {
        let (scene, older, _stage) = with_an_older_state().await;
        let fault = Fault::Elsewhere(older.port().unwrap());
        scene.wire.strike(|asked| asked.is_reading() || asked.is_listing(), 0, ALWAYS, fault);
        // Whoever begins anew knows nothing of what is not shown, and writes; what is there already makes way for nobody.
        match scene.story(PATIENCE).tell().await {
            Err(Failure::Step(error)) => {
                must_be_clear(&error);
                assert_eq!(error.code(), "broken-chain", "{error}");
            }
            told => panic!("it was written over: {told:?}"),
        }
        scene.must_end_well(&Ok(())).await;
    });
}

#[test]
fn an_older_state_is_found_by_who_saw_a_newer_one() {
    run(async {
        let (scene, older, _stage) = with_an_older_state().await;
        let story = scene.story(PATIENCE);
        let running = story.writer("here", 7).await.unwrap();
        let seen = running.newest_heads().await.unwrap().remove(0);
        scene.wire.strike(looks_at_heads, 0, ALWAYS, Fault::Elsewhere(older.port().unwrap()));
        let error = running.newest_heads().await.unwrap_err();
        must_be_clear(&error);
        assert_eq!(error.code(), "lost-object");
        // After a restart only what was remembered elsewhere knows better.
        let restarted = story.writer("here", 7).await.unwrap();
        assert!(!restarted.holds_head(seen.domain, seen.sequence, seen.digest).await.unwrap());
        assert!(restarted.newest_heads().await.unwrap()[0].sequence < seen.sequence);
    });
}

#[test]
fn an_older_keyring_is_found_by_the_heads() {
    run(async {
        let (scene, older, _stage) = with_an_older_state().await;
        let story = scene.story(PATIENCE);
        story.reborn("there").await.unwrap();
        scene.wire.strike(looks_at_keyrings, 0, ALWAYS, Fault::Elsewhere(older.port().unwrap()));
        let error = story.reborn("there").await.unwrap_err();
        must_be_clear(&error);
        assert_eq!(error.code(), "lost-keyring", "{error}");
        scene.must_end_well(&Ok(())).await;
    });
}

/// Writes so many heads that change nothing.
async fn write_heads(repository: &Repository, count: usize) {
    let domain = repository.newest_heads().await.unwrap().remove(0).domain;
    let record = repository.backups(domain).await.unwrap().remove(0);
    for _ in 0..count {
        repository.amend(domain, vec![record.clone()]).await.unwrap();
    }
}

#[test]
fn writers_whose_answers_are_lost_know_their_own_heads_from_others() {
    run(async {
        let scene = Scene::new();
        let story = scene.story(PATIENCE);
        story.tell().await.unwrap();
        let (one, other) = (story.writer("here", 1).await.unwrap(), story.writer("here", 2).await.unwrap());
        let before = one.newest_heads().await.unwrap()[0].sequence;
        let sometimes = one_in(2, 5);
        scene.wire.strike(move |asked| puts_a_head(asked) && sometimes(asked), 0, 8, Fault::LoseAnswer);
        tokio::join!(write_heads(&one, 6), write_heads(&other, 6));
        assert!(scene.wire.struck() > 2);
        // Each was written once: nobody took his own for another's, and wrote it again, or another's for his own.
        assert_eq!(story.writer("here", 3).await.unwrap().newest_heads().await.unwrap()[0].sequence, before + 12);
        scene.wire.clear();
        scene.beneath().must_hold().await;
    });
}

#[test]
fn a_head_that_arrives_wrong_is_no_strangers_and_stays() {
    run(async {
        let scene = Scene::with_versions();
        let story = scene.story(PATIENCE);
        scene.beneath().tell().await.unwrap();
        let (late, early) = (story.writer("here", 1).await.unwrap(), scene.beneath().writer("here", 2).await.unwrap());
        let before = early.newest_heads().await.unwrap()[0].sequence;
        scene.wire.strike(puts_a_head, 0, 1, Fault::Stall);
        // Another writer is quicker, and his head cannot be read rightly then.
        let reads = |asked: &Asked| reads_a_head(asked) && asked.method == "GET" && !asked.query.contains("versionId");
        let quicker = async {
            scene.wire.wait_until_struck(1).await;
            scene.wire.strike(reads, 0, 2, Fault::FlipAnswer);
            write_heads(&early, 1).await;
            scene.wire.release();
        };
        tokio::join!(write_heads(&late, 1), quicker);
        assert!(scene.wire.struck() > 1, "no head arrived wrong");
        let there_are = story.writer("here", 3).await.unwrap().newest_heads().await.unwrap();
        assert_eq!(there_are[0].sequence, before + 2);
        let Service::Minio(minio) = &scene.service else { panic!("it keeps no versions") };
        let hidden = minio.kept("here/").unwrap().into_iter().filter(|kept| kept.is_marker);
        assert!(!hidden.into_iter().any(|kept| kept.key.contains("/heads/")), "a head was deleted");
        scene.wire.clear();
        scene.beneath().must_hold().await;
    });
}

#[test]
fn nobody_follows_to_where_an_answer_sends() {
    run(async {
        let trap = Arc::new(Wire::before(1).unwrap());
        let place = format!("http://user:secret@127.0.0.1:{}/vault?token=secret", trap.port());
        for status in [301, 302, 303, 307, 308] {
            let sent = Said::text(status, "").with("location", &place);
            match told_with(PATIENCE, any, (40, ALWAYS), Fault::Answer(sent)).await {
                Err(Failure::Step(error)) => {
                    assert_eq!(error.code(), "storage-protocol", "{error}");
                    assert!(error.to_string().contains(&format!("http://127.0.0.1:{}", trap.port())), "{error}");
                    assert!(!error.to_string().contains("secret"), "{error}");
                }
                told => panic!("{status}: {told:?}"),
            }
        }
        assert_eq!(trap.asked(), [], "somebody came");
    });
}

#[test]
fn a_service_that_shows_another_certificate_is_told_nothing() {
    run(async {
        let scene = Scene::new();
        let authorities = ["ours", "strange"].map(|name| Authority::new(&scene.stage.notes().join(name)).unwrap());
        let [ours, strange] = authorities.each_ref().map(|authority| authority.server(&["127.0.0.1"]).unwrap());
        let endpoint = format!("https://127.0.0.1:{}", scene.wire.port());
        let trusted = authorities[0].certificate.display().to_string();
        let tell = || async { scene.story_at(&endpoint, PATIENCE, &[("ca", &trusted)]).tell().await };
        scene.wire.show(&ours).unwrap();
        tell().await.unwrap();
        let asked = scene.wire.asked().len();
        scene.wire.show(&strange).unwrap();
        match tell().await {
            Err(Failure::Step(error)) => {
                must_be_clear(&error);
                assert_eq!(error.code(), "certificate-untrusted", "{error}");
            }
            told => panic!("it was trusted: {told:?}"),
        }
        assert_eq!(scene.wire.asked().len(), asked);
        scene.wire.show(&ours).unwrap();
        tell().await.unwrap();
        scene.beneath().must_hold().await;
        scene.beneath().must_be_at_its_end().await;
    });
}
