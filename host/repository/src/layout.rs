//! The two clear objects at a target's root (FORMAT §1): which repository it is, and how to get everything back.

use serde::{Deserialize, Serialize};

use crate::format::path;
use crate::{Error, Malformed, RepositoryId};

const MAGIC: &str = "holdfast repository";
const FORMAT: u64 = 1;

/// `repository.json`. Nothing in it is secret.
#[derive(Serialize, Deserialize)]
pub(crate) struct RepositoryFile {
    magic: String,
    format: u64,
    id: String,
}

impl RepositoryFile {
    /// The bytes that make a place this repository.
    pub(crate) fn text(repository: RepositoryId) -> String {
        let file = Self { magic: MAGIC.to_owned(), format: FORMAT, id: repository.to_string() };
        // Three plain fields always serialize.
        serde_json::to_string(&file).unwrap_or_default()
    }

    /// Which repository lies there. Errors: no repository file of ours; a format of a newer version.
    pub(crate) fn parse(bytes: &[u8]) -> Result<RepositoryId, Error> {
        let damaged = |reason| Error::damaged(path::REPOSITORY)(Malformed(reason));
        let file: Self = serde_json::from_slice(bytes).map_err(|_| damaged("it is not the JSON that was written"))?;
        if file.magic != MAGIC {
            return Err(damaged("its magic is another"));
        }
        if file.format != FORMAT {
            return Err(Error::NewerFormat { path: path::REPOSITORY.to_owned(), bits: file.format });
        }
        let id = file.id.parse().map_err(|_| damaged("its id is malformed"))?;
        // Written once and never changed: other bytes that mean the same are a damage too.
        if Self::text(id).as_bytes() == bytes { Ok(id) } else { Err(damaged("it is not the JSON that was written")) }
    }
}

/// `RECOVER.txt`.
pub(crate) fn recover_text(repository: RepositoryId, location: &str) -> String {
    format!(
        "This place holds backups of databases, made by Holdfast.

Repository: {repository}
Place:      {location}

Everything here is encrypted. To get it back you need this place and a recovery kit: a small text file with a
line that begins with AGE-SECRET-KEY-1, kept offline by the people who run the backups. Without a kit nobody
can read anything here.

With Holdfast
  1. Install holdfast on any Linux machine.
  2. holdfast recover --from URL-OF-THIS-PLACE --identity KIT --data-dir NEW-EMPTY-DIRECTORY
  3. holdfast serve --data-dir NEW-EMPTY-DIRECTORY
     Browse, restore and download. Nothing here is changed until `holdfast takeover`.
  To restore one backup without a server:
     holdfast restore ORGANIZATION/PROJECT/INSTANCE/latest --from URL --identity KIT --to-directory DIRECTORY

Without Holdfast
  The format is public: host/repository/FORMAT.md in the source of Holdfast describes every byte. In short:
  1. age --decrypt -i KIT keyring/N.age         (the highest N) gives the keyring: CBOR, FORMAT section 7.
  2. domains/*/heads/*                          name the backups; their sealed parts open with a domain's index key.
  3. domains/*/backups/*/keys.N                 gives a backup's data key, which opens its manifest.
  4. The manifest lists the entries; indexes say in which pack each chunk lies.
  Common libraries for BLAKE3, AES-256-GCM, HKDF-SHA-256, Ed25519, zstd, CBOR and age are all it takes.

Do not delete, rename or edit anything here.
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_file_has_these_bytes() {
        let text = RepositoryFile::text(RepositoryId([0xab; 16]));
        let id = "ab".repeat(16);
        assert_eq!(text, format!(r#"{{"magic":"holdfast repository","format":1,"id":"{id}"}}"#));
        assert_eq!(RepositoryFile::parse(text.as_bytes()).unwrap(), RepositoryId([0xab; 16]));
        let newer = text.replace(":1,", ":2,");
        assert_eq!(RepositoryFile::parse(newer.as_bytes()).unwrap_err().code(), "newer-format");
        for other in ["", "{}", &text.replace("holdfast", "other"), &text.replace("abab", "zz")] {
            assert_eq!(RepositoryFile::parse(other.as_bytes()).unwrap_err().code(), "damaged-object");
        }
    }
}
