//! The file system of the catalog runs full in the middle of a job: as soon as there is room again the job's end is recorded, by itself, and
//! what was kept before is as it was.

use std::time::Duration;

use holdfast_tests::appliance::Appliance;
use holdfast_tests::cluster::{Blueprint, Cluster};
use holdfast_tests::content::Content;
use holdfast_tests::disk::SmallDisk;
use holdfast_tests::proxy::{Fault, Proxy};
use holdfast_tests::{Result, Workdir, ensure, wait_until};
use serde_json::Value;

use crate::setting::{INSTANCE, content_of, skipped, small_cluster};

/// How long an event that must come may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// In the middle of what a small cluster sends.
const MIDDLE: u64 = 9_000_000;

/// An appliance whose data directory is a small file system of its own and whose primary lies elsewhere, with one backup of a cluster
/// behind a proxy. Servers come before what they work on: they end first.
struct Stage {
    cluster: Cluster,
    proxy: Proxy,
    appliance: Appliance,
    disk: SmallDisk,
    workdir: Workdir,
    content: Content,
    first: String,
}

impl Stage {
    /// `None` where nothing can be mounted.
    fn new(name: &str) -> Result<Option<Self>> {
        let workdir = Workdir::new(name)?;
        let Some(disk) = SmallDisk::mount(&workdir.join("appliance"), 64)? else {
            skipped(name, "nothing can be mounted here");
            return Ok(None);
        };
        let cluster = small_cluster(&workdir.join("postgres"), &Blueprint::default())?;
        let proxy = Proxy::before(cluster.port())?;
        let mut appliance = Appliance::on(disk.path());
        appliance.configure("here", Some(&format!("file://{}", workdir.join("primary").display())))?;
        appliance.start()?;
        appliance.add_instance_at(INSTANCE, proxy.port(), &workdir, &[])?.done()?;
        let content = Content::of(&cluster)?;
        let first = appliance.back_up(INSTANCE, "primary")?["name"].as_str().unwrap_or_default().to_owned();
        // With a log that begins anew, the catalog needs room for every change.
        appliance.stop()?;
        appliance.start()?;
        Ok(Some(Self { cluster, proxy, appliance, disk, workdir, content, first }))
    }

    /// Waits until a running job has something to record that the full disk does not take; then makes room.
    fn wait_and_make_room(&self, begun: &Value) -> Result {
        wait_until("the appliance says that the catalog takes nothing", PATIENCE, || {
            let status = self.appliance.run(["status", "-o", "json"])?;
            Ok(status.stdout.contains("catalog-takes-nothing").then_some(()))
        })?;
        let job = self.appliance.json(["job", "show", begun["status"]["job"].as_str().unwrap_or_default()])?;
        ensure(job["state"] == "Running", || format!("its end is recorded on a full disk: {job}"))?;
        self.disk.free()
    }

    /// Nothing is left to be recorded; the first backup is as it was, and one more can be made.
    fn must_go_on(&self) -> Result {
        let status = self.appliance.run(["status", "-o", "json"])?;
        ensure(!status.stdout.contains("catalog-takes-nothing"), || format!("it is still said: {status}"))?;
        let to = self.workdir.join("restored");
        self.appliance.restore(&format!("{INSTANCE}/{}", self.first), &to, &[], &["--wait"])?.done()?;
        self.content.must_equal(&content_of(&self.workdir, &to)?)?;
        self.cluster.sql("postgres", "CREATE TABLE later AS SELECT 1 AS n")?;
        self.appliance.back_up(INSTANCE, "primary").map(drop)
    }
}

#[test]
fn a_backup_that_a_full_catalog_ends_is_recorded_as_failed_when_there_is_room() -> Result {
    let Some(stage) = Stage::new("full-catalog")? else { return Ok(()) };
    stage.proxy.set(Fault::Hold(MIDDLE));
    let begun = stage.appliance.begin_attempt(INSTANCE)?;
    stage.proxy.wait_until_held(PATIENCE)?;
    stage.disk.fill()?;
    stage.proxy.release();
    stage.wait_and_make_room(&begun)?;
    stage.appliance.end_attempt(&begun)?.failed_by("disk-full")?;
    stage.must_go_on()
}
