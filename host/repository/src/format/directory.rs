//! The directory (FORMAT §8): what the sealed part of a head says about backups.

use std::sync::Arc;

use super::Malformed;
use super::cbor::{Extra, MapReader, MapWriter, Reader, Value, structure};
use crate::{BackupId, BackupRecord, Hold, Verification};

structure! {
    /// The change that one head makes to the directory.
    DirectoryChange {
        1 records: Vec<Arc<StoredRecord>>,
        2 deleted: Vec<(BackupId, u64)>,
    }
}

/// A backup's record with the facts that this version keeps but does not show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredRecord {
    pub(crate) record: BackupRecord,
    pub(crate) holds: Vec<Hold>,
    pub(crate) losses: Vec<String>,
    pub(crate) extra: Extra,
}

impl StoredRecord {
    /// A record that replaces `earlier`, keeping what the public record cannot carry.
    pub(crate) fn replacing(record: BackupRecord, earlier: Option<&Self>) -> Self {
        let (holds, losses, extra) = earlier
            .map(|earlier| (earlier.holds.clone(), earlier.losses.clone(), earlier.extra.clone()))
            .unwrap_or_default();
        Self { record, holds, losses, extra }
    }
}

impl Value for StoredRecord {
    fn put(&self, out: &mut Vec<u8>) {
        let record = &self.record;
        let mut map = MapWriter::default();
        map.field(1, &record.backup);
        map.field(2, &record.instance);
        map.field(3, &record.organization);
        map.field(4, &record.project);
        map.field(5, &record.instance_name);
        map.field(6, &record.name);
        map.field(7, &record.description);
        map.field(8, &record.labels);
        map.field(9, &record.engine);
        map.field(10, &record.method);
        map.field(11, &record.backup_type);
        map.field(12, &record.plugin);
        map.field(13, &record.component);
        map.field(14, &record.created_ms);
        map.field(15, &record.started_ms);
        map.field(16, &record.finished_ms);
        map.field(17, &record.entries);
        map.field(18, &record.logical_bytes);
        map.field(19, &record.stored_bytes);
        map.field(20, &record.parent);
        map.field(21, &record.warnings);
        map.field(22, &self.holds);
        map.field(23, &record.verifications);
        map.field(24, &record.site);
        map.field(25, &self.losses);
        map.finish(&self.extra, out);
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut map = MapReader::new(reader)?;
        let mut record = BackupRecord {
            backup: map.field(1)?,
            instance: map.field(2)?,
            organization: map.field(3)?,
            project: map.field(4)?,
            instance_name: map.field(5)?,
            name: map.field(6)?,
            description: map.field(7)?,
            labels: map.field(8)?,
            engine: map.field(9)?,
            method: map.field(10)?,
            backup_type: map.field(11)?,
            plugin: map.field(12)?,
            component: map.field(13)?,
            created_ms: map.field(14)?,
            started_ms: map.field(15)?,
            finished_ms: map.field(16)?,
            entries: map.field(17)?,
            logical_bytes: map.field(18)?,
            stored_bytes: map.field(19)?,
            parent: map.field(20)?,
            warnings: map.field(21)?,
            verifications: Vec::new(),
            site: String::new(),
        };
        let holds = map.field(22)?;
        record.verifications = map.field(23)?;
        record.site = map.field(24)?;
        let losses = map.field(25)?;
        Ok(Self { record, holds, losses, extra: map.finish()? })
    }
}

impl Value for Hold {
    fn put(&self, out: &mut Vec<u8>) {
        (self.name.clone(), self.reason.clone(), self.at_ms).put(out);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (name, reason, at_ms) = Value::take(reader)?;
        Ok(Self { name, reason, at_ms })
    }
}

impl Value for Verification {
    fn put(&self, out: &mut Vec<u8>) {
        (self.level.clone(), self.target.clone(), self.at_ms, self.passed, self.detail.clone()).put(out);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (level, target, at_ms, passed, detail) = Value::take(reader)?;
        Ok(Self { level, target, at_ms, passed, detail })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::cbor;
    use crate::{Digest, InstanceId};

    fn record() -> BackupRecord {
        BackupRecord {
            backup: BackupId([1; 16]),
            instance: InstanceId([2; 16]),
            organization: "o".into(),
            project: "p".into(),
            instance_name: "i".into(),
            name: "n".into(),
            description: None,
            labels: [("k".to_owned(), "v".to_owned())].into(),
            engine: "e".into(),
            method: "m".into(),
            backup_type: "full".into(),
            plugin: "e@1".into(),
            component: Digest([3; 32]),
            created_ms: 1,
            started_ms: 2,
            finished_ms: 3,
            entries: 4,
            logical_bytes: 5,
            stored_bytes: 6,
            parent: None,
            warnings: vec!["w".into()],
            verifications: vec![Verification {
                level: "bytes".into(),
                target: "t".into(),
                at_ms: 7,
                passed: true,
                detail: String::new(),
            }],
            site: "s".into(),
        }
    }

    #[test]
    fn a_record_has_these_bytes() {
        let stored = StoredRecord::replacing(record(), None);
        let expected = [
            "b70150",
            &"01".repeat(16),
            "0250",
            &"02".repeat(16),
            "03616f0461700561690661 6e08a1616b617609616 50a616d0b6466756c6c0c636540310d5820".replace(' ', "").as_str(),
            &"03".repeat(32),
            "0e010f0210031104120513061581617716801781856562797465736174 07f560181861731819 80"
                .replace(' ', "")
                .as_str(),
        ]
        .concat();
        assert_eq!(hex::encode(cbor::encode(&stored)), expected);
        assert_eq!(cbor::decode::<StoredRecord>(&cbor::encode(&stored)), Ok(stored));
    }

    #[test]
    fn a_new_record_keeps_holds_losses_and_unknown_facts() {
        let mut bytes = cbor::encode(&StoredRecord {
            holds: vec![Hold { name: "h".into(), reason: "r".into(), at_ms: 1 }],
            losses: vec!["l".into()],
            ..StoredRecord::replacing(record(), None)
        });
        // One more pair: key 128, value true.
        bytes[0] += 1;
        bytes.splice(1..2, [bytes[1]]);
        bytes.extend([0x18, 0x80, 0xf5]);
        let bytes = [&[0xb8, 0x18], &bytes[1..]].concat();
        let earlier: StoredRecord = cbor::decode(&bytes).unwrap();
        assert_eq!(cbor::encode(&StoredRecord::replacing(record(), Some(&earlier))), bytes);
    }
}
