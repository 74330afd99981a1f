//! What an S3 target's settings ask besides the address and the keys: who is trusted, how objects are kept.
//!
//! It refuses locks without a number of days, and days without a lock.

use aws_sdk_s3::types::StorageClass;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::error::Error;
use crate::{Lock, LockMode, Settings};

pub(super) const CA: &str = "ca";
pub(super) const STORAGE_CLASS: &str = "storage-class";
pub(super) const LOCK: &str = "lock";
pub(super) const LOCK_DAYS: &str = "lock-days";

/// A lock beyond this is a slip of the keyboard that nobody could take back.
const DAYS_MAX: u32 = 36_500;

/// How objects are kept, and whose certificates count.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Terms {
    /// PEM text; only what it signed is trusted then.
    pub(super) ca: Option<String>,
    pub(super) storage_class: Option<StorageClass>,
    pub(super) lock: Option<Lock>,
}

impl Terms {
    pub(super) fn parse(settings: &Settings) -> Result<Self, Error> {
        let value = |name: &str| settings.get(name).map(String::as_str);
        Ok(Self {
            ca: value(CA).map(certificates).transpose()?,
            storage_class: value(STORAGE_CLASS).map(storage_class).transpose()?,
            lock: lock(value(LOCK), value(LOCK_DAYS))?,
        })
    }
}

/// PEM text as it is given, or from the file that is named.
fn certificates(value: &str) -> Result<String, Error> {
    let text = match value.contains("-----BEGIN") {
        true => value.to_owned(),
        false => std::fs::read_to_string(value)
            .map_err(|error| Error::bad_setting(CA, format!("names a file that cannot be read ({error})")))?,
    };
    let mut certificates = CertificateDer::pem_slice_iter(text.as_bytes()).peekable();
    if certificates.peek().is_none() || certificates.any(|certificate| certificate.is_err()) {
        return Err(Error::bad_setting(CA, "is neither PEM certificates nor the path of a file with them"));
    }
    Ok(text)
}

fn storage_class(text: &str) -> Result<StorageClass, Error> {
    let is_name = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase() || matches!(byte, b'_' | b'-'));
    // Objects there come back only hours after they were asked for.
    let is_asleep = matches!(text, "GLACIER" | "DEEP_ARCHIVE");
    match (is_name, is_asleep) {
        (true, false) => Ok(StorageClass::from(text)),
        (true, true) => Err(Error::bad_setting(STORAGE_CLASS, "names an archive that cannot be read at once")),
        (false, _) => Err(Error::bad_setting(STORAGE_CLASS, "is a name such as `STANDARD_IA`")),
    }
}

fn lock(mode: Option<&str>, days: Option<&str>) -> Result<Option<Lock>, Error> {
    let mode = match mode {
        None if days.is_some() => return Err(Error::bad_setting(LOCK_DAYS, "is for a target with `lock`")),
        None => return Ok(None),
        Some("compliance") => LockMode::Compliance,
        Some("governance") => LockMode::Governance,
        Some(_) => return Err(Error::bad_setting(LOCK, "is `compliance` or `governance`")),
    };
    let days = days.ok_or_else(|| Error::bad_setting(LOCK_DAYS, "is missing: for how many days objects are locked"))?;
    let days = days.parse().ok().filter(|days| (1..=DAYS_MAX).contains(days));
    days.map(|days| Some(Lock { mode, days }))
        .ok_or_else(|| Error::bad_setting(LOCK_DAYS, "is a number of days from 1 to 36500"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(pairs: &[(&str, &str)]) -> Result<Terms, String> {
        let settings = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Terms::parse(&settings).map_err(|error| error.to_string())
    }

    #[test]
    fn a_lock_has_a_mode_and_a_number_of_days() {
        let locked = terms(&[("lock", "compliance"), ("lock-days", "30")]).unwrap();
        assert_eq!(locked.lock, Some(Lock { mode: LockMode::Compliance, days: 30 }));
        assert_eq!(terms(&[]).unwrap(), Terms::default());
        for bad in [&[("lock", "legal"), ("lock-days", "1")][..], &[("lock", "governance")], &[("lock-days", "3")]] {
            assert!(terms(bad).is_err(), "{bad:?}");
        }
        for days in ["0", "36501", "-1", "a"] {
            assert!(terms(&[("lock", "governance"), ("lock-days", days)]).is_err(), "{days}");
        }
    }

    #[test]
    fn classes_that_sleep_are_refused() {
        assert_eq!(terms(&[("storage-class", "STANDARD_IA")]).unwrap().storage_class, Some(StorageClass::StandardIa));
        assert!(terms(&[("storage-class", "DEEP_ARCHIVE")]).unwrap_err().contains("at once"));
        assert!(terms(&[("storage-class", "cheap")]).is_err());
    }

    #[test]
    fn an_authority_is_pem_or_a_file_with_it() {
        assert!(terms(&[("ca", "/no/such/file")]).unwrap_err().contains("cannot be read"));
        assert!(terms(&[("ca", "-----BEGIN NOTHING-----")]).unwrap_err().contains("neither PEM"));
    }
}
