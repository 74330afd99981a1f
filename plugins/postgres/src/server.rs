//! What a replication connection says of the server: identity, version, sizes. Needs no more than REPLICATION.

use std::io::{Read, Write};

use holdfast_sdk::{Error, Result};

use crate::failure::protocol_error;
use crate::lsn;
use crate::wire::{Wire, column};

/// The oldest major version that is backed up.
const OLDEST: u32 = 12;

/// The first that writes backup manifests.
const WITH_MANIFEST: u32 = 13;

/// The first in which a slot may lose what it keeps.
const WITH_SLOT_LIMIT: u32 = 13;

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
    pub fn ask<R: Read, W: Write>(session: &mut Wire<R, W>) -> Result<Self> {
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
    pub fn ask<R: Read, W: Write>(session: &mut Wire<R, W>) -> Result<Self> {
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

    /// How much log a slot may keep, in the server's words; none if there is no limit.
    pub fn slot_limit<R: Read, W: Write>(&self, session: &mut Wire<R, W>) -> Result<Option<String>> {
        if self.major < WITH_SLOT_LIMIT {
            return Ok(None);
        }
        let limit = show(session, "max_slot_wal_keep_size")?;
        Ok((limit != "-1").then_some(limit))
    }

    /// `primary` or `standby`.
    pub fn role(&self) -> &'static str {
        if self.standby { "standby" } else { "primary" }
    }
}

/// The major version of a version in words, such as `15.18` or `18beta1`. One that cannot be read is taken for a new one.
pub fn major(version: &str) -> u32 {
    version
        .split(|character: char| !character.is_ascii_digit())
        .next()
        .and_then(|major| major.parse().ok())
        .unwrap_or(u32::MAX)
}

fn is_standby<R: Read, W: Write>(session: &mut Wire<R, W>, major: u32) -> Result<bool> {
    // Before 14 a replication connection has no better sign than that every transaction on a standby is read-only.
    let sign = if major >= 14 { "in_hot_standby" } else { "transaction_read_only" };
    Ok(show(session, sign)? == "on")
}

/// The value of a setting, in the server's words.
pub fn show<R: Read, W: Write>(session: &mut Wire<R, W>, name: &str) -> Result<String> {
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
    use crate::wire::tests::{data_row, message, scripted};

    /// What a server answers that says this of itself, in the order in which it is asked.
    fn answers(values: &[&str]) -> Result<Server> {
        let answer = |value: &&str| [data_row(&[Some(value)]), message(b'Z', b"I")].concat();
        let version = message(b'S', b"server_version\x0012.22 (X)\0");
        let script = [version].into_iter().chain(values.iter().map(answer)).collect::<Vec<_>>().concat();
        Server::ask(&mut scripted(script))
    }

    #[test]
    fn a_server_says_what_it_is() {
        let server = answers(&["120022", "8192", "16MB", "1GB", "on", "off"]).expect("valid");
        assert_eq!((server.version.as_str(), server.major, server.role()), ("12.22", 12, "standby"));
        assert_eq!((server.wal_segment_size, server.relation_segment_blocks), (16 << 20, 131_072));
        assert!(!server.data_checksums && !server.writes_manifest());
        server.check_version().expect("old enough");
        let older = Server { major: 11, ..server };
        assert_eq!(older.check_version().expect_err("too old").code, "version-unsupported");
    }

    #[test]
    fn impossible_sizes_are_refused() {
        for values in [
            ["-120022", "8192", "16MB", "1GB"],
            ["120022", "0", "16MB", "1GB"],
            ["120022", "8191", "16MB", "1GB"],
            ["120022", "131072", "16MB", "1GB"],
            ["120022", "8192", "0", "1GB"],
            ["120022", "8192", "17MB", "1GB"],
            ["120022", "8192", "9223372036854775808", "1GB"],
            ["120022", "8192", "16MB", "99999999TB"],
            ["120022", "8192", "16MB", "16777215TB"],
        ] {
            assert!(answers(&values).is_err(), "{values:?}");
        }
    }

    #[test]
    fn versions_have_a_major_part() {
        assert_eq!(["9.6.1", "12.22", "18beta1", "devel"].map(major), [9, 12, 18, u32::MAX]);
    }

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
