//! The setting of most scenarios: a small cluster, an S3 service, an appliance with its primary at site `here`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_tests::appliance::Appliance;
use holdfast_tests::cluster::{Blueprint, Cluster};
use holdfast_tests::content::Content;
use holdfast_tests::s3::S3Server;
use holdfast_tests::{PASSWORD, ROLE, Result, Workdir, wait_until};

/// How long jobs that follow a change may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Name of the protected instance.
pub const INSTANCE: &str = "acme/shop/pg";

/// What a scenario plays in. Servers come before the directory that they work in: they end first.
pub struct Setting {
    pub cluster: Cluster,
    pub s3: S3Server,
    pub appliance: Appliance,
    pub workdir: Workdir,
}

impl Setting {
    /// A cluster with a little data and the backup role, an S3 service, and an appliance that runs.
    pub fn new(name: &str) -> Result<Self> {
        Self::made(name, None, &Blueprint::default())
    }

    /// The same with a cluster that is made in this way.
    pub fn of(name: &str, blueprint: &Blueprint) -> Result<Self> {
        Self::made(name, None, blueprint)
    }

    /// The same with the primary target at this URL.
    pub fn with_primary(name: &str, url: Option<&str>) -> Result<Self> {
        Self::made(name, url, &Blueprint::default())
    }

    fn made(name: &str, url: Option<&str>, blueprint: &Blueprint) -> Result<Self> {
        let workdir = Workdir::new(name)?;
        let cluster = small_cluster(&workdir.join("postgres"), blueprint)?;
        let s3 = S3Server::start(&workdir.join("there"))?;
        let mut appliance = Appliance::on(&workdir.join("appliance"));
        appliance.configure("here", url)?;
        appliance.start()?;
        Ok(Self { cluster, s3, appliance, workdir })
    }

    /// Registers the cluster, adds the S3 service as target `vault` and makes a recovery kit.
    pub fn protect(&self) -> Result {
        self.appliance.make_recovery_kit(&self.kit())?;
        self.appliance.add_vault(&self.s3, &self.workdir)?;
        self.register()
    }

    /// Registers the cluster.
    pub fn register(&self) -> Result {
        self.appliance.add_instance(INSTANCE, &self.cluster, &self.workdir, &[])?.done().map(drop)
    }

    /// Where [`protect`](Self::protect) puts the recovery kit: outside the data directory.
    pub fn kit(&self) -> PathBuf {
        self.workdir.join("alice.key")
    }

    /// Gives the organization of the instance, which has one backup, a recipient of its own; returns once every target's slots know it.
    pub fn add_tenant(&self, identity: &str) -> Result {
        let add = ["key", "recipient", "add", "customer", "--organization", "acme", "--generate", identity];
        self.appliance.run(add)?.done()?;
        wait_until("both targets have slots for the tenant", PATIENCE, || {
            let jobs = self.appliance.list(&["job", "list"])?;
            let done = jobs.iter().filter(|job| job["kind"] == "rewrap" && job["state"] == "Succeeded").count();
            Ok((done == 2).then_some(()))
        })
    }

    /// Starts PostgreSQL on a restored directory and fails unless it holds this content.
    pub fn must_hold(&self, restored: &Path, content: &Content) -> Result {
        content.must_equal(&content_of(&self.workdir, restored)?)
    }
}

/// Starts PostgreSQL on a restored directory, and reads what it holds.
pub fn content_of(workdir: &Workdir, restored: &Path) -> Result<Content> {
    let name = restored.file_name().unwrap_or_default().to_string_lossy();
    let mut copy = Cluster::restored(&workdir.join(&format!("{name}-server")), restored)?;
    copy.start()?;
    let content = Content::of(&copy)?;
    copy.stop()?;
    Ok(content)
}

/// A cluster with the backup role and a few rows.
pub fn small_cluster(root: &Path, blueprint: &Blueprint) -> Result<Cluster> {
    let cluster = Cluster::build(root, blueprint)?;
    cluster.create_backup_role(ROLE, PASSWORD)?;
    cluster
        .sql("postgres", "CREATE TABLE goods AS SELECT n, md5(n::text) AS label FROM generate_series(1, 20000) n")?;
    Ok(cluster)
}

/// Says that something could not be tried here, past the harness's capture of output.
pub fn skipped(what: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {what}: {why}");
}
