//! What a replication connection says of the server: identity, version, sizes. Needs no more than REPLICATION.

use holdfast_sdk::{Error, Result};

use crate::failure::protocol_error;
use crate::lsn;
use crate::session::Session;
use crate::wire::column;

/// The oldest major version that is backed up.
const OLDEST: u32 = 12;

/// The first that writes backup manifests.
const WITH_MANIFEST: u32 = 13;

/// Which data a server serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Identifies the cluster and its copies.
    pub system_identifier: String,
    /// Its history.
    pub timeline: u32,
}

impl Identity {
    /// Asks the server.
    pub fn ask(session: &mut Session) -> Result<Self> {
        let rows = session.query("IDENTIFY_SYSTEM")?;
        let row = rows.first().ok_or_else(|| protocol_error("no answer to IDENTIFY_SYSTEM"))?;
        let system_identifier = column(row, 0)?.to_owned();
        let timeline = column(row, 1)?.parse().map_err(|_| protocol_error("a timeline that is no number"))?;
        Ok(Self { system_identifier, timeline })
    }
}

/// What does not change while a server runs.
#[derive(Clone, Debug)]
pub struct Server {
    /// Such as `15.18`.
    pub version: String,
    /// Such as 15.
    pub major: u32,
    /// Whether it follows another server.
    pub standby: bool,
    /// Bytes of a page.
    pub block_size: u32,
    /// Bytes of a segment of the log.
    pub wal_segment_size: u64,
    /// Pages of a relation in one file.
    pub relation_segment_blocks: u32,
    /// Whether pages have checksums.
    pub data_checksums: bool,
}

impl Server {
    /// Asks the server.
    pub fn ask(session: &mut Session) -> Result<Self> {
        let number: u32 = parse(&show(session, "server_version_num")?)?;
        let version = session.version().split(' ').next().unwrap_or_default().to_owned();
        let major = number / 10_000;
        let block_size: u32 = parse(&show(session, "block_size")?)?;
        let wal_segment_size = size(&show(session, "wal_segment_size")?)?;
        let relation_segment_size = size(&show(session, "segment_size")?)?;
        if !block_size.is_power_of_two() || !(512..=65_536).contains(&block_size) {
            return Err(protocol_error(format!("a block size of {block_size}")));
        }
        if !lsn::is_segment_size(wal_segment_size) {
            return Err(protocol_error(format!("log segments of {wal_segment_size} bytes")));
        }
        let relation_segment_blocks = u32::try_from(relation_segment_size / u64::from(block_size));
        Ok(Self {
            standby: is_standby(session, major)?,
            version,
            major,
            block_size,
            wal_segment_size,
            relation_segment_blocks: relation_segment_blocks.map_err(|_| protocol_error("a relation segment size"))?,
            data_checksums: show(session, "data_checksums")? == "on",
        })
    }

    /// Refuses a server that is too old.
    pub fn check_version(&self) -> Result<()> {
        if self.major < OLDEST {
            let message = format!("the server is PostgreSQL {}", self.version);
            return Err(Error::new("version-unsupported", message)
                .hint(format!("Upgrade the server to PostgreSQL {OLDEST} or later.")));
        }
        Ok(())
    }

    /// Whether it lists the files of a backup in a manifest.
    pub fn writes_manifest(&self) -> bool {
        self.major >= WITH_MANIFEST
    }

    /// `primary` or `standby`.
    pub fn role(&self) -> &'static str {
        if self.standby { "standby" } else { "primary" }
    }
}

fn is_standby(session: &mut Session, major: u32) -> Result<bool> {
    // Before 14 a replication connection has no better sign than that every transaction on a standby is read-only.
    let sign = if major >= 14 { "in_hot_standby" } else { "transaction_read_only" };
    Ok(show(session, sign)? == "on")
}

/// The value of a setting, in the server's words.
pub fn show(session: &mut Session, name: &str) -> Result<String> {
    let rows = session.query(&format!("SHOW {name}"))?;
    Ok(crate::wire::single(&rows)?.to_owned())
}

fn parse<T: std::str::FromStr>(text: &str) -> Result<T> {
    text.parse().map_err(|_| protocol_error(format!("{text:?} where a number should be")))
}

/// Bytes, as `SHOW` writes them: `16MB`.
pub fn size(text: &str) -> Result<u64> {
    let unit = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit);
    let shift = match unit {
        "" | "B" => 0,
        "kB" => 10,
        "MB" => 20,
        "GB" => 30,
        "TB" => 40,
        _ => return Err(protocol_error(format!("{text:?} where a size should be"))),
    };
    let bytes = parse::<u64>(number)?.checked_mul(1 << shift);
    bytes.ok_or_else(|| protocol_error(format!("{text:?} where a size should be")))
}

#[cfg(test)]
impl Server {
    /// One as good as any.
    pub fn example(standby: bool) -> Self {
        Self {
            version: "15.18".into(),
            major: 15,
            standby,
            block_size: 8_192,
            wal_segment_size: 16 << 20,
            relation_segment_blocks: 131_072,
            data_checksums: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(size("16MB").expect("valid"), 16 << 20);
        assert_eq!(size("1GB").expect("valid"), 1 << 30);
        assert_eq!(size("8192").expect("valid"), 8192);
        for text in ["", "MB", "1 MB", "-1", "1XB", "99999999999TB"] {
            assert!(size(text).is_err(), "{text:?}");
        }
    }
}
