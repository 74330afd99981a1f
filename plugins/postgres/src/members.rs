//! The instance's members: which of them a backup is taken from.
//!
//! They are tried in the operator's order, those of the wanted role first, until a backup begins at one: before that nothing of it is kept.
//! All that answered must serve the same data: a backup of some other cluster would be worse than none.

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
pub struct PassedOver {
    /// Which it is.
    pub member: Member,
    /// Why.
    pub error: Error,
}

/// The member that is backed up. `T` is what began there.
pub struct Choice<S, T> {
    /// The one.
    pub reached: Reached<S>,
    /// What began.
    pub begun: T,
    /// Those that were tried before it.
    pub passed_over: Vec<PassedOver>,
    /// Said with the backup where the member is not of the role that was asked for.
    pub warning: Option<String>,
}

/// Opens a replication session at a member, and asks who it is.
pub fn visit(settings: &Settings, member: Member) -> Result<Reached<Session>, PassedOver> {
    let ask = || {
        let mut session = session::open(settings, &member, Purpose::Replication)?;
        let server = Server::ask(&mut session)?;
        let identity = Identity::ask(&mut session)?;
        Ok((session, server, identity))
    };
    match ask() {
        Ok((session, server, identity)) => Ok(Reached { member, session, server, identity }),
        Err(error) => Err(PassedOver { member, error }),
    }
}

/// Begins a backup at the first member that lets us, and leaves its session open.
pub fn begin<T>(
    settings: &Settings,
    begin: impl FnMut(&mut Reached<Session>) -> Result<T>,
) -> Result<Choice<Session, T>> {
    let supported = |reached: Reached<Session>| match reached.server.check_version() {
        Ok(()) => Ok(reached),
        Err(error) => Err(PassedOver { member: reached.member, error }),
    };
    let visits = Member::all().into_iter().map(|member| visit(settings, member).and_then(supported));
    begin_at_one_of(settings.prefer, visits, begin)
}

/// Takes visits only until a backup began at a member that is as wanted.
fn begin_at_one_of<S, T>(
    preference: Preference,
    visits: impl Iterator<Item = Result<Reached<S>, PassedOver>>,
    mut begin: impl FnMut(&mut Reached<S>) -> Result<T>,
) -> Result<Choice<S, T>> {
    let mut passed_over = Vec::new();
    let mut others = Vec::new();
    let mut data: Option<Data> = None;
    for visit in visits {
        let mut reached = match visit {
            Ok(reached) => reached,
            Err(failed) => {
                passed_over.push(failed);
                continue;
            }
        };
        data.get_or_insert_with(|| reached.data()).must_be(&reached.data())?;
        if !preference.accepts(&reached.server) {
            others.push(reached);
            continue;
        }
        match begin(&mut reached) {
            Ok(begun) => return Ok(Choice { reached, begun, passed_over, warning: None }),
            Err(error) => passed_over.push(PassedOver { member: reached.member, error }),
        }
    }
    for mut reached in others {
        match begin(&mut reached) {
            Ok(begun) => {
                let warning = Some(fallback_warning(preference, &reached, &passed_over));
                return Ok(Choice { reached, begun, passed_over, warning });
            }
            Err(error) => passed_over.push(PassedOver { member: reached.member, error }),
        }
    }
    Err(all_passed_over(passed_over))
}

/// Which data a member serves.
pub struct Data {
    address: String,
    system_identifier: String,
}

impl<S> Reached<S> {
    /// Which data it serves.
    pub fn data(&self) -> Data {
        Data { address: self.member.address.clone(), system_identifier: self.identity.system_identifier.clone() }
    }
}

impl Data {
    /// Refuses another member's data where the two are not copies of each other.
    pub fn must_be(&self, other: &Self) -> Result<()> {
        if self.system_identifier == other.system_identifier {
            return Ok(());
        }
        let message = format!(
            "{} serves the cluster {}, and {} the cluster {}",
            self.address, self.system_identifier, other.address, other.system_identifier
        );
        Err(Error::new("members-differ", message)
            .hint("Name only servers of one cluster in the setting host: a primary and its standbys."))
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

fn fallback_warning<S>(preference: Preference, taken: &Reached<S>, passed_over: &[PassedOver]) -> String {
    let reasons = match passed_over {
        [] => String::new(),
        passed_over => format!(" ({})", reasons(passed_over)),
    };
    let (wanted, address, role) = (preference.role(), &taken.member.address, taken.server.role());
    format!("no {wanted} of the instance can be backed up{reasons}: the backup is of {address}, a {role}")
}

/// The error of one, or all of them in one.
pub fn all_passed_over(mut passed_over: Vec<PassedOver>) -> Error {
    let Some(first) = passed_over.first() else {
        return Error::new("not-granted", "the job was given no server to connect to");
    };
    if passed_over.len() == 1 {
        return passed_over.remove(0).error;
    }
    let same = passed_over.iter().all(|other| other.error.code == first.error.code);
    let code = if same { first.error.code.clone() } else { "no-member-answers".into() };
    let mut hints: Vec<String> = passed_over.iter().filter_map(|failed| failed.error.hint.clone()).collect();
    hints.dedup();
    Error {
        code,
        message: format!("no member of the instance can be backed up: {}", reasons(&passed_over)),
        hint: (!hints.is_empty()).then(|| hints.join(" ")),
        retryable: passed_over.iter().any(|failed| failed.error.retryable),
    }
}

/// Each member with its reason.
fn reasons(passed_over: &[PassedOver]) -> String {
    let reason = |failed: &PassedOver| {
        let (address, message) = (&failed.member.address, &failed.error.message);
        if message.contains(address.as_str()) { message.clone() } else { format!("{address}: {message}") }
    };
    passed_over.iter().map(reason).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    type Visit = Result<Reached<()>, PassedOver>;

    fn answers(address: &str, standby: bool, system_identifier: &str) -> Visit {
        Ok(Reached {
            member: Member::of(address),
            session: (),
            server: Server::example(standby),
            identity: Identity { system_identifier: system_identifier.into(), timeline: 1 },
        })
    }

    fn error(address: &str, code: &'static str) -> Error {
        Error::new(code, "nothing is there").hint(format!("Start {address}."))
    }

    fn fails(address: &str, code: &'static str) -> Visit {
        Err(PassedOver { member: Member::of(address), error: error(address, code) })
    }

    /// The member at which a backup begins, those before it, and the warning; it does not begin at those that refuse.
    fn begin(
        preference: Preference,
        visits: Vec<Visit>,
        refuse: &[&str],
    ) -> Result<(String, Vec<String>, Option<String>)> {
        let choice = begin_at_one_of(preference, visits.into_iter(), |reached| {
            let address = reached.member.address.as_str();
            if refuse.contains(&address) { Err(error(address, "refused")) } else { Ok(()) }
        })?;
        let passed_over = choice.passed_over.into_iter().map(|passed| passed.member.address).collect();
        Ok((choice.reached.member.address, passed_over, choice.warning))
    }

    fn four() -> Vec<Visit> {
        vec![
            fails("a", "connection-refused"),
            answers("b", false, "7"),
            answers("c", true, "7"),
            answers("d", true, "7"),
        ]
    }

    #[test]
    fn the_first_in_the_order_that_is_as_wanted_is_taken() {
        for (preference, expected) in [(Preference::Any, "b"), (Preference::Primary, "b"), (Preference::Standby, "c")] {
            let (address, passed_over, warning) = begin(preference, four(), &[]).expect("begun");
            assert_eq!((address.as_str(), warning), (expected, None));
            assert_eq!(passed_over, ["a"]);
        }
    }

    #[test]
    fn one_that_answers_and_refuses_the_backup_is_passed_over() {
        let (address, passed_over, warning) = begin(Preference::Any, four(), &["b"]).expect("begun");
        assert_eq!(
            (address.as_str(), passed_over.as_slice(), warning),
            ("c", ["a".into(), "b".into()].as_slice(), None)
        );
        let (address, _, warning) = begin(Preference::Standby, four(), &["c"]).expect("begun");
        assert_eq!((address.as_str(), warning), ("d", None));
        let (address, passed_over, warning) = begin(Preference::Standby, four(), &["c", "d"]).expect("begun");
        assert_eq!((address.as_str(), passed_over), ("b", vec!["a".into(), "c".into(), "d".into()]));
        assert!(warning.is_some_and(|warning| warning.contains("c: nothing is there; d: nothing is there")));
        let error = begin(Preference::Any, four(), &["b", "c", "d"]).expect_err("none");
        assert_eq!((error.code.as_ref(), error.message.matches("nothing is there").count()), ("no-member-answers", 4));
    }

    #[test]
    fn another_role_is_taken_with_a_warning_that_names_who_is_missing() {
        let visits = vec![answers("a", false, "7"), fails("b", "connection-refused")];
        let (address, _, warning) = begin(Preference::Standby, visits, &[]).expect("begun");
        assert_eq!(address, "a");
        let expected =
            "no standby of the instance can be backed up (b: nothing is there): the backup is of a, a primary";
        assert_eq!(warning.as_deref(), Some(expected));
        let (_, _, warning) = begin(Preference::Primary, vec![answers("a", true, "7")], &[]).expect("begun");
        assert_eq!(
            warning.as_deref(),
            Some("no primary of the instance can be backed up: the backup is of a, a standby")
        );
    }

    #[test]
    fn members_of_different_clusters_are_refused() {
        let visits = vec![answers("a", false, "7"), answers("b", true, "8")];
        let error = begin(Preference::Standby, visits, &[]).expect_err("refused");
        assert_eq!(error.code, "members-differ");
        assert!(error.message.contains("a serves the cluster 7, and b the cluster 8"), "{}", error.message);
    }

    #[test]
    fn where_none_answers_every_reason_is_named() {
        let alone = begin(Preference::Any, vec![fails("a", "pg-hba-denied")], &[]).expect_err("none");
        assert_eq!((alone.code.as_ref(), alone.message.as_str()), ("pg-hba-denied", "nothing is there"));
        let both = vec![fails("a", "pg-hba-denied"), fails("b", "connection-refused")];
        let error = begin(Preference::Any, both, &[]).expect_err("none");
        assert_eq!(error.code, "no-member-answers");
        assert!(error.message.ends_with("a: nothing is there; b: nothing is there"), "{}", error.message);
        assert_eq!(error.hint.as_deref(), Some("Start a. Start b."));
        assert_eq!(begin(Preference::Any, vec![], &[]).expect_err("none").code, "not-granted");
    }
}
