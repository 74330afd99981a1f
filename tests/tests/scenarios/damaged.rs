//! Damage in the golden repository: a byte of one object of each kind is flipped, and the two programs that read repositories refuse it.

use std::fs;
use std::path::{Path, PathBuf};

use holdfast_tests::appliance::Appliance;
use holdfast_tests::golden::{self, DATA, INSTANCE, KIT, Place};
use holdfast_tests::reader::Reader;
use holdfast_tests::{Failure, Result, Workdir, ensure};

use crate::reader::files;

/// What stands in the paths of a kind's objects, of those that a restore needs.
const NEEDED: &[&str] =
    &["repository.json", "keyring/3.age", "keyring/3.sig", "/packs/", "/manifest", "/keys.", "/heads/"];

/// The same of those that a restore by this binary does without: it has the component in itself, refs are for prune and
/// replication, and packs say what indexes say.
const CHECKED: &[&str] = &["plugins/", "/indexes/", "/refs."];

#[test]
fn one_flipped_byte_in_any_kind_of_object_is_refused() -> Result {
    let (place, workdir) = (Place::take("0.1.0")?, Workdir::new("damaged")?);
    golden::copy("0.1.0", place.path())?;
    let golden = Golden::of(place.path())?;
    for object in golden.objects(NEEDED)? {
        let _flipped = Flipped::byte_of(&golden.repository.join(&object))?;
        golden.must_not_be_extracted(&object, &workdir)?;
        golden.must_not_be_restored(&object)?;
    }
    let mut appliance = Appliance::on(&place.path().join(DATA));
    appliance.start()?;
    for object in golden.objects(CHECKED)? {
        let _flipped = Flipped::byte_of(&golden.repository.join(&object))?;
        golden.must_not_be_extracted(&object, &workdir)?;
        let report = appliance.run(["repository", "check", "-o", "json"])?.refused(&["damaged"])?;
        ensure(report.stdout.contains(&object), || format!("{object} is not named: {report}"))?;
    }
    // Mended, all of it is whole again.
    golden.reader.extract(&golden.backup, &workdir.join("extracted"))?;
    appliance.run(["repository", "check", "--read-data"])?.done().map(drop)
}

/// A copy of the fixture, and the newest backup in it.
struct Golden {
    repository: PathBuf,
    kit: PathBuf,
    reader: Reader,
    backup: String,
    name: String,
}

impl Golden {
    fn of(place: &Path) -> Result<Self> {
        let (repository, kit) = (place.join(DATA).join("repository"), place.join(KIT));
        let reader = Reader::new(&repository, &kit)?;
        let newest =
            reader.list()?.into_iter().filter(|(_, name)| name.starts_with(INSTANCE)).max_by(|a, b| a.1.cmp(&b.1));
        let (backup, name) = newest.ok_or_else(|| Failure::new(format!("no backup of {INSTANCE} in the fixture")))?;
        Ok(Self { repository, kit, reader, backup, name })
    }

    /// One object of each of these kinds that the backup needs.
    fn objects(&self, kinds: &[&str]) -> Result<Vec<String>> {
        let all: Vec<String> = files(&self.repository)?.into_keys().collect();
        let own = all.iter().find(|path| path.contains(&self.backup)).and_then(|path| path.split("/backups/").next());
        let domain = own.ok_or_else(|| Failure::new("the backup has no objects"))?;
        let is_of_it = |path: &&String| {
            (!path.starts_with("domains/") || path.starts_with(domain))
                && (!path.contains("/backups/") || path.contains(&self.backup))
        };
        let of_kind = |kind: &&str| {
            let found = all.iter().filter(is_of_it).find(|path| path.contains(*kind)).cloned();
            found.ok_or_else(|| Failure::new(format!("no object of the kind {kind} in the fixture")))
        };
        kinds.iter().map(of_kind).collect()
    }

    fn must_not_be_extracted(&self, object: &str, workdir: &Workdir) -> Result {
        self.reader.must_refuse_to_extract(&self.backup, &workdir.join("extracted"), object)?;
        ensure(fs::read_dir(workdir.path())?.next().is_none(), || format!("{object}: something was written"))
    }

    fn must_not_be_restored(&self, object: &str) -> Result {
        let elsewhere = Workdir::new("damaged-product")?;
        let (url, kit) = (format!("file://{}", self.repository.display()), self.kit.display().to_string());
        let (nobody, to) = (Appliance::on(&elsewhere.join("nobody")), elsewhere.join("restored"));
        let refused = nobody.restore(&self.name, &to, &[], &["--from", &url, "--identity", &kit])?.refused(&[]);
        refused.map_err(|failure| failure.during(object))?;
        ensure(!to.join("global/pg_control").exists(), || format!("{object}: a server would start on {}", to.display()))
    }
}

/// A file with one bit changed in its middle, until the value's end.
struct Flipped {
    path: PathBuf,
    sound: Vec<u8>,
}

impl Flipped {
    fn byte_of(path: &Path) -> Result<Self> {
        let sound = fs::read(path)?;
        let mut damaged = sound.clone();
        damaged[sound.len() / 2] ^= 1;
        fs::write(path, damaged)?;
        Ok(Self { path: path.into(), sound })
    }
}

impl Drop for Flipped {
    fn drop(&mut self) {
        // Should that fail, the comparison at the test's end does.
        let _ = fs::write(&self.path, &self.sound);
    }
}
