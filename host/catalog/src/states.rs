//! The states and roles of rows, as they are written everywhere: in the catalog, the API and the CLI.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An enumeration whose variants are written as fixed words.
macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$doc])* #[serde(rename = $word)] $variant,)+
        }

        impl $name {
            /// The word.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = UnknownWord;

            fn from_str(word: &str) -> Result<Self, UnknownWord> {
                match word {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(UnknownWord { word: word.to_owned(), known: &[$($word),+] }),
                }
            }
        }
    };
}

/// A word that is none of an enumeration's.
#[derive(Debug, thiserror::Error)]
#[error("'{word}' is none of {}", known.join(", "))]
pub struct UnknownWord {
    /// The word.
    pub word: String,
    /// The words that are allowed.
    pub known: &'static [&'static str],
}

words! {
    /// State of a backup.
    BackupState {
        /// Queued or being made.
        Pending = "Pending",
        /// Complete and durable at the primary.
        Succeeded = "Succeeded",
        /// Not made; nothing of it is visible.
        Failed = "Failed",
        /// Given up on request.
        Cancelled = "Cancelled",
        /// Being deleted from the targets.
        Deleting = "Deleting",
    }
}

words! {
    /// State of a backup's copy at a target.
    CopyState {
        /// Not begun.
        Pending = "Pending",
        /// Under way.
        Copying = "Copying",
        /// Complete there, its head written.
        Durable = "Durable",
    }
}

words! {
    /// State of a job.
    JobState {
        /// Waits for its time and a free place.
        Queued = "Queued",
        /// An attempt is under way.
        Running = "Running",
        /// Done.
        Succeeded = "Succeeded",
        /// Given up after an error.
        Failed = "Failed",
        /// Given up on request.
        Cancelled = "Cancelled",
    }
}

words! {
    /// Role of a target.
    TargetRole {
        /// Where backups are made.
        Primary = "primary",
        /// Where they are copied to.
        Secondary = "secondary",
    }
}
