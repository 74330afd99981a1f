//! The instance's members: which of them a backup is taken from.
//!
//! They are asked in the operator's order until one is as wanted. All that answered must serve the same data: a backup of
//! some other cluster would be worse than none.

use holdfast_sdk::{Error, Result};

use crate::server::{Identity, Server};
use crate::session::{self, Member, Purpose, Session};
use crate::settings::{Preference, Settings};

/// A member that answered. `S` is its session.
pub struct Reached<S> {
    /// Which it is.
    pub member: Member,
    /// A replication session.
    pub session: S,
    /// What it is like.
    pub server: Server,
    /// Which data it serves.
    pub identity: Identity,
}

/// A member that no backup can be taken from.
pub struct Unreached {
    /// Which it is.
    pub member: Member,
    /// Why.
    pub error: Error,
}

/// The member to back up.
pub struct Choice<S> {
    /// The one.
    pub reached: Reached<S>,
    /// Those before it in the order that did not answer.
    pub unreached: Vec<Unreached>,
    /// Said with the backup where the member is not of the role that was asked for.
    pub warning: Option<String>,
}

/// Opens a replication session at a member, and asks who it is.
pub fn visit(settings: &Settings, member: Member) -> Result<Reached<Session>, Unreached> {
    let ask = || {
        let mut session = session::open(settings, &member, Purpose::Replication)?;
        let server = Server::ask(&mut session)?;
        let identity = Identity::ask(&mut session)?;
        Ok((session, server, identity))
    };
    match ask() {
        Ok((session, server, identity)) => Ok(Reached { member, session, server, identity }),
        Err(error) => Err(Unreached { member, error }),
    }
}

/// Chooses the member to back up, and leaves its session open.
pub fn choose(settings: &Settings) -> Result<Choice<Session>> {
    let supported = |reached: Reached<Session>| match reached.server.check_version() {
        Ok(()) => Ok(reached),
        Err(error) => Err(Unreached { member: reached.member, error }),
    };
    let visits = Member::all().into_iter().map(|member| visit(settings, member).and_then(supported));
    choose_from(settings.prefer, visits)
}

/// Takes visits only until one is as wanted.
pub fn choose_from<S>(
    preference: Preference,
    visits: impl Iterator<Item = Result<Reached<S>, Unreached>>,
) -> Result<Choice<S>> {
    let mut other: Option<Reached<S>> = None;
    let mut unreached = Vec::new();
    for visit in visits {
        let reached = match visit {
            Ok(reached) => reached,
            Err(failed) => {
                unreached.push(failed);
                continue;
            }
        };
        if let Some(other) = &other {
            check_same_data(other, &reached)?;
        }
        if preference.accepts(&reached.server) {
            return Ok(Choice { reached, unreached, warning: None });
        }
        other.get_or_insert(reached);
    }
    match other {
        Some(reached) => {
            let warning = Some(fallback_warning(preference, &reached, &unreached));
            Ok(Choice { reached, unreached, warning })
        }
        None => Err(none_answered(unreached)),
    }
}

impl Preference {
    /// Whether a server is of the role.
    pub fn accepts(self, server: &Server) -> bool {
        match self {
            Self::Any => true,
            Self::Primary => !server.standby,
            Self::Standby => server.standby,
        }
    }

    /// The role in words.
    pub fn role(self) -> &'static str {
        match self {
            Self::Any => "member",
            Self::Primary => "primary",
            Self::Standby => "standby",
        }
    }
}

/// Refuses two members that are not copies of each other.
pub fn check_same_data<S>(one: &Reached<S>, other: &Reached<S>) -> Result<()> {
    let (first, second) = (&one.identity.system_identifier, &other.identity.system_identifier);
    if first == second {
        return Ok(());
    }
    let message =
        format!("{} serves the cluster {first}, and {} the cluster {second}", one.member.address, other.member.address);
    Err(Error::new("members-differ", message)
        .hint("Name only servers of one cluster in the setting host: a primary and its standbys."))
}

fn fallback_warning<S>(preference: Preference, taken: &Reached<S>, unreached: &[Unreached]) -> String {
    let reasons = match unreached {
        [] => String::new(),
        unreached => format!(" ({})", reasons(unreached)),
    };
    let (wanted, address, role) = (preference.role(), &taken.member.address, taken.server.role());
    format!("no {wanted} of the instance answered{reasons}: the backup is of {address}, a {role}")
}

/// The error of one, or all of them in one.
pub fn none_answered(mut unreached: Vec<Unreached>) -> Error {
    let Some(first) = unreached.first() else {
        return Error::new("not-granted", "the job was given no server to connect to");
    };
    if unreached.len() == 1 {
        return unreached.remove(0).error;
    }
    let same = unreached.iter().all(|other| other.error.code == first.error.code);
    let code = if same { first.error.code.clone() } else { "no-member-answers".into() };
    let mut hints: Vec<String> = unreached.iter().filter_map(|failed| failed.error.hint.clone()).collect();
    hints.dedup();
    Error {
        code,
        message: format!("no member of the instance can be backed up: {}", reasons(&unreached)),
        hint: (!hints.is_empty()).then(|| hints.join(" ")),
        retryable: unreached.iter().any(|failed| failed.error.retryable),
    }
}

/// Each member with its reason.
fn reasons(unreached: &[Unreached]) -> String {
    let reason = |failed: &Unreached| {
        let (address, message) = (&failed.member.address, &failed.error.message);
        if message.contains(address.as_str()) { message.clone() } else { format!("{address}: {message}") }
    };
    unreached.iter().map(reason).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    type Visit = Result<Reached<()>, Unreached>;

    fn answers(address: &str, standby: bool, system_identifier: &str) -> Visit {
        Ok(Reached {
            member: Member::of(address),
            session: (),
            server: Server::example(standby),
            identity: Identity { system_identifier: system_identifier.into(), timeline: 1 },
        })
    }

    fn fails(address: &str, code: &'static str) -> Visit {
        let error = Error::new(code, "nothing is there").hint(format!("Start {address}."));
        Err(Unreached { member: Member::of(address), error })
    }

    fn choose(preference: Preference, visits: Vec<Visit>) -> Result<(String, Option<String>)> {
        let choice = choose_from(preference, visits.into_iter())?;
        Ok((choice.reached.member.address, choice.warning))
    }

    #[test]
    fn the_first_in_the_order_that_is_as_wanted_is_taken() {
        let visits = || {
            vec![
                fails("a", "connection-refused"),
                answers("b", false, "7"),
                answers("c", true, "7"),
                answers("d", true, "7"),
            ]
        };
        for (preference, expected) in [(Preference::Any, "b"), (Preference::Primary, "b"), (Preference::Standby, "c")] {
            assert_eq!(choose(preference, visits()).expect("chosen"), (expected.to_owned(), None));
        }
    }

    #[test]
    fn another_role_is_taken_with_a_warning_that_names_who_is_missing() {
        let visits = vec![answers("a", false, "7"), fails("b", "connection-refused")];
        let (address, warning) = choose(Preference::Standby, visits).expect("chosen");
        assert_eq!(address, "a");
        let expected = "no standby of the instance answered (b: nothing is there): the backup is of a, a primary";
        assert_eq!(warning.as_deref(), Some(expected));
        let warning = choose(Preference::Primary, vec![answers("a", true, "7")]).expect("chosen").1;
        assert_eq!(warning.as_deref(), Some("no primary of the instance answered: the backup is of a, a standby"));
    }

    #[test]
    fn members_of_different_clusters_are_refused() {
        let visits = vec![answers("a", false, "7"), answers("b", true, "8")];
        let error = choose(Preference::Standby, visits).expect_err("refused");
        assert_eq!(error.code, "members-differ");
        assert!(error.message.contains("a serves the cluster 7, and b the cluster 8"), "{}", error.message);
    }

    #[test]
    fn where_none_answers_every_reason_is_named() {
        let alone = choose(Preference::Any, vec![fails("a", "pg-hba-denied")]).expect_err("none");
        assert_eq!((alone.code.as_ref(), alone.message.as_str()), ("pg-hba-denied", "nothing is there"));
        let error = choose(Preference::Any, vec![fails("a", "pg-hba-denied"), fails("b", "connection-refused")]);
        let error = error.expect_err("none");
        assert_eq!(error.code, "no-member-answers");
        assert!(error.message.ends_with("a: nothing is there; b: nothing is there"), "{}", error.message);
        assert_eq!(error.hint.as_deref(), Some("Start a. Start b."));
        assert_eq!(choose(Preference::Any, vec![]).expect_err("none").code, "not-granted");
    }
}
