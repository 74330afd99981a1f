//! Both places in an S3 service, spoken to by the real client, with faults between the two: what passes is waited out, what does not ends the work with a
//! clear error, and neither costs anything that was acknowledged. `lies.rs` has services that answer with something else than what is there.

mod lies;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use holdfast_storage::{Patience, Retrying, S3, Settings, Storage};
use holdfast_tests::minio::Minio;
use holdfast_tests::s3::{ACCESS_KEY, BUCKET, S3Server, SECRET_KEY, url_at};
use holdfast_tests::wire::{Asked, Fault, Said, Wire};

use crate::setting::run;
use crate::story::{Failure, PLACES, Stage, Story};
use crate::traced::all_faults;

/// Patience with a service on a busy machine.
const PATIENCE: Patience = Patience {
    attempts: 4,
    first_wait: Duration::from_millis(1),
    longest_wait: Duration::from_millis(2),
    attempt: Duration::from_secs(60),
    slowest_bytes_per_second: 1 << 30,
    listing: Duration::from_secs(60),
};

/// Patience where something stands still for good.
const LITTLE_PATIENCE: Patience =
    Patience { attempts: 2, attempt: Duration::from_millis(500), listing: Duration::from_millis(500), ..PATIENCE };

/// Requests of the shortest story.
const REQUESTS_LEAST: usize = 250;

const ALWAYS: usize = usize::MAX;

/// Who serves.
enum Service {
    /// A bucket that is a directory.
    Directory(S3Server),
    /// MinIO, with a bucket that keeps versions.
    Minio(Minio),
}

/// A service, and the wire before it. The servers end before the directory that they work in.
struct Scene {
    service: Service,
    wire: Wire,
    stage: Stage,
}

impl Scene {
    fn new() -> Self {
        let stage = Stage::new();
        let service = S3Server::start(&stage.places()).unwrap();
        let wire = Wire::before(service.port().unwrap()).unwrap();
        Self { service: Service::Directory(service), wire, stage }
    }

    fn with_versions() -> Self {
        let stage = Stage::new();
        let service = Minio::start(&stage.places()).unwrap();
        let wire = Wire::before(service.port()).unwrap();
        Self { service: Service::Minio(service), wire, stage }
    }

    /// A story whose places are reached over the wire.
    fn story(&self, patience: Patience) -> Story {
        self.story_at(&format!("http://127.0.0.1:{}", self.wire.port()), patience, &[])
    }

    fn story_at(&self, endpoint: &str, patience: Patience, more: &[(&str, &str)]) -> Story {
        let keys = [("access-key", ACCESS_KEY), ("secret-key", SECRET_KEY)];
        let settings: Settings =
            keys.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let store = |place| {
            let store = S3::open(&url_at(endpoint, place), &settings).unwrap();
            Arc::new(Retrying::new(Arc::new(store), patience)) as Arc<dyn Storage>
        };
        Story::over(PLACES.into_iter().map(store), &self.stage.notes())
    }

    /// The same story behind the wire.
    fn beneath(&self) -> Story {
        match &self.service {
            Service::Directory(service) => Story::in_directories(&service.root().join(BUCKET), &self.stage.notes()),
            Service::Minio(service) => self.story_at(&service.endpoint(), PATIENCE, &[]),
        }
    }

    /// After a telling and its faults: nothing is lost, what was told is there, and told again the story comes to its end.
    async fn must_end_well(&self, told: &Result<(), Failure>) {
        self.wire.clear();
        self.beneath().must_hold().await;
        if told.is_ok() {
            self.beneath().must_be_at_its_end().await;
        }
        self.story(PATIENCE).tell().await.unwrap();
        self.beneath().must_hold().await;
        self.beneath().must_be_at_its_end().await;
    }
}

/// Tells a story in which a fault strikes, after `skip` requests of a kind, so many of them; what the telling said.
async fn told_with(
    patience: Patience,
    meets: fn(&Asked) -> bool,
    (skip, times): (usize, usize),
    fault: Fault,
) -> Result<(), Failure> {
    let scene = Scene::new();
    scene.wire.strike(meets, skip, times, fault);
    let told = scene.story(patience).tell().await;
    scene.must_end_well(&told).await;
    if let Err(Failure::Step(error)) = &told {
        must_be_clear(error);
    }
    told
}

/// What failed, where, and what to do; and nothing that is secret.
fn must_be_clear(error: &holdfast_repository::Error) {
    let said = format!("{error} {:?}", error.hint());
    assert!(error.hint().is_some(), "{said}");
    for secret in [SECRET_KEY, "AWS4-HMAC", "Signature="] {
        assert!(!said.contains(secret) && !format!("{error:?}").contains(secret), "{said}");
    }
    if let holdfast_repository::Error::Storage(_) = error {
        assert!(said.contains("s3://vault/"), "it does not say where: {said}");
    }
}

/// Faults and requests that they strike first, by how many of `count` come before: each with each where the environment asks for it, else each fault with a few,
/// and others for each.
fn pairs(faults: &[Fault], count: usize, few: usize) -> Vec<(Fault, usize)> {
    let skips = |number: usize| -> Vec<usize> {
        match all_faults() {
            true => (0..count).collect(),
            false => (0..few).map(|turn| (number * 41 + turn * count / few + 13) % count).collect(),
        }
    };
    let faults = faults.iter().enumerate();
    faults.flat_map(|(number, fault)| skips(number).into_iter().map(|skip| (fault.clone(), skip))).collect()
}

fn any(_: &Asked) -> bool {
    true
}

fn is_writing(asked: &Asked) -> bool {
    asked.method == "PUT"
}

fn puts_a_head(asked: &Asked) -> bool {
    is_writing(asked) && asked.path.contains("/heads/")
}

/// Picks one request of so many, always the same ones for a seed.
fn one_in(count: u64, seed: u64) -> impl Fn(&Asked) -> bool + Send + Sync {
    let state = AtomicU64::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    move |_| {
        // A small xorshift generator: nothing secret. One request is looked at after the other.
        let mut next = state.load(Ordering::Relaxed);
        next ^= next << 13;
        next ^= next >> 7;
        next ^= next << 17;
        state.store(next, Ordering::Relaxed);
        next.is_multiple_of(count)
    }
}

#[test]
fn what_passes_at_any_request_is_waited_out() {
    let faults = [
        Fault::Answer(Said::error(500, "InternalError")),
        Fault::Answer(Said::error(503, "SlowDown").with("retry-after", "1")),
        Fault::Answer(Said::error(429, "TooManyRequests")),
        Fault::Exchange(Said::error(500, "InternalError")),
        Fault::Drop,
        Fault::LoseAnswer,
        Fault::CutRequest,
        Fault::CutAnswer,
        Fault::FlipRequest,
    ];
    run(async {
        for (fault, skip) in pairs(&faults, REQUESTS_LEAST, 1) {
            let told = told_with(PATIENCE, any, (skip, 2), fault.clone()).await;
            assert!(told.is_ok(), "{fault:?} at request {skip}: {told:?}");
        }
    });
}

#[test]
fn an_error_under_the_status_of_a_success_is_no_success() {
    let faults = [
        Fault::Answer(Said::error(200, "InternalError")),
        Fault::Exchange(Said::error(200, "InternalError")),
        Fault::Answer(Said::text(200, "")),
    ];
    run(async {
        for (fault, skip) in pairs(&faults, 60, 1) {
            let told = told_with(PATIENCE, is_writing, (skip, 2), fault.clone()).await;
            assert!(told.is_ok(), "{fault:?} at write {skip}: {told:?}");
        }
    });
}

#[test]
fn what_does_not_pass_ends_the_work_and_says_why() {
    let writing: fn(&Asked) -> bool = is_writing;
    // An answer to HEAD has no body that could say more than its status does.
    let bodiless = ["access-denied", "storage-refused"];
    let cases = [
        (any as fn(&Asked) -> bool, Said::error(403, "ExpiredToken"), "credentials-refused"),
        (any, Said::error(403, "RequestTimeTooSkewed"), "clock-skew"),
        (any, Said::error(503, "SlowDown"), "storage-busy"),
        (any, Said::error(403, "AccessDenied"), "access-denied"),
        (writing, Said::error(404, "NoSuchBucket"), "bucket-not-found"),
        (writing, Said::error(507, "XMinioStorageFull"), "storage-full"),
        (writing, Said::error(400, "QuotaExceeded"), "storage-full"),
    ];
    run(async {
        for (number, (meets, said, code)) in cases.into_iter().enumerate() {
            for (fault, skip) in pairs(&[Fault::Answer(said)], 60, 1) {
                let skip = if all_faults() { skip } else { skip + number * 5 };
                match told_with(PATIENCE, meets, (skip, ALWAYS), fault.clone()).await {
                    Err(Failure::Step(error)) => {
                        let is_said = error.code() == code || bodiless.contains(&error.code());
                        assert!(is_said, "{fault:?} at request {skip}: {error}");
                    }
                    told => assert!(matches!(told, Err(Failure::Kept(_))), "{fault:?} at request {skip}: {told:?}"),
                }
            }
        }
    });
}

#[test]
fn a_service_that_stands_still_ends_the_work() {
    run(async {
        for (fault, skip) in pairs(&[Fault::Stall, Fault::StallAnswer], REQUESTS_LEAST, 2) {
            match told_with(LITTLE_PATIENCE, any, (skip, ALWAYS), fault.clone()).await {
                Err(Failure::Step(error)) => assert_eq!(error.code(), "storage-stalled", "{error}"),
                told => panic!("{fault:?} at request {skip}: {told:?}"),
            }
        }
    });
}

/// Tells a story through a storm of faults, again and again until it comes to its end.
async fn told_through_a_storm(scene: Scene, seed: u64) {
    let faults = [
        (90, Fault::Answer(Said::error(500, "InternalError"))),
        (90, Fault::Answer(Said::error(503, "SlowDown"))),
        (90, Fault::Drop),
        (60, Fault::LoseAnswer),
        (90, Fault::CutRequest),
        (90, Fault::CutAnswer),
        (90, Fault::FlipRequest),
        (600, Fault::FlipAnswer),
        (600, Fault::ShortenAnswer),
        (900, Fault::Answer(Said::error(403, "AccessDenied"))),
    ];
    for (number, (count, fault)) in faults.into_iter().enumerate() {
        scene.wire.strike(one_in(count, seed * 100 + number as u64), 0, ALWAYS, fault);
    }
    let mut told = Ok(());
    for _ in 0..20 {
        told = scene.story(PATIENCE).tell().await;
        match &told {
            Ok(()) => break,
            Err(Failure::Step(error)) => must_be_clear(error),
            Err(Failure::Kept(_)) => {}
        }
        scene.beneath().must_hold().await;
    }
    assert!(scene.wire.struck() > 10, "seed {seed}: there was no storm");
    scene.must_end_well(&told).await;
}

#[test]
fn a_story_comes_to_its_end_through_a_storm() {
    run(async {
        for seed in 1..=if all_faults() { 200 } else { 3 } {
            told_through_a_storm(Scene::new(), seed).await;
        }
        for seed in 1..=if all_faults() { 20 } else { 1 } {
            told_through_a_storm(Scene::with_versions(), seed).await;
        }
    });
}
