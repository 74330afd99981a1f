//! The directories that a restore fills. Nothing escapes a root: every path is opened beneath the root's descriptor by the
//! kernel's own rule (`openat2`, no symbolic links), existing files are never opened, and what is unfinished is removed.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;

use crate::file::NewFile;
use crate::grants::Destination;
use crate::imports::types::{CallError, error, misused, refused};
use crate::{Failure, paths};

/// The granted roots. Without the grant there are none, and every path is in an unknown one.
pub(crate) struct Tree {
    roots: Vec<Root>,
    owner: Option<(Uid, Gid)>,
    files: AtomicU64,
    bytes: AtomicU64,
}

/// What a run wrote: its finished files, however they came to be, without directories and links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) files: u64,
    pub(crate) bytes: u64,
}

struct Root {
    name: String,
    real: PathBuf,
    directory: OwnedFd,
}

/// Permission bits that a guest can give: never set-user-id.
const PERMISSIONS: u32 = 0o777;
/// Nothing but the root's own directories may be walked through.
const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

impl Tree {
    /// Opens the roots. The operator's own path to a root may have links; nothing beneath it may.
    pub(crate) fn open(destination: Option<Destination>) -> Result<Self, Failure> {
        let Some(destination) = destination else {
            return Ok(Self::of(Vec::new(), None));
        };
        let roots =
            destination.roots.into_iter().map(|(name, path)| Root::open(name, &path)).collect::<Result<_, _>>()?;
        let owner = destination.owner.map(|(user, group)| (Uid::from_raw(user), Gid::from_raw(group)));
        Ok(Self::of(roots, owner))
    }

    fn of(roots: Vec<Root>, owner: Option<(Uid, Gid)>) -> Self {
        Self { roots, owner, files: AtomicU64::new(0), bytes: AtomicU64::new(0) }
    }

    pub(crate) fn roots(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.roots.iter().map(|root| (root.name.as_str(), root.real.as_path()))
    }

    /// Counts a finished file of so many bytes.
    pub(crate) fn count(&self, bytes: u64) {
        self.files.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// All files so far.
    pub(crate) fn written(&self) -> Written {
        Written { files: self.files.load(Ordering::Relaxed), bytes: self.bytes.load(Ordering::Relaxed) }
    }

    /// Creates one directory; "" gives mode and owner to the root itself.
    pub(crate) fn create_directory(&self, root: &str, path: &str, mode: u32) -> Result<(), CallError> {
        let root = self.root(root)?;
        let create = || {
            if path.is_empty() {
                return self.adorn(&root.directory, mode);
            }
            let (parent, name) = root.parent(path)?;
            rustix::fs::mkdirat(&parent, name, Mode::RWXU)?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let directory = rustix::fs::openat2(&parent, name, flags, Mode::empty(), BENEATH)?;
            self.adorn(&directory, mode)
        };
        if !path.is_empty() {
            check(path)?;
        }
        create().map_err(|errno| explain("create the directory", &root.real.join(path), errno))
    }

    /// Creates a file that only its owner can read until it is finished.
    pub(crate) fn create_file(this: &Arc<Self>, root: &str, path: &str, mode: u32) -> Result<NewFile, CallError> {
        let root = this.root(root)?;
        check(path)?;
        let place = root.real.join(path);
        let create = || {
            let (parent, name) = root.parent(path)?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = rustix::fs::openat2(&parent, name, flags, Mode::RUSR | Mode::WUSR, BENEATH)?;
            Ok(NewFile::new(this, file, (parent, name), &place, mode))
        };
        create().map_err(|errno| explain("create the file", &place, errno))
    }

    /// Links to another root: the operator granted both ends, so the link leads nowhere else.
    pub(crate) fn link_root(&self, root: &str, path: &str, to_root: &str) -> Result<(), CallError> {
        let (root, target) = (self.root(root)?, self.root(to_root)?);
        check(path)?;
        let link = || {
            let (parent, name) = root.parent(path)?;
            rustix::fs::symlinkat(&target.real, &parent, name)?;
            match self.owner {
                Some((user, group)) => {
                    rustix::fs::chownat(&parent, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)
                }
                None => Ok(()),
            }
        };
        link().map_err(|errno| explain("create the link", &root.real.join(path), errno))
    }

    /// Makes everything beneath the roots durable, names and bytes, and reports any write that failed on its way to the disk.
    /// One call a root (`syncfs`, which reports failed writes since Linux 5.8): a hundred thousand calls of fsync would take
    /// half a minute.
    pub(crate) fn sync(&self) -> Result<(), CallError> {
        for root in &self.roots {
            rustix::fs::syncfs(&root.directory)
                .map_err(|errno| explain("make durable what is in", &root.real, errno))?;
        }
        Ok(())
    }

    fn root(&self, name: &str) -> Result<&Root, CallError> {
        self.roots.iter().find(|root| root.name == name).ok_or_else(|| {
            let message = if name.is_empty() {
                "this job has no destination".to_owned()
            } else {
                format!("there is no root '{name}'")
            };
            refused("unknown-root", message, "Give the restore a directory for it, such as by --map OLD=NEW.")
        })
    }

    /// Owner first: giving a file away takes permission bits away.
    pub(crate) fn adorn(&self, file: impl AsFd, mode: u32) -> rustix::io::Result<()> {
        if let Some((user, group)) = self.owner {
            rustix::fs::fchown(&file, Some(user), Some(group))?;
        }
        rustix::fs::fchmod(file, Mode::from_raw_mode(mode & PERMISSIONS))
    }
}

impl Root {
    fn open(name: String, path: &Path) -> Result<Self, Failure> {
        let open = || {
            let real = path.canonicalize()?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let directory = rustix::fs::open(&real, flags, Mode::empty())?;
            Ok(Self { name, real, directory })
        };
        open().map_err(|error: std::io::Error| Failure::Host {
            code: "destination-failed".to_owned(),
            message: format!("cannot open the directory {}: {error}", path.display()),
            hint: Some("Create the directory, and let the user that runs this appliance write to it.".to_owned()),
            retryable: false,
            is_of_the_source: false,
        })
    }

    /// The directory that `path` is in, and its last part.
    fn parent<'a>(&self, path: &'a str) -> rustix::io::Result<(OwnedFd, &'a str)> {
        let (parent, name) = path.rsplit_once('/').unwrap_or((".", path));
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok((rustix::fs::openat2(&self.directory, parent, flags, Mode::empty(), BENEATH)?, name))
    }
}

fn check(path: &str) -> Result<(), CallError> {
    match paths::objection(path) {
        Some(objection) => Err(misused("invalid-path", format!("the path is not usable: {objection}"))),
        None => Ok(()),
    }
}

/// What the kernel said, in words for people. What is wrong with the machine is the host's; what is wrong with a path is not.
pub(crate) fn explain(step: &str, place: &Path, errno: Errno) -> CallError {
    let say = |what: &str| format!("cannot {step} {}: {what}", place.display());
    match errno {
        Errno::LOOP | Errno::XDEV => refused(
            "path-escapes",
            say("a symbolic link is in the way"),
            "Restore into an empty directory that nobody else writes to.",
        ),
        Errno::EXIST => refused("already-exists", say("it is already there"), "Restore into an empty directory."),
        Errno::NOENT | Errno::NOTDIR => misused("not-found", say("its parent directory is not there")),
        Errno::NOSPC | Errno::DQUOT => CallError::Failed(error(
            "disk-full",
            say("the disk is full"),
            format!("Free space on the file system of {}, or restore to another directory.", place.display()),
            true,
        )),
        Errno::ACCESS | Errno::PERM | Errno::ROFS => CallError::Failed(error(
            "permission-denied",
            say("permission denied"),
            "Let the user that runs this appliance write there; giving files to another owner needs root.",
            false,
        )),
        Errno::NOSYS => CallError::Failed(error(
            "destination-failed",
            say("this kernel cannot open files safely (openat2)"),
            "Restore on Linux 5.6 or newer.",
            false,
        )),
        other => CallError::Failed(error(
            "destination-failed",
            say(&other.to_string()),
            "Check the disk and the kernel's log.",
            true,
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn tree(directory: &Path) -> Arc<Tree> {
        let main = directory.join("main");
        let space = directory.join("space");
        std::fs::create_dir_all(&main).expect("created");
        std::fs::create_dir_all(&space).expect("created");
        let roots = vec![(String::new(), main), ("/old/space".to_owned(), space)];
        Arc::new(Tree::open(Some(Destination { roots, owner: None })).expect("opens"))
    }

    fn write(tree: &Arc<Tree>, path: &str) -> Result<u64, CallError> {
        let mut file = Tree::create_file(tree, "", path, 0o640)?;
        file.write(b"content")?;
        file.finish()
    }

    fn code<T>(result: Result<T, CallError>) -> String {
        result.err().and_then(|error| error.code().map(str::to_owned)).unwrap_or_default()
    }

    #[test]
    fn files_and_directories_get_their_modes() {
        let directory = tempfile::tempdir().expect("a directory");
        let tree = tree(directory.path());
        tree.create_directory("", "", 0o700).ok().expect("the root itself");
        tree.create_directory("", "base", 0o750).ok().expect("created");
        assert_eq!(write(&tree, "base/1259").ok(), Some(7));
        tree.sync().ok().expect("durable");
        assert_eq!(tree.written(), Written { files: 1, bytes: 7 });
        let mode =
            |path: &str| std::fs::metadata(directory.path().join(path)).expect("there").permissions().mode() & 0o7777;
        assert_eq!((mode("main"), mode("main/base"), mode("main/base/1259")), (0o700, 0o750, 0o640));
    }

    #[test]
    fn an_unfinished_file_is_removed() {
        let directory = tempfile::tempdir().expect("a directory");
        let tree = tree(directory.path());
        let mut file = Tree::create_file(&tree, "", "half", 0o600).ok().expect("created");
        file.write(b"content").ok().expect("written");
        assert!(directory.path().join("main/half").exists());
        drop(file);
        assert!(!directory.path().join("main/half").exists());
    }

    #[test]
    fn no_path_leaves_its_root() {
        let directory = tempfile::tempdir().expect("a directory");
        let tree = tree(directory.path());
        for path in ["../escaped", "/etc/escaped", "a/../../escaped", "", ".", "a//b"] {
            assert_eq!(code(write(&tree, path)), "invalid-path", "{path:?}");
        }
        assert_eq!(code(tree.create_directory("", "../escaped", 0o700)), "invalid-path");
        assert_eq!(code(tree.create_directory("nowhere", "a", 0o700)), "unknown-root");
        assert_eq!(code(tree.link_root("", "link", "/etc")), "unknown-root");
    }

    #[test]
    fn links_are_never_followed() {
        let directory = tempfile::tempdir().expect("a directory");
        let outside = directory.path().join("outside");
        std::fs::create_dir(&outside).expect("created");
        std::fs::write(outside.join("precious"), "precious").expect("written");
        let tree = tree(directory.path());
        tree.create_directory("", "base", 0o700).ok().expect("created");
        // Somebody swaps the directory, and plants a link where a file is to come.
        let main = directory.path().join("main");
        std::fs::remove_dir(main.join("base")).expect("removed");
        symlink(&outside, main.join("base")).expect("linked");
        symlink(outside.join("precious"), main.join("file")).expect("linked");
        assert_eq!(code(write(&tree, "base/new")), "path-escapes");
        assert_eq!(code(tree.create_directory("", "base/new", 0o700)), "path-escapes");
        assert_eq!(code(write(&tree, "file")), "already-exists");
        assert_eq!(std::fs::read_dir(&outside).expect("there").count(), 1);
        assert_eq!(std::fs::read(outside.join("precious")).expect("there"), b"precious");
    }

    #[test]
    fn a_link_leads_to_a_granted_root_only() {
        let directory = tempfile::tempdir().expect("a directory");
        let tree = tree(directory.path());
        tree.link_root("", "16400", "/old/space").ok().expect("linked");
        let target = std::fs::read_link(directory.path().join("main/16400")).expect("a link");
        assert_eq!(target, directory.path().join("space").canonicalize().expect("there"));
        // Even this one is not walked through: the guest names the root it means.
        assert_eq!(code(write(&tree, "16400/file")), "path-escapes");
    }
}
