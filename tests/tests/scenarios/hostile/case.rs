//! A hostile guest: what it does, where, and how it must end.

use std::time::Duration;

use holdfast_text_guests::Guest;

use super::servers::Manner;

/// Bounds that every run is given, as they stand in the configuration. What is not said is as by default.
pub const LIMITS: [(&str, &str); 11] = [
    ("workers", "8"),
    ("memory", "\"64MiB\""),
    ("wall", "\"4s\""),
    ("cpu", "\"1s\""),
    ("idle", "\"1s\""),
    ("connect", "\"1s\""),
    ("output", "\"48MiB\""),
    ("entries", "5000"),
    ("records", "\"3MiB\""),
    ("compile-memory", "\"512MiB\""),
    ("compile-time", "\"8s\""),
];
const WALL: Duration = Duration::from_secs(4);
const SHORT: Duration = Duration::from_secs(1);
const COMPILING: Duration = Duration::from_secs(8);

/// What of a plugin is called, and how an operator has it called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Export {
    /// `plugin install`
    Describe,
    /// `instance check`
    Probe,
    /// `backup create`
    Dump,
    /// `restore`
    Restore,
    /// `backup verify`
    Verify,
}

/// How it must end.
#[derive(Debug)]
pub enum End {
    /// It fails by this stable code.
    Fails(&'static str),
    /// It does no harm, and the command ends with this exit code.
    Harmless(i32),
}

/// One hostile guest.
pub struct Case {
    /// Unique among all.
    pub name: String,
    pub export: Export,
    /// The harm that the guest in Rust does; without it, the component does its own.
    pub harm: &'static str,
    /// A component of its own.
    pub component: Option<Vec<u8>>,
    /// The server that it is let loose on.
    pub server: Option<Manner>,
    /// Whether it has to do with TLS: `verify-full` instead of `off`.
    pub tls: bool,
    pub end: End,
    /// What the operator must be told, in whatever case.
    pub words: Vec<&'static str>,
    /// When it must have ended; two more seconds are allowed.
    pub deadline: Duration,
}

impl Case {
    fn new(name: String, export: Export) -> Self {
        Self {
            name,
            export,
            harm: "",
            component: None,
            server: None,
            tls: false,
            end: End::Harmless(0),
            words: Vec::new(),
            deadline: WALL,
        }
    }

    /// It fails by this code, and says these words.
    pub fn fails(self, code: &'static str, words: &[&'static str]) -> Self {
        Self { end: End::Fails(code), words: words.into(), ..self }
    }

    /// It traps, and the operator is told how.
    pub fn crashes(self, words: &[&'static str]) -> Self {
        self.fails("plugin-crashed", words)
    }

    /// It is ended by a limit, which is named.
    pub fn exceeds(self, limit: &'static str) -> Self {
        let deadline = match limit {
            "cpu" | "idle" => SHORT,
            "compile-time" | "compile-memory" => COMPILING,
            _ => WALL,
        };
        Self { deadline, ..self.fails("plugin-limit", &[limit]) }
    }

    /// It is refused when it is installed, and the operator is told why.
    pub fn refused(self, words: &[&'static str]) -> Self {
        Self { export: Export::Describe, ..self.fails("plugin-unusable", words) }
    }

    /// What it left behind is much: it is ended as soon as any other, and the host then needs this time to remove it.
    pub fn and_is_removed_within(self, time: Duration) -> Self {
        Self { deadline: self.deadline + time, ..self }
    }

    /// It comes to nothing: the command succeeds, with this exit code.
    pub fn harmless(self, exit: i32) -> Self {
        Self { end: End::Harmless(exit), ..self }
    }

    /// The operator must be told these words too.
    pub fn says(mut self, words: &[&'static str]) -> Self {
        self.words.extend(words);
        self
    }

    /// Its instance has this server, without TLS.
    pub fn against(self, server: Manner) -> Self {
        Self { server: Some(server), ..self }
    }

    /// Its instance asks for TLS with a known certificate.
    pub fn with_tls(self) -> Self {
        Self { tls: true, ..self }
    }
}

/// The guest in Rust, doing this harm in this export.
pub fn harm(export: Export, harm: &'static str) -> Case {
    Case { harm, ..Case::new(format!("{}-{harm}", format!("{export:?}").to_lowercase()), export) }
}

/// A guest written as text, whose probe or dump does what its body says.
pub fn text(export: Export, name: &str, guest: impl FnOnce(Guest) -> Guest) -> Case {
    component(export, name, guest(Guest::new(name)).component())
}

/// A component, or what is none.
pub fn component(export: Export, name: &str, component: Vec<u8>) -> Case {
    Case { component: Some(component), ..Case::new(name.into(), export) }
}
