//! Where objects lie (FORMAT §1). No name and no time that a person chose is in a path.
//!
//! What a path names is read off it as it stands, with no text made to compare it with: a checkpoint has half a million of them.

use std::str::FromStr;

use crate::{BackupId, Digest, DomainId};

pub(crate) const REPOSITORY: &str = "repository.json";
pub(crate) const RECOVER: &str = "RECOVER.txt";
/// Bytes that mean nothing: room to be given up when something must be deleted and there is none.
pub(crate) const RESERVE: &str = "reserve";
pub(crate) const KEYRING: &str = "keyring/";
pub(crate) const DOMAINS: &str = "domains/";
/// The folder of components.
pub(crate) const COMPONENTS: &str = "plugins/";
/// The path bound into the signature of the keyring that lies in the data directory.
pub(crate) const LOCAL_KEYRING: &str = "keyring";

pub(crate) fn keyring(generation: u64) -> String {
    format!("{KEYRING}{generation}.age")
}

pub(crate) fn keyring_signature(generation: u64) -> String {
    format!("{KEYRING}{generation}.sig")
}

/// The generation of a listed `.sig`; other names are nobody's.
pub(crate) fn signature_generation(path: &str) -> Option<u64> {
    let generation = path.strip_prefix(KEYRING)?.strip_suffix(".sig")?.parse().ok()?;
    (keyring_signature(generation) == path).then_some(generation)
}

/// The generation of a listed keyring or of its signature; other names are nobody's.
pub(crate) fn keyring_generation(path: &str) -> Option<u64> {
    let sealed = path.strip_prefix(KEYRING)?.strip_suffix(".age").and_then(|generation| generation.parse().ok());
    sealed.filter(|generation| keyring(*generation) == path).or_else(|| signature_generation(path))
}

pub(crate) fn component(digest: Digest) -> String {
    format!("{COMPONENTS}{digest}")
}

pub(crate) fn pack(domain: DomainId, digest: Digest) -> String {
    format!("{}{:02x}/{digest}", packs(domain), digest.0[0])
}

pub(crate) fn index(domain: DomainId, digest: Digest) -> String {
    format!("{}{digest}", indexes(domain))
}

/// The digest that a component's path names.
pub(crate) fn component_digest(path: &str) -> Option<Digest> {
    let digest = path.strip_prefix(COMPONENTS)?.parse().ok()?;
    (component(digest) == path).then_some(digest)
}

/// The id or digest that a text is, in lowercase alone, as we write it.
fn spelled<T: FromStr>(text: &str) -> Option<T> {
    let is_lowercase = !text.bytes().any(|byte| byte.is_ascii_uppercase());
    text.parse().ok().filter(|_| is_lowercase)
}

/// What a path has behind a folder of the domain's own. The folder is compared first: most paths lie in another one.
fn within<'p>(domain: DomainId, folder: &str, path: &'p str) -> Option<&'p str> {
    let (id, rest) = path.strip_prefix(DOMAINS)?.split_at_checked(2 * domain.0.len())?;
    let name = rest.strip_prefix('/')?.strip_prefix(folder)?.strip_prefix('/')?;
    (spelled(id) == Some(domain)).then_some(name)
}

/// The digest that a pack's path names.
pub(crate) fn pack_digest(domain: DomainId, path: &str) -> Option<Digest> {
    let (folder, name) = within(domain, "packs", path)?.split_once('/')?;
    spelled(name).filter(|_| name.get(..2) == Some(folder))
}

/// The same, of whatever domain.
pub(crate) fn any_pack_digest(path: &str) -> Option<Digest> {
    let domain = path.strip_prefix("domains/")?.split('/').next()?;
    pack_digest(domain.parse().ok()?, path)
}

/// The digest that an index's path names.
pub(crate) fn index_digest(domain: DomainId, path: &str) -> Option<Digest> {
    spelled(within(domain, "indexes", path)?)
}

fn packs(domain: DomainId) -> String {
    format!("domains/{domain}/packs/")
}

/// The folder of indexes; it is also the path that their signatures bind.
pub(crate) fn indexes(domain: DomainId) -> String {
    format!("domains/{domain}/indexes/")
}

/// The folder of all that is a domain's.
pub(crate) fn domain(domain: DomainId) -> String {
    format!("domains/{domain}/")
}

/// The folder of all backups' own objects.
pub(crate) fn backups(domain: DomainId) -> String {
    format!("domains/{domain}/backups/")
}

/// The folder of a backup's own objects.
pub(crate) fn backup(domain: DomainId, backup: BackupId) -> String {
    format!("domains/{domain}/backups/{backup}/")
}

pub(crate) fn manifest(domain: DomainId, backup: BackupId) -> String {
    format!("domains/{domain}/backups/{backup}/manifest")
}

pub(crate) fn refs_prefix(domain: DomainId, backup: BackupId) -> String {
    format!("domains/{domain}/backups/{backup}/refs.")
}

pub(crate) fn refs(domain: DomainId, backup: BackupId, part: u64) -> String {
    format!("{}{part}", refs_prefix(domain, backup))
}

pub(crate) fn keys(domain: DomainId, backup: BackupId, generation: u64) -> String {
    format!("domains/{domain}/backups/{backup}/keys.{generation}")
}

pub(crate) fn keys_prefix(domain: DomainId, backup: BackupId) -> String {
    format!("domains/{domain}/backups/{backup}/keys.")
}

/// The backup and the generation of listed keys; other names are nobody's.
pub(crate) fn keys_generation(domain: DomainId, path: &str) -> Option<(BackupId, u64)> {
    let (id, name) = within(domain, "backups", path)?.split_once('/')?;
    let (id, generation) = (spelled(id)?, name.strip_prefix("keys.")?.parse().ok()?);
    (keys(domain, id, generation) == path).then_some((id, generation))
}

/// The backup whose own object lies at a path, and the object's name: `manifest`, `refs.<part>` or `keys.<generation>`.
pub(crate) fn backup_object(domain: DomainId, path: &str) -> Option<(BackupId, &str)> {
    let (id, name) = within(domain, "backups", path)?.split_once('/')?;
    let is_ours = match name.split_once('.') {
        None => name == "manifest",
        Some((kind @ ("refs" | "keys"), number)) => {
            number.parse::<u64>().is_ok_and(|parsed| format!("{kind}.{parsed}") == name)
        }
        Some(_) => false,
    };
    is_ours.then_some((spelled(id)?, name))
}

/// The backup whose refs lie at a path.
pub(crate) fn refs_backup(domain: DomainId, path: &str) -> Option<BackupId> {
    backup_object(domain, path).filter(|(_, name)| name.starts_with("refs.")).map(|(backup, _)| backup)
}

pub(crate) fn heads(domain: DomainId) -> String {
    format!("domains/{domain}/heads/")
}

pub(crate) fn head(domain: DomainId, sequence: u64) -> String {
    format!("{}{sequence:016x}", heads(domain))
}

/// The folder of second copies of heads.
pub(crate) fn twins(domain: DomainId) -> String {
    format!("domains/{domain}/twins/")
}

/// Where the second copy of a head lies.
pub(crate) fn twin(domain: DomainId, sequence: u64) -> String {
    format!("{}{sequence:016x}", twins(domain))
}

/// The sequence of a listed head, or of the second copy of one; other names are nobody's.
pub(crate) fn head_sequence(domain: DomainId, path: &str) -> Option<u64> {
    let text = within(domain, "heads", path).or_else(|| within(domain, "twins", path))?;
    let is_ours = text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    u64::from_str_radix(text, 16).ok().filter(|_| is_ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_law() {
        let (domain, backup, digest) = (DomainId([0xab; 16]), BackupId([0xcd; 16]), Digest([0xef; 32]));
        assert_eq!(pack(domain, digest), format!("domains/{}/packs/ef/{}", "ab".repeat(16), "ef".repeat(32)));
        assert_eq!(pack_digest(domain, &pack(domain, digest)), Some(digest));
        assert_eq!(index_digest(domain, &index(domain, digest)), Some(digest));
        assert_eq!(index_digest(domain, &pack(domain, digest)), None);
        assert_eq!(pack_digest(domain, &index(domain, digest)), None);
        assert_eq!(pack_digest(domain, &pack(domain, digest).replace("/ef/", "/ee/")), None);
        assert_eq!(pack_digest(DomainId([0xac; 16]), &pack(domain, digest)), None);
        assert_eq!(pack_digest(domain, &pack(domain, digest).replace("ef", "EF")), None);
        assert_eq!(index_digest(domain, &index(domain, digest).replace("ab", "AB")), None);
        assert_eq!(index_digest(domain, &format!("{}/", index(domain, digest))), None);
        assert_eq!(head(domain, 255), format!("domains/{}/heads/00000000000000ff", "ab".repeat(16)));
        assert_eq!(head_sequence(domain, &head(domain, u64::MAX)), Some(u64::MAX));
        assert_eq!(head_sequence(domain, &twin(domain, 7)), Some(7));
        assert_eq!(twin(domain, 7), format!("domains/{}/twins/0000000000000007", "ab".repeat(16)));
        for other in ["+0000000000000ff", "00000000000000FF", "ff", "000000000000000ff"] {
            assert_eq!(head_sequence(domain, &format!("{}{other}", heads(domain))), None);
        }
        assert_eq!(keys(domain, backup, 3), format!("domains/{}/backups/{}/keys.3", "ab".repeat(16), "cd".repeat(16)));
        assert_eq!(backup_object(domain, &manifest(domain, backup)), Some((backup, "manifest")));
        assert_eq!(backup_object(domain, &keys(domain, backup, 3)), Some((backup, "keys.3")));
        assert_eq!(refs_backup(domain, &refs(domain, backup, 12)), Some(backup));
        assert_eq!(refs_backup(domain, &keys(domain, backup, 3)), None);
        for other in ["refs.01", "refs.x", "notes", "manifest.1", "deep/manifest"] {
            let path = manifest(domain, backup).replace("manifest", other);
            assert_eq!(backup_object(domain, &path), None, "{other}");
        }
        assert_eq!(component_digest(&component(digest)), Some(digest));
        assert_eq!(component_digest("plugins/notes"), None);
        assert_eq!(signature_generation("keyring/7.sig"), Some(7));
        assert_eq!(signature_generation("keyring/07.sig"), None);
        let listed = ["keyring/7.age", "keyring/7.sig", "keyring/07.age", "keyring/x.age", "keyring/7"];
        assert_eq!(listed.map(keyring_generation), [Some(7), Some(7), None, None, None]);
        assert_eq!(keys_generation(domain, &keys(domain, backup, 3)), Some((backup, 3)));
        assert_eq!(keys_generation(domain, &manifest(domain, backup)), None);
    }
}
