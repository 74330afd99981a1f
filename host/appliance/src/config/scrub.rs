//! `[scrub]`: in how many days every byte of a target is read and compared with what it must be.

use holdfast_control::ScrubDays;
use serde::Deserialize;

/// The keys of this section.
pub const KEYS: &[&str] = &["primary-days", "offsite-days"];

/// `[scrub]`. 0 days: never.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Scrub {
    /// At the primary.
    pub primary_days: u32,
    /// At every other target.
    pub offsite_days: u32,
}

impl Default for Scrub {
    fn default() -> Self {
        let ScrubDays { primary, offsite } = ScrubDays::default();
        Self { primary_days: primary.unwrap_or(0), offsite_days: offsite.unwrap_or(0) }
    }
}

impl Scrub {
    /// As the appliance takes it.
    pub fn days(&self) -> ScrubDays {
        let days = |days: u32| (days > 0).then_some(days);
        ScrubDays { primary: days(self.primary_days), offsite: days(self.offsite_days) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_days_are_never() {
        let scrub: Scrub = toml::from_str("offsite-days = 0").unwrap();
        assert_eq!(scrub.days(), ScrubDays { primary: Some(7), offsite: None });
        assert_eq!(Scrub::default().days(), ScrubDays::default());
    }
}
