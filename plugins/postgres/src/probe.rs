//! Looks at the instance's servers the way a backup will, and says what stands in its way: each with the line or setting to
//! change. That takes no more rights than a backup does: LOGIN and REPLICATION.
//!
//! A replication connection is what a backup needs. Where it is refused but one for SQL is not, the refusal is a problem
//! like others; where neither can be had from any member, it is the error.

mod problems;

use holdfast_sdk::document::{self, Probe, Problem};
use holdfast_sdk::{Error, Result};

use crate::members::{self, PassedOver, Reached};
use crate::server::Server;
use crate::session::{self, Member, Purpose, Session};
use crate::settings::{Preference, Settings};
use crate::wire::single;

/// A refused replication connection that is a problem of the server's configuration, not of reaching it.
const CONFIGURATION: &[&str] = &["missing-privilege", "pg-hba-denied", "no-free-wal-sender"];

type Visit = Result<Reached<Session>, PassedOver>;

/// Looks at all members, and closely at those that a backup would be tried at, until nothing is in the way at one.
pub fn probe() -> Result<Probe> {
    let settings = Settings::read()?;
    let mut visits: Vec<Visit> = Member::all().into_iter().map(|member| members::visit(&settings, member)).collect();
    let mut members: Vec<document::Member> = visits.iter().map(seen).collect();
    let differ = difference(&visits);
    let with_members = |mut probe: Probe, members| {
        probe.problems.splice(0..0, differ);
        Ok(Probe { members, ..probe })
    };
    let mut obstructed = None;
    for at in order(settings.prefer, &visits) {
        let Ok(reached) = &mut visits[at] else { continue };
        match look(&settings, reached) {
            Ok(probe) => match probe.problems.iter().find(|problem| problem.blocking).cloned() {
                None => return with_members(probe, members),
                Some(obstacle) => {
                    members[at].problem = Some(obstacle);
                    obstructed.get_or_insert(probe);
                }
            },
            Err(error) => {
                members[at].problem = Some(hindrance(error.clone()));
                visits[at] = Err(PassedOver { member: reached.member.clone(), error });
            }
        }
    }
    let probe = match obstructed {
        Some(probe) => probe,
        None => look_without_replication(&settings, visits.into_iter().filter_map(Result::err).collect())?,
    };
    with_members(probe, members)
}

/// Members that answered, in the order in which a backup is tried at them. One that is too old is tried by none: it is last, to say so.
fn order(preference: Preference, visits: &[Visit]) -> Vec<usize> {
    let rank = |server: &Server| (server.check_version().is_err(), !preference.accepts(server));
    let answered = visits.iter().enumerate().filter_map(|(at, visit)| Some((rank(&visit.as_ref().ok()?.server), at)));
    let mut order: Vec<_> = answered.collect();
    order.sort_unstable();
    order.into_iter().map(|(_, at)| at).collect()
}

fn seen(visit: &Visit) -> document::Member {
    match visit {
        Ok(reached) => document::Member {
            address: reached.member.address.clone(),
            reachable: true,
            role: Some(reached.server.role().to_owned()),
            version: Some(reached.server.version.clone()),
            problem: reached.server.check_version().err().map(hindrance),
        },
        Err(PassedOver { member, error }) => document::Member {
            address: member.address.clone(),
            reachable: CONFIGURATION.contains(&error.code.as_ref()),
            role: None,
            version: None,
            problem: Some(hindrance(error.clone())),
        },
    }
}

/// Two members that are not copies of each other, if there are.
fn difference(visits: &[Visit]) -> Option<Problem> {
    let mut reached = visits.iter().filter_map(|visit| visit.as_ref().ok());
    let first = reached.next()?;
    reached.find_map(|other| first.data().must_be(&other.data()).err()).map(hindrance)
}

fn look(settings: &Settings, reached: &mut Reached<Session>) -> Result<Probe> {
    let Reached { member, session: replication, server, identity } = reached;
    let mut problems: Vec<Problem> = server.check_version().err().map(hindrance).into_iter().collect();
    problems.extend(problems::of_role(settings, member, server));
    problems::of_settings(replication, server, &mut problems)?;
    problems.extend(problems::of_slots(replication, server));
    let size_bytes = match session::open(settings, member, Purpose::Sql(&settings.database)) {
        Ok(mut sql) => {
            problems::by_sql(&mut sql, settings, server, &mut problems)?;
            problems::size(&mut sql)?
        }
        Err(error) => {
            problems.push(problems::no_sql(settings, error));
            None
        }
    };
    Ok(found(server, identity.system_identifier.clone(), size_bytes, problems))
}

/// What can be said without the connection that a backup needs, of the first member that lets us in for questions.
fn look_without_replication(settings: &Settings, passed_over: Vec<PassedOver>) -> Result<Probe> {
    for PassedOver { member, error } in &passed_over {
        if CONFIGURATION.contains(&error.code.as_ref())
            && let Ok(sql) = session::open(settings, member, Purpose::Sql(&settings.database))
        {
            return look_by_sql(settings, sql, error.clone());
        }
    }
    // Who cannot ask in SQL either is simply denied.
    Err(members::all_passed_over(passed_over))
}

fn look_by_sql(settings: &Settings, mut sql: Session, refusal: Error) -> Result<Probe> {
    let server = Server::ask(&mut sql)?;
    let rows = sql.query("SELECT system_identifier FROM pg_catalog.pg_control_system()")?;
    let server_id = single(&rows)?.to_owned();
    let mut problems = vec![hindrance(refusal)];
    problems::of_settings(&mut sql, &server, &mut problems)?;
    problems::by_sql(&mut sql, settings, &server, &mut problems)?;
    let size_bytes = problems::size(&mut sql)?;
    Ok(found(&server, server_id, size_bytes, problems))
}

fn found(server: &Server, server_id: String, size_bytes: Option<u64>, problems: Vec<Problem>) -> Probe {
    let (version, role) = (server.version.clone(), server.role().to_owned());
    Probe { version, role, size_bytes, server_id, problems, members: Vec::new() }
}

/// An error as something that keeps every backup from succeeding.
fn hindrance(error: Error) -> Problem {
    let Error { code, message, hint, .. } = error;
    Problem { code: code.into_owned(), message, hint: hint.unwrap_or_default(), blocking: true }
}
