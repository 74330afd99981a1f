//! The server's `backup_manifest`: JSON that lists every file with size and checksum, sealed by a checksum of its own.
//!
//! It is read as a stream: memory holds one file's record, whatever the number of files.

mod seal;

use std::fmt;
use std::io::Read;

use holdfast_sdk::{Error, Result};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::lsn::Lsn;
pub use seal::Seal;

/// One file that the manifest lists.
#[derive(Debug, Deserialize)]
pub struct File {
    /// Its path in the data directory.
    #[serde(rename = "Path")]
    path: Option<String>,
    /// The same in hexadecimal digits, where it is not UTF-8.
    #[serde(rename = "Encoded-Path")]
    encoded_path: Option<String>,
    /// Its bytes.
    #[serde(rename = "Size")]
    pub size: u64,
    /// `CRC32C`, `SHA256`, ...; none if the server was told to leave them out.
    #[serde(rename = "Checksum-Algorithm")]
    pub algorithm: Option<String>,
    /// In hexadecimal digits.
    #[serde(rename = "Checksum")]
    pub checksum: Option<String>,
}

impl File {
    /// Its path in the data directory, as [`names::sanitize`](crate::names::sanitize) makes it.
    pub fn path(&self) -> Result<String> {
        match (&self.path, &self.encoded_path) {
            (Some(path), _) => crate::names::sanitize(path.as_bytes()),
            (None, Some(encoded)) => {
                let raw = hex::decode(encoded).map_err(|_| damaged("a path is not hexadecimal"))?;
                crate::names::sanitize(&raw)
            }
            (None, None) => Err(damaged("a file has no path")),
        }
    }
}

/// A piece of the log that replay needs.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct WalRange {
    /// Its history.
    #[serde(rename = "Timeline")]
    pub timeline: u32,
    /// Where it begins.
    #[serde(rename = "Start-LSN")]
    pub start: Lsn,
    /// Where it ends.
    #[serde(rename = "End-LSN")]
    pub end: Lsn,
}

/// What a manifest says besides its files.
#[derive(Debug, Default)]
pub struct Manifest {
    /// How many files it lists.
    pub files: u64,
    /// What replay needs.
    pub wal_ranges: Vec<WalRange>,
    /// The cluster's identity; from version 17 on.
    pub system_identifier: Option<u64>,
}

/// Reads a manifest to its end, handing each file to `on_file`, and checks its seal.
pub fn read(input: impl Read, mut on_file: impl FnMut(File) -> Result<()>) -> Result<Manifest> {
    let mut input = SealedReader { input, seal: Seal::default() };
    let mut failure = None;
    let mut deserializer = serde_json::Deserializer::from_reader(std::io::BufReader::with_capacity(65_536, &mut input));
    let reading = Document { on_file: &mut on_file, failure: &mut failure };
    let manifest = reading.deserialize(&mut deserializer).and_then(|manifest| deserializer.end().map(|()| manifest));
    match (failure, manifest) {
        (Some(failure), _) => Err(failure),
        (None, Err(error)) if error.is_io() => Err(error.into()),
        (None, Err(error)) => Err(damaged(error)),
        (None, Ok(manifest)) => {
            input.seal.finish()?;
            Ok(manifest)
        }
    }
}

/// Feeds all that is read to the seal.
struct SealedReader<R> {
    input: R,
    seal: Seal,
}

impl<R: Read> Read for &mut SealedReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.seal.update(&buffer[..count])?;
        Ok(count)
    }
}

/// The outer object.
struct Document<'a, F> {
    on_file: &'a mut F,
    /// What `on_file` failed with: serde would keep its text only.
    failure: &'a mut Option<Error>,
}

impl<'de, F: FnMut(File) -> Result<()>> DeserializeSeed<'de> for Document<'_, F> {
    type Value = Manifest;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Manifest, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, F: FnMut(File) -> Result<()>> Visitor<'de> for Document<'_, F> {
    type Value = Manifest;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a backup manifest")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Manifest, A::Error> {
        let mut manifest = Manifest::default();
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "Files" => {
                    let files = Files { on_file: &mut *self.on_file, failure: &mut *self.failure };
                    manifest.files += map.next_value_seed(files)?;
                }
                "WAL-Ranges" => manifest.wal_ranges = map.next_value()?,
                "System-Identifier" => manifest.system_identifier = Some(map.next_value()?),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(manifest)
    }
}

/// The list of files, of which only the number is kept.
struct Files<'a, F> {
    on_file: &'a mut F,
    failure: &'a mut Option<Error>,
}

impl<'de, F: FnMut(File) -> Result<()>> DeserializeSeed<'de> for Files<'_, F> {
    type Value = u64;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<u64, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, F: FnMut(File) -> Result<()>> Visitor<'de> for Files<'_, F> {
    type Value = u64;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a list of files")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<u64, A::Error> {
        let mut count = 0;
        while let Some(file) = seq.next_element()? {
            if let Err(error) = (self.on_file)(file) {
                *self.failure = Some(error);
                return Err(serde::de::Error::custom("stopped"));
            }
            count += 1;
        }
        Ok(count)
    }
}

fn damaged(reason: impl fmt::Display) -> Error {
    Error::new("manifest-damaged", format!("the server's backup manifest is damaged: {reason}"))
}

#[cfg(test)]
mod tests;
