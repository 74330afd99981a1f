//! Ids and digests: 128 random bits, and BLAKE3 of stored bytes; both lowercase hex as text.
macro_rules! id {
    ($($(#[$doc:meta])* $name:ident($size:literal)),*) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $size]);
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                // Paths are made of ids, many times a second: no text of its own is made for each.
                let mut text = [0; 2 * $size];
                hex::encode_to_slice(self.0, &mut text).map_err(|_| std::fmt::Error)?;
                f.write_str(std::str::from_utf8(&text).map_err(|_| std::fmt::Error)?)
            }
        }
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { std::fmt::Display::fmt(self, f) }
        }
        impl std::str::FromStr for $name {
            type Err = hex::FromHexError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let mut bytes = [0; $size];
                hex::decode_to_slice(text, &mut bytes)?;
                Ok(Self(bytes))
            }
        }
    )* };
}
id! {
    /// A repository.
    RepositoryId(16),
    /// What shares chunks and secrets.
    DomainId(16),
    /// A backup.
    BackupId(16),
    /// An instance.
    InstanceId(16),
    /// A process that commits heads.
    WriterId(16),
    /// BLAKE3 of stored bytes.
    Digest(32)
}
impl Digest {
    /// Digest of stored bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}
macro_rules! random {
    ($($name:ident),*) => { $( impl $name {
        /// A new random id.
        pub fn random() -> Self { Self(crate::seal::random()) }
    } )* };
}
random!(RepositoryId, DomainId, BackupId, InstanceId, WriterId);

macro_rules! stored {
    ($($name:ident),*) => { $( impl crate::format::cbor::Value for $name {
        fn put(&self, out: &mut Vec<u8>) {
            self.0.put(out);
        }
        fn take(reader: &mut crate::format::cbor::Reader<'_>) -> Result<Self, crate::format::Malformed> {
            crate::format::cbor::Value::take(reader).map(Self)
        }
    } )* };
}
stored!(RepositoryId, DomainId, BackupId, InstanceId, WriterId, Digest);
