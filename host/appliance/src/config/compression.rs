//! `[compression]`: the levels between which the appliance chooses by itself, the lower ones while its own cores are the bottleneck.

use serde::Deserialize;

use crate::cli::Failure;

/// The keys of this section.
pub const KEYS: &[&str] = &["level-min", "level-max"];

/// `[compression]`.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Compression {
    /// Level of zstd while the cores are the bottleneck.
    pub level_min: i32,
    /// Level of zstd while they wait for the server or for the target.
    pub level_max: i32,
}

impl Default for Compression {
    fn default() -> Self {
        let levels = holdfast_control::Compression::default();
        Self { level_min: levels.level_min, level_max: levels.level_max }
    }
}

impl Compression {
    /// Refuses levels that there are not, and a range without any.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let levels = holdfast_control::Compression::LEVELS;
        for level in [self.level_min, self.level_max] {
            if !levels.contains(&level) {
                return Err(Failure::failed(format!("there is no compression level {level}")).hint(format!(
                    "`[compression]` has levels from {} to {}.",
                    levels.start(),
                    levels.end()
                )));
            }
        }
        if self.level_min > self.level_max {
            let (min, max) = (self.level_min, self.level_max);
            return Err(Failure::failed(format!("the lowest compression level, {min}, is above the highest, {max}"))
                .hint("Give `[compression] level-min` at most the value of `level-max`."));
        }
        Ok(())
    }

    /// As backups take them.
    pub fn levels(&self) -> holdfast_control::Compression {
        holdfast_control::Compression { level_min: self.level_min, level_max: self.level_max }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: &str) -> Result<holdfast_control::Compression, Failure> {
        let compression: Compression = toml::from_str(text).unwrap();
        compression.check().map(|()| compression.levels())
    }

    #[test]
    fn levels_are_read_and_must_make_a_range() {
        let levels = checked("level-min = 2\nlevel-max = 7").unwrap();
        assert_eq!((levels.level_min, levels.level_max), (2, 7));
        assert_eq!(checked("").unwrap(), holdfast_control::Compression::default());
        for text in ["level-min = 0", "level-max = 13", "level-min = -5", "level-min = 5\nlevel-max = 4"] {
            assert!(checked(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_list_of_keys_is_complete() {
        let unknown = toml::from_str::<Compression>("unheard = 1").unwrap_err().to_string();
        assert!(KEYS.iter().all(|key| unknown.contains(&format!("`{key}`"))), "{unknown}");
        assert_eq!(unknown.matches('`').count(), 2 * (KEYS.len() + 1), "{unknown}");
    }
}
