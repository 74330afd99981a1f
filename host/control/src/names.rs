//! Names that people choose: what is allowed in them, and the near name when one is unknown.

use std::fmt;
use std::str::FromStr;

use crate::Error;

/// Name of an instance, `organization/project/instance`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceName {
    /// Whose it is.
    pub organization: String,
    /// A group of instances.
    pub project: String,
    /// The service itself.
    pub instance: String,
}

impl InstanceName {
    /// Puts the parts together, each checked.
    pub fn new(organization: &str, project: &str, instance: &str) -> Result<Self, Error> {
        for (what, part) in [("organization", organization), ("project", project), ("instance", instance)] {
            check_part(what, part)?;
        }
        Ok(Self { organization: organization.to_owned(), project: project.to_owned(), instance: instance.to_owned() })
    }
}

impl fmt::Display for InstanceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.organization, self.project, self.instance)
    }
}

impl FromStr for InstanceName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text.split('/').collect::<Vec<_>>()[..] {
            [organization, project, instance] => Self::new(organization, project, instance),
            _ => Err(Error::invalid("bad-name", format!("'{text}' is not the name of an instance"))
                .hint("An instance is named ORGANIZATION/PROJECT/INSTANCE, such as acme/shop/pg.")),
        }
    }
}

/// Splits `organization/project/instance[/backup]`; without a backup it is `latest`.
pub(crate) fn backup_reference(text: &str) -> Result<(InstanceName, String), Error> {
    match text.split('/').collect::<Vec<_>>()[..] {
        [o, p, i] => Ok((InstanceName::new(o, p, i)?, "latest".to_owned())),
        [o, p, i, backup] => Ok((InstanceName::new(o, p, i)?, backup.to_owned())),
        _ => Err(Error::invalid("bad-name", format!("'{text}' does not name a backup"))
            .hint("A backup is named ORGANIZATION/PROJECT/INSTANCE/BACKUP; without the last part, or with `latest`, it is the newest that can be restored.")),
    }
}

/// Checks one part of a name: 1 to 63 of `a-z A-Z 0-9 . _ -`, beginning with a letter or digit.
pub(crate) fn check_part(what: &str, part: &str) -> Result<(), Error> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if part.len() <= 63 && part.starts_with(|c: char| c.is_ascii_alphanumeric()) && part.chars().all(allowed) {
        return Ok(());
    }
    Err(Error::invalid("bad-name", format!("'{part}' is not a name for a {what}"))
        .hint("Names have 1 to 63 letters, digits, '.', '_' or '-', and begin with a letter or a digit."))
}

/// Checks a backup's name: as a part, up to 64 characters, and not `latest`.
pub(crate) fn check_backup_name(name: &str) -> Result<(), Error> {
    if name == "latest" {
        return Err(Error::invalid("bad-name", "'latest' cannot name a backup")
            .hint("It always means the newest backup that can be restored."));
    }
    match check_part("backup", name.get(..63).unwrap_or(name)) {
        Ok(())
            if name.len() <= 64 && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')) =>
        {
            Ok(())
        }
        _ => Err(Error::invalid("bad-name", format!("'{name}' is not a name for a backup")).hint(
            "Names of backups have 1 to 64 letters, digits, '.', '_' or '-', and begin with a letter or a digit.",
        )),
    }
}

/// The candidate nearest to a mistyped name, if one is near (at most a third of its letters differ, or two).
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(far, candidate)| *far <= (candidate.chars().count() / 3).max(2))
        .min()
        .map(|(_, candidate)| candidate)
}

/// Letters to insert, delete or replace to get from one word to the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_three_parts_of_plain_letters() {
        assert_eq!("acme/shop/pg".parse::<InstanceName>().map(|n| n.to_string()).ok().as_deref(), Some("acme/shop/pg"));
        for bad in ["acme/shop", "acme//pg", "acme/shop/../pg", "acme/shop/p g", "-a/b/c", "a/b/c\n"] {
            assert!(bad.parse::<InstanceName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_backup_is_the_latest_unless_named() {
        assert_eq!(backup_reference("a/b/c").map(|r| r.1).ok().as_deref(), Some("latest"));
        assert_eq!(backup_reference("a/b/c/20241004095616").map(|r| r.1).ok().as_deref(), Some("20241004095616"));
        assert!(check_backup_name("latest").is_err());
        assert!(check_backup_name(&"a".repeat(64)).is_ok());
        assert!(check_backup_name(&"a".repeat(65)).is_err());
        assert!(check_backup_name(&format!("{}/", "a".repeat(63))).is_err());
    }

    #[test]
    fn the_near_name_is_found() {
        assert_eq!(nearest("hots", ["host", "port", "user"]), Some("host"));
        assert_eq!(nearest("databse", ["database", "password"]), Some("database"));
        assert_eq!(nearest("zzzzzz", ["host", "port"]), None);
    }
}
