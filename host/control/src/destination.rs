//! Directories that a restore may write to: checked before anything is written, made, owned, and emptied again when a restore fails.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

use holdfast_sandbox::Destination;

use crate::Error;
use crate::data_dir::{is_empty, make_directory};

/// The directories of one restore. Nothing exists or changes before [`Self::make`].
#[derive(Clone, Debug)]
pub(crate) struct Directories {
    roots: Vec<(String, PathBuf)>,
    owner: Option<(u32, u32)>,
}

impl Directories {
    /// Checks a main directory and the new places of mapped ones: absolute, apart from each other, absent or empty.
    pub(crate) fn check(main: &str, map: &BTreeMap<String, String>, owner: Option<&str>) -> Result<Self, Error> {
        let mut roots = vec![(String::new(), PathBuf::from(main))];
        roots.extend(map.iter().map(|(old, new)| (old.clone(), PathBuf::from(new))));
        for (index, (_, path)) in roots.iter().enumerate() {
            check_directory(path)?;
            if roots[..index].iter().any(|(_, other)| path.starts_with(other) || other.starts_with(path)) {
                return Err(Error::invalid(
                    "bad-directory",
                    format!("{} lies within another directory of this restore", path.display()),
                )
                .hint("Give each --map and --to-directory a directory of its own."));
            }
        }
        let owner = match owner {
            Some(text) => Some(account(text)?),
            None => inherited_owner(Path::new(main))?,
        };
        Ok(Self { roots, owner })
    }

    /// Makes what is absent, and takes hold of the directories: as long as the claim lives, no other restore gets them.
    pub(crate) fn claim(&self) -> Result<(Destination, Claim), Error> {
        let mut held = Vec::with_capacity(self.roots.len());
        for (_, path) in &self.roots {
            make_directory(path)?;
            let directory = File::open(path).map_err(|e| Error::file("opening", path, e))?;
            directory.try_lock().map_err(|_| {
                Error::conflict("directory-in-use", format!("another restore writes to {}", path.display()))
                    .hint("Wait for its end, or restore to another directory.")
            })?;
            held.push(directory);
            // Another restore may have ended here since the check.
            check_directory(path)?;
            if let Some((uid, gid)) = self.owner {
                chown(path, Some(uid), Some(gid)).map_err(|e| Error::file("giving an owner to", path, e))?;
            }
        }
        Ok((Destination { roots: self.roots.clone(), owner: self.owner }, Claim { _held: held }))
    }

    /// Empties the directories again: half a restore must not be taken for a whole one.
    pub(crate) fn clear(&self) -> Result<(), Error> {
        for (_, path) in &self.roots {
            let entries = match std::fs::read_dir(path) {
                Ok(entries) => entries,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(Error::file("listing", path, error)),
            };
            for entry in entries {
                let entry = entry.map_err(|e| Error::file("listing", path, e))?;
                if entry.file_name() == "lost+found" {
                    continue;
                }
                let directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
                let removed =
                    if directory { std::fs::remove_dir_all(entry.path()) } else { std::fs::remove_file(entry.path()) };
                removed.map_err(|e| Error::file("removing", &entry.path(), e))?;
            }
        }
        Ok(())
    }
}

/// Directories that one restore holds.
#[derive(Debug)]
pub(crate) struct Claim {
    _held: Vec<File>,
}

fn check_directory(path: &Path) -> Result<(), Error> {
    if !path.is_absolute() || path.parent().is_none() {
        return Err(Error::invalid(
            "bad-directory",
            format!("'{}' is not an absolute directory below /", path.display()),
        )
        .hint("Give the full path of a directory that is absent or empty."));
    }
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::file("looking at", path, error)),
        Ok(metadata) if !metadata.is_dir() => {
            Err(Error::invalid("bad-directory", format!("{} is not a directory", path.display()))
                .hint("Give a directory that is absent or empty."))
        }
        Ok(_) if is_empty(path)? => Ok(()),
        Ok(_) => Err(Error::conflict("directory-not-empty", format!("{} is not empty", path.display()))
            .hint("Restore to a directory that is absent or empty; nothing was changed in this one.")),
    }
}

/// The owner of the directory, else of its nearest parent that exists.
fn inherited_owner(path: &Path) -> Result<Option<(u32, u32)>, Error> {
    for ancestor in path.ancestors() {
        match std::fs::metadata(ancestor) {
            Ok(metadata) => return Ok(Some((metadata.uid(), metadata.gid()))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::file("looking at", ancestor, error)),
        }
    }
    Ok(None)
}

/// `user[:group]`, names or numbers, by the system's own files.
fn account(text: &str) -> Result<(u32, u32), Error> {
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let unknown = |what: &str, name: &str| {
        Error::invalid("unknown-owner", format!("there is no {what} '{name}' on this machine"))
            .hint("Give --owner USER or USER:GROUP, by name or number.")
    };
    let (uid, own_group) = match user.parse() {
        Ok(uid) => (uid, lookup("/etc/passwd", user, 2, 3)?),
        Err(_) => (
            lookup("/etc/passwd", user, 0, 2)?.ok_or_else(|| unknown("user", user))?,
            lookup("/etc/passwd", user, 0, 3)?,
        ),
    };
    let gid = match group {
        None => own_group.unwrap_or(uid),
        Some(group) => match group.parse() {
            Ok(gid) => gid,
            Err(_) => lookup("/etc/group", group, 0, 2)?.ok_or_else(|| unknown("group", group))?,
        },
    };
    Ok((uid, gid))
}

/// The number in field `wanted` of the first line whose field `by` is `key`.
fn lookup(file: &str, key: &str, by: usize, wanted: usize) -> Result<Option<u32>, Error> {
    let text = std::fs::read_to_string(file).map_err(|e| Error::file("reading", file.as_ref(), e))?;
    let fields =
        text.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields.get(by) == Some(&key));
    Ok(fields.and_then(|fields| fields.get(wanted)?.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_with_something_in_it_is_refused_and_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        std::fs::write(parent.path().join("precious"), "x").unwrap();
        let error = Directories::check(parent.path().to_str().unwrap(), &BTreeMap::new(), None).unwrap_err();
        assert_eq!(error.code, "directory-not-empty");
        assert_eq!(std::fs::read(parent.path().join("precious")).unwrap(), b"x");
    }

    #[test]
    fn lost_and_found_does_not_count_and_stays() {
        let parent = tempfile::tempdir().unwrap();
        std::fs::create_dir(parent.path().join("lost+found")).unwrap();
        let directories = Directories::check(parent.path().to_str().unwrap(), &BTreeMap::new(), None).unwrap();
        let claimed = directories.claim().unwrap();
        assert_eq!(directories.claim().unwrap_err().code, "directory-in-use");
        drop(claimed);
        std::fs::create_dir_all(parent.path().join("base/1")).unwrap();
        directories.clear().unwrap();
        assert!(is_empty(parent.path()).unwrap());
        assert!(parent.path().join("lost+found").exists());
    }

    #[test]
    fn directories_may_not_lie_within_each_other() {
        let map = BTreeMap::from([("/old".to_owned(), "/new/main/space".to_owned())]);
        assert_eq!(Directories::check("/new/main", &map, None).unwrap_err().code, "bad-directory");
        assert_eq!(Directories::check("relative", &BTreeMap::new(), None).unwrap_err().code, "bad-directory");
    }

    #[test]
    fn accounts_are_names_or_numbers() {
        assert_eq!(account("root").unwrap(), (0, 0));
        assert_eq!(account("1234:5678").unwrap(), (1234, 5678));
        assert_eq!(account("nobody-at-all").unwrap_err().code, "unknown-owner");
    }
}
