//! What of a backup is lost at several targets together: a pure rule over what the catalog knows of each.
//!
//! Where it is not known which ranges are lost, any may be: a backup is never called whole by mistake.

use holdfast_catalog::{LossRow, LostRangeRow};

/// Bytes of a backup that are lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// Nobody knows which: entries themselves are lost, or more ranges than are listed.
    Unknown,
    /// These.
    Ranges(Vec<LostRangeRow>),
}

impl Lost {
    pub(crate) fn nothing() -> Self {
        Self::Ranges(Vec::new())
    }

    /// What is lost at one target.
    pub(crate) fn of(row: &LossRow) -> Self {
        let is_listed = row.total == row.ranges.len() as u64 && row.ranges.iter().all(|range| range.entry.is_some());
        if is_listed { Self::Ranges(row.ranges.clone()) } else { Self::Unknown }
    }

    /// What is lost both here and there.
    pub(crate) fn and(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Unknown, lost) | (lost, Self::Unknown) => lost.clone(),
            (Self::Ranges(here), Self::Ranges(there)) => {
                let both = here.iter().flat_map(|range| there.iter().filter_map(|other| overlap(range, other)));
                Self::Ranges(both.collect())
            }
        }
    }

    pub(crate) fn is_nothing(&self) -> bool {
        *self == Self::nothing()
    }
}

fn overlap(one: &LostRangeRow, other: &LostRangeRow) -> Option<LostRangeRow> {
    let (from, to) = (one.from.max(other.from), one.to.min(other.to));
    (one.entry == other.entry && from < to).then(|| LostRangeRow { entry: one.entry.clone(), from, to })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(ranges: &[(Option<&str>, u64, u64)], unlisted: u64) -> Lost {
        let range = |(entry, from, to): &(Option<&str>, u64, u64)| LostRangeRow {
            entry: entry.map(str::to_owned),
            from: *from,
            to: *to,
        };
        Lost::of(&LossRow {
            backup_uid: "b".to_owned(),
            target_uid: "t".to_owned(),
            total: ranges.len() as u64 + unlisted,
            ranges: ranges.iter().map(range).collect(),
            found_ms: 1,
        })
    }

    #[test]
    fn what_another_target_has_is_not_lost() {
        let here = lost(&[(Some("a"), 0, 100), (Some("b"), 0, 100)], 0);
        assert!(here.and(&Lost::nothing()).is_nothing());
        assert!(here.and(&lost(&[(Some("a"), 100, 200), (Some("c"), 0, 100)], 0)).is_nothing());
        assert_eq!(here.and(&lost(&[(Some("b"), 50, 200)], 0)), lost(&[(Some("b"), 50, 100)], 0));
        let third = lost(&[(Some("b"), 90, 100)], 0);
        assert_eq!(here.and(&here).and(&third), third);
    }

    #[test]
    fn what_nobody_knows_may_be_anything_but_what_a_whole_copy_has() {
        for unknown in [lost(&[(None, 0, 100)], 0), lost(&[(Some("a"), 0, 1)], 1)] {
            assert!(!unknown.and(&unknown).is_nothing());
            assert!(!unknown.and(&lost(&[(Some("b"), 0, 1)], 0)).is_nothing());
            assert!(unknown.and(&Lost::nothing()).is_nothing());
        }
    }
}
