//! What opens the keyring in the data directory (FORMAT §7, kind 9): a key in a file, in a systemd credential, or stretched from a
//! passphrase.
//!
//! The sealed keyring says in clear which of them it is, so that changing it is the replacement of one file. Costs that would
//! exhaust the machine are refused before they are spent.

use argon2::{Algorithm, Argon2, Block, Params, Version};
use zeroize::Zeroizing;

use super::parse_local;
use super::stored::{CREDENTIAL, KEY_FILE, LocalClear, PASSPHRASE};
use crate::format::path;
use crate::seal::{self, Secret};
use crate::{Error, Malformed};

/// How the unlock key is had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnlockMethod {
    /// In a file: beside the keyring, or at this absolute path.
    KeyFile(Option<String>),
    /// In the systemd credential of this name.
    Credential(String),
    /// In somebody's head.
    Passphrase(Stretching),
}

impl Default for UnlockMethod {
    fn default() -> Self {
        Self::KeyFile(None)
    }
}

impl UnlockMethod {
    /// Reads how a sealed keyring is opened. Nobody has vouched for it yet.
    pub fn of(sealed: &[u8]) -> Result<Self, Error> {
        let malformed = |reason| Error::damaged(path::LOCAL_KEYRING)(Malformed(reason));
        let LocalClear { method, place, salt, costs, .. } = parse_local(sealed)?.clear;
        match (method, place, salt, costs) {
            (KEY_FILE, place, None, None) => Ok(Self::KeyFile(place)),
            (CREDENTIAL, Some(name), None, None) => Ok(Self::Credential(name)),
            (PASSPHRASE, None, Some(salt), Some(costs)) => Ok(Self::Passphrase(Stretching::checked(salt, costs)?)),
            _ => Err(malformed("how it is unlocked is not known")),
        }
    }

    pub(super) fn to_clear(&self, generation: u64) -> LocalClear {
        let clear = |method, place| LocalClear {
            generation,
            method,
            place,
            salt: None,
            costs: None,
            extra: Default::default(),
        };
        match self {
            Self::KeyFile(place) => clear(KEY_FILE, place.clone()),
            Self::Credential(name) => clear(CREDENTIAL, Some(name.clone())),
            Self::Passphrase(Stretching { salt, costs }) => {
                LocalClear { salt: Some(*salt), costs: Some(*costs), ..clear(PASSPHRASE, None) }
            }
        }
    }
}

/// How a passphrase becomes a key: by argon2id, with this salt and these costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretching {
    salt: [u8; 32],
    /// Memory in KiB, passes, lanes.
    costs: (u64, u64, u64),
}

/// The second recommendation of RFC 9106, §4: for machines whose memory has other uses.
const COSTS: (u64, u64, u64) = (64 << 10, 3, 4);
/// Beyond these no appliance of ours has ever written any.
const COSTS_MAX: (u64, u64, u64) = (4 << 20, 64, 64);

impl Stretching {
    /// A new salt, and the costs of today.
    pub fn generate() -> Self {
        Self { salt: seal::random(), costs: COSTS }
    }

    fn checked(salt: [u8; 32], costs: (u64, u64, u64)) -> Result<Self, Error> {
        let (memory_kib, passes, lanes) = costs;
        let (memory_max, passes_max, lanes_max) = COSTS_MAX;
        if memory_kib > memory_max || passes > passes_max || lanes > lanes_max {
            return Err(Error::UnusableStretching { memory_kib, passes, lanes });
        }
        Ok(Self { salt, costs })
    }

    /// The unlock key of a passphrase. Takes a good part of a second and 64 MiB: not for a thread of the runtime.
    pub fn stretch(&self, passphrase: &str) -> Result<UnlockKey, Error> {
        let (memory_kib, passes, lanes) = self.costs;
        let unusable = || Error::UnusableStretching { memory_kib, passes, lanes };
        let [memory, pass_count, lane_count] = [memory_kib, passes, lanes].map(u32::try_from);
        let (Ok(memory), Ok(pass_count), Ok(lane_count)) = (memory, pass_count, lane_count) else {
            return Err(unusable());
        };
        let parameters = Params::new(memory, pass_count, lane_count, Some(32)).map_err(|_| unusable())?;
        let mut blocks = Zeroizing::new(vec![Block::default(); parameters.block_count()]);
        let mut secret = Secret([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, parameters)
            .hash_password_into_with_memory(passphrase.as_bytes(), &self.salt, &mut secret.0, &mut blocks[..])
            .map_err(|_| unusable())?;
        Ok(UnlockKey { secret, method: UnlockMethod::Passphrase(self.clone()) })
    }
}

/// Opens the keyring in the data directory: 32 bytes, and how they are had.
#[derive(Debug)]
pub struct UnlockKey {
    secret: Secret,
    method: UnlockMethod,
}

impl UnlockKey {
    /// A new random key, to be kept as `method` says.
    pub fn generate(method: UnlockMethod) -> Self {
        Self { secret: Secret::random(), method }
    }

    /// Reads the text form of a key that is kept as `method` says; space around it does not count.
    pub fn parse(text: &str, method: UnlockMethod) -> Result<Self, Error> {
        let mut secret = Secret([0; 32]);
        hex::decode_to_slice(text.trim(), &mut secret.0).map_err(|_| Error::InvalidUnlockKey)?;
        Ok(Self { secret, method })
    }

    /// 64 hex digits.
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(hex::encode(self.secret.0))
    }

    /// How it is had.
    pub fn method(&self) -> &UnlockMethod {
        &self.method
    }

    /// Whether two are the same key, however they are had. Compares in constant time.
    pub fn is_same_key(&self, other: &Self) -> bool {
        blake3::Hash::from_bytes(self.secret.0) == blake3::Hash::from_bytes(other.secret.0)
    }

    pub(super) fn secret(&self) -> &Secret {
        &self.secret
    }

    /// What it means that the keyring does not open with it.
    pub(super) fn refused(&self) -> Error {
        match self.method {
            UnlockMethod::Passphrase(_) => Error::WrongPassphrase,
            UnlockMethod::KeyFile(_) | UnlockMethod::Credential(_) => Error::WrongUnlockKey,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Keyring;

    /// Little enough for a test.
    fn cheap() -> Stretching {
        Stretching { salt: [2; 32], costs: (32, 3, 4) }
    }

    #[test]
    fn unlock_keys_are_checked() {
        let parse = |text: &str| UnlockKey::parse(text, UnlockMethod::default());
        assert!(parse(&format!(" {}\n", "ab".repeat(32))).is_ok());
        for text in ["", "ab", &"xy".repeat(32), &"ab".repeat(33)] {
            assert_eq!(parse(text).unwrap_err().code(), "invalid-unlock-key");
        }
    }

    #[test]
    fn a_passphrase_is_stretched_by_argon2id() {
        // What the reference implementation in C makes of the same.
        let key = cheap().stretch("passphrase").unwrap();
        assert_eq!(*key.to_text(), "6ee56b042477d3729c31d3b448e77fc3c595c4c45a1e5c5032318490023ad95a");
        assert!(!key.is_same_key(&cheap().stretch("Passphrase").unwrap()));
    }

    #[test]
    fn a_keyring_says_how_it_is_opened() {
        let keyring = Keyring::generate();
        for key in [
            UnlockKey::generate(UnlockMethod::default()),
            UnlockKey::generate(UnlockMethod::KeyFile(Some("/media/stick/holdfast.key".to_owned()))),
            UnlockKey::generate(UnlockMethod::Credential("holdfast".to_owned())),
            cheap().stretch("correct horse").unwrap(),
        ] {
            let sealed = keyring.seal(&key);
            assert_eq!(UnlockMethod::of(&sealed).unwrap(), *key.method());
            assert_eq!(Keyring::open(&sealed, &key).unwrap().repository(), keyring.repository());
        }
    }

    #[test]
    fn a_wrong_passphrase_is_told_as_one() {
        let sealed = Keyring::generate().seal(&cheap().stretch("correct horse").unwrap());
        let error = Keyring::open(&sealed, &cheap().stretch("battery staple").unwrap()).unwrap_err();
        assert_eq!(error.code(), "wrong-passphrase");
        assert!(error.hint().unwrap().contains("recovery kit"));
    }

    #[test]
    fn costs_beyond_all_measure_are_not_spent() {
        for costs in [(u64::MAX, 1, 1), ((4 << 20) + 1, 1, 1), (64, 65, 1), (64, 1, 65)] {
            assert_eq!(Stretching::checked([0; 32], costs).unwrap_err().code(), "unusable-stretching");
        }
        let nothing = Stretching { salt: [0; 32], costs: (0, 0, 0) };
        assert_eq!(nothing.stretch("x").unwrap_err().code(), "unusable-stretching");
    }
}
