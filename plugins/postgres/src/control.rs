//! `pg_control`: the cluster's identity card. Only what does not move between versions is read, and only after its own
//! checksum fitted.

use std::fmt;

use crate::crc32c::crc32c;

/// By the structure's version, where its own checksum lies and where the version of the data checksums does. The versions
/// are those of PostgreSQL 12, 13 to 16, 17 and 18.
const LAYOUTS: &[(u32, usize, usize)] = &[(1201, 288, 252), (1300, 288, 252), (1700, 288, 252), (1800, 292, 252)];

/// What a backup is judged by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// Identifies the cluster and its copies.
    pub system_identifier: u64,
    /// Version of the structure, such as 1300.
    pub version: u32,
    /// State of the cluster, as in `enum DBState`.
    pub state: u32,
    /// Whether pages have checksums.
    pub data_checksums: bool,
}

/// Why the file says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Of a version that was not known when this was written.
    Unknown(u32),
    /// Not as any server leaves it.
    Damaged(&'static str),
}

impl fmt::Display for Flaw {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(version) => write!(formatter, "its version {version} is not known"),
            Self::Damaged(reason) => formatter.write_str(reason),
        }
    }
}

impl Control {
    /// Reads the file, or says what is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, Flaw> {
        let version = word(bytes, 8)?;
        if version % 65_536 == 0 && version != 0 {
            return Err(Flaw::Damaged("it was written on a big endian machine, which is not supported"));
        }
        let known = LAYOUTS.iter().find(|(known, ..)| *known == version);
        let (_, checksum_at, data_checksums_at) = known.ok_or(Flaw::Unknown(version))?;
        let covered = bytes.get(..*checksum_at).ok_or(CUT)?;
        if crc32c(covered) != word(bytes, *checksum_at)? {
            return Err(Flaw::Damaged("its checksum does not fit"));
        }
        let system_identifier = u64::from(word(bytes, 0)?) | u64::from(word(bytes, 4)?) << 32;
        Ok(Self {
            system_identifier,
            version,
            state: word(bytes, 16)?,
            data_checksums: word(bytes, *data_checksums_at)? != 0,
        })
    }

    /// Whether the state is one in which a running server can be: shut down, recovering or in production.
    pub fn has_valid_state(&self) -> bool {
        (1..=6).contains(&self.state)
    }
}

const CUT: Flaw = Flaw::Damaged("it is cut short");

fn word(bytes: &[u8], at: usize) -> Result<u32, Flaw> {
    let word = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>());
    word.map(|word| u32::from_le_bytes(*word)).ok_or(CUT)
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A file as PostgreSQL 13 to 16 write it.
    pub fn file() -> Vec<u8> {
        let mut bytes = vec![0; 8_192];
        bytes[0..8].copy_from_slice(&7_300_000_000_000_000_001u64.to_le_bytes());
        bytes[8..12].copy_from_slice(&1300u32.to_le_bytes());
        bytes[16..20].copy_from_slice(&6u32.to_le_bytes());
        bytes[252..256].copy_from_slice(&1u32.to_le_bytes());
        let sum = crc32c(&bytes[..288]);
        bytes[288..292].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    #[test]
    fn reads_identity_state_and_checksums() {
        let control = Control::parse(&file()).expect("valid");
        assert_eq!(control.system_identifier, 7_300_000_000_000_000_001);
        assert!(control.data_checksums && control.has_valid_state());
    }

    #[test]
    fn refuses_damage_and_what_it_does_not_know() {
        let mut damaged = file();
        damaged[100] ^= 1;
        assert!(Control::parse(&damaged).expect_err("damaged").to_string().contains("checksum"));
        let mut unknown = file();
        unknown[8] = 1;
        assert_eq!(Control::parse(&unknown), Err(Flaw::Unknown(1281)));
        let mut foreign = file();
        foreign[8..12].copy_from_slice(&1300u32.to_be_bytes());
        assert!(Control::parse(&foreign).expect_err("foreign").to_string().contains("big endian"));
        for length in [0, 10, 290] {
            assert!(Control::parse(&file()[..length]).is_err(), "{length}");
        }
    }
}
