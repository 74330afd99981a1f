//! Values of the command line: names, `key=value`, durations. Checked here as far as the command line alone can tell.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use holdfast_control::InstanceName;

/// `ORG/PROJ/NAME/BACKUP`; without a backup it is `latest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupName {
    /// Whose backup.
    pub instance: InstanceName,
    /// Name, uid or `latest`.
    pub backup: String,
}

impl FromStr for BackupName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (instance, backup) = match text.match_indices('/').nth(2) {
            Some((at, _)) => (&text[..at], &text[at + 1..]),
            None => (text, "latest"),
        };
        Ok(Self { instance: instance_name(instance)?, backup: word(backup)? })
    }
}

impl fmt::Display for BackupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.instance, self.backup)
    }
}

/// `ORG/PROJ/NAME`.
pub fn instance_name(text: &str) -> Result<InstanceName, String> {
    text.parse().map_err(|error: holdfast_control::Error| error.hint.unwrap_or(error.message))
}

/// `ORG[/PROJ[/NAME]]`.
pub fn scope(text: &str) -> Result<String, String> {
    let parts: Vec<_> = text.split('/').collect();
    match parts.len() {
        1..=3 => parts.into_iter().try_for_each(|part| word(part).map(drop)).map(|()| text.to_owned()),
        _ => Err("it has the form ORG, ORG/PROJ or ORG/PROJ/NAME".to_owned()),
    }
}

/// A name or an id that stands in a path of the API.
pub fn word(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(allowed) {
        Ok(text.to_owned())
    } else {
        Err("names have letters, digits, '.', '_' or '-', and begin with a letter or a digit".to_owned())
    }
}

/// `key=value`; the value may be empty and may hold more of `=`.
pub fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("it has the form KEY=VALUE".to_owned()),
    }
}

/// `/old=/new`, both absolute.
pub fn path_mapping(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((old, new)) if old.starts_with('/') && new.starts_with('/') => Ok((old.to_owned(), new.to_owned())),
        _ => Err("it has the form OLD=NEW, both absolute paths".to_owned()),
    }
}

/// `90s`, `5m`, `24h`, `7d`, or several together: `1h30m`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("'{text}' is not a duration such as 90s, 5m, 24h or 7d");
    let mut total: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let count: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        let seconds = match rest.as_bytes()[digits] {
            b's' => 1,
            b'm' => 60,
            b'h' => 3_600,
            b'd' => 86_400,
            _ => return Err(wrong()),
        };
        total = count.checked_mul(seconds).and_then(|part| total.checked_add(part)).ok_or_else(wrong)?;
        rest = &rest[digits + 1..];
    }
    // A century is no time to wait, and an instant so far off cannot be reckoned with.
    if total == 0 || total > 100 * 365 * 86_400 {
        return Err(wrong());
    }
    Ok(Duration::from_secs(total))
}

/// `512KiB`, `256MiB`, `4GiB`, `16TiB`: bytes, counted in powers of 1024.
pub fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("'{text}' is not a size such as 64KiB, 256MiB, 4GiB or 16TiB");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let count: u64 = text[..digits].parse().map_err(|_| wrong())?;
    let unit: u64 = match &text[digits..] {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return Err(wrong()),
    };
    count.checked_mul(unit).filter(|bytes| *bytes > 0).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_is_the_latest_unless_named() {
        let named: BackupName = "acme/shop/pg/20241004095616".parse().unwrap();
        assert_eq!((named.instance.to_string().as_str(), named.backup.as_str()), ("acme/shop/pg", "20241004095616"));
        assert_eq!("acme/shop/pg".parse::<BackupName>().unwrap().to_string(), "acme/shop/pg/latest");
        for wrong in ["acme/shop", "acme/shop/pg/a/b", "acme/shop/pg/", "acme//pg/x", "acme/shop/pg/../x", ""] {
            assert!(wrong.parse::<BackupName>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn words_fit_into_a_path() {
        assert!(word("vault-2.old").is_ok());
        for wrong in ["", ".", "..", "a/b", "a b", "a?b", "-x", "ü"] {
            assert!(word(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_scope_is_one_to_three_names() {
        for good in ["acme", "acme/shop", "acme/shop/pg"] {
            assert_eq!(scope(good).as_deref(), Ok(good));
        }
        for wrong in ["", "acme/", "acme/shop/pg/x", "a&b"] {
            assert!(scope(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_value_may_hold_the_sign() {
        assert_eq!(key_value("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(key_value("a="), Ok(("a".to_owned(), String::new())));
        assert!(key_value("a").is_err() && key_value("=b").is_err());
    }

    #[test]
    fn mappings_are_absolute() {
        assert_eq!(path_mapping("/old=/new"), Ok(("/old".to_owned(), "/new".to_owned())));
        assert!(path_mapping("old=/new").is_err() && path_mapping("/old=new").is_err());
    }

    #[test]
    fn durations_have_units() {
        let seconds = |text| duration(text).map(|d| d.as_secs()).ok();
        assert_eq!(seconds("90s"), Some(90));
        assert_eq!(seconds("5m"), Some(300));
        assert_eq!(seconds("24h"), Some(86_400));
        assert_eq!(seconds("7d"), Some(604_800));
        assert_eq!(seconds("1h30m"), Some(5_400));
        for wrong in ["", "90", "s", "5x", "-5s", "1.5h", "0s", "99999999999999999999d", "5 m", "5µ"] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in
            [("7B", 7), ("64KiB", 64 << 10), ("256MiB", 256 << 20), ("4GiB", 4 << 30), ("16TiB", 16 << 40)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for wrong in ["", "7", "B", "0MiB", "1MB", "1 MiB", "-1MiB", "99999999999999TiB", "1µB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
