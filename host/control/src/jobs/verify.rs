//! The verify job: reads a backup back and proves it, by its bytes or by its engine's rules, and records the proof at the target that was read.

use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::{FutureExt as _, StreamExt as _, stream};
use holdfast_repository::{BackupReader, Entry, EntryKind, Repository, Verification};
use holdfast_sandbox::{Call, Events, Grants, Plugin};
use serde::{Deserialize, Serialize};

use super::Context;
use crate::resources::Verified;
use crate::{Error, ErrorKind, backups, clock, words};
use holdfast_catalog::{BackupRow, TargetRow};

/// What the job's row says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Payload {
    pub(crate) backup: String,
    pub(crate) level: String,
    pub(crate) from: Option<String>,
}

/// A plugin's answer; its checks are told to people as they are.
#[derive(Debug, Deserialize)]
struct Answer {
    passed: bool,
    #[serde(default)]
    checks: Vec<Check>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Check {
    name: String,
    passed: bool,
    #[serde(default)]
    detail: String,
}

/// Entries that are read at once: small ones do not wait for each other, and large ones have some MiB on their way each.
const AT_ONCE: usize = 4;

pub(super) async fn run(context: &Context) -> Result<serde_json::Value, Error> {
    let state = &context.state;
    let payload: Payload = context.payload()?;
    let row = state.catalog.backup_by_uid(&payload.backup).await?;
    let row = row.ok_or_else(|| Error::not_found("backup-not-found", "the backup was deleted meanwhile"))?;
    let (target, repository, reader) = backups::open_at(state, &row, payload.from.as_deref()).await?;
    let outcome = match payload.level.as_str() {
        "bytes" => bytes(context, &reader).await?,
        _ => engine(context, &row, &repository, reader).await?,
    };
    let proof = Verification {
        level: payload.level,
        target: target.name,
        at_ms: clock::unsigned(clock::now_ms()),
        passed: outcome.passed,
        detail: detail(&outcome),
    };
    note(context, &row, &proof).await?;
    let checks = listed(outcome.checks);
    Ok(serde_json::json!({ "level": proof.level, "target": proof.target, "passed": proof.passed, "checks": checks }))
}

/// Reads every byte of every entry; each chunk is authenticated and hashed on its way.
async fn bytes(context: &Context, reader: &BackupReader) -> Result<Answer, Error> {
    const PAGE: usize = 1000;
    let (mut entries, mut after) = (0_u64, String::new());
    let read = AtomicU64::new(0);
    loop {
        let page = reader.entries("", &after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after.clone_from(&last.path);
        entries += page.len() as u64;
        let files = page.iter().filter(|entry| entry.kind == EntryKind::File);
        let reads = files.map(|Entry { path, .. }| {
            read_through(context, reader, path, &read).map(move |outcome| (path, outcome)).boxed()
        });
        let mut reads = stream::iter(reads.collect::<Vec<_>>()).buffered(AT_ONCE);
        while let Some((path, outcome)) = reads.next().await {
            match outcome {
                Ok(()) => {}
                Err(error) if error.kind == ErrorKind::Unprocessable => return Ok(lost(path, &error)),
                Err(error) => return Err(error),
            }
        }
    }
    let read = read.into_inner();
    Ok(Answer {
        passed: true,
        checks: vec![Check {
            name: "bytes".to_owned(),
            passed: true,
            detail: format!("{entries} entries, {read} bytes read"),
        }],
    })
}

fn lost(path: &str, error: &Error) -> Answer {
    Answer {
        passed: false,
        checks: vec![Check { name: "bytes".to_owned(), passed: false, detail: format!("{path}: {error}") }],
    }
}

async fn read_through(context: &Context, reader: &BackupReader, path: &str, read: &AtomicU64) -> Result<(), Error> {
    let mut content = reader.open(path, 0, None).await?;
    while let Some(piece) = content.next().await? {
        if context.cancel.is_cancelled() {
            return Err(Error::unprocessable("cancelled", "cancelled"));
        }
        let done = read.fetch_add(piece.len() as u64, Ordering::Relaxed) + piece.len() as u64;
        context.reporter.progress("reading", done, None, "bytes");
    }
    Ok(())
}

/// Lets the plugin prove it by its engine's rules.
async fn engine(
    context: &Context,
    row: &BackupRow,
    repository: &Repository,
    reader: BackupReader,
) -> Result<Answer, Error> {
    let plugins = &context.state.plugins;
    let plugin = plugins.for_backup(&row.engine, repository, reader.component()).await?;
    let grants = Grants { current: Some(reader), limits: plugins.limits(), ..Grants::default() };
    let document = plugin.run(Call::Verify(serde_json::json!({ "level": "engine" })), grants, context.watch()).await?;
    judge(&plugin, document)
}

/// A plugin's judgement, made fit for people.
fn judge(plugin: &Plugin, document: serde_json::Value) -> Result<Answer, Error> {
    let mut answer: Answer = serde_json::from_value(document).map_err(|error| {
        Error::new(
            ErrorKind::Internal,
            "plugin-answer",
            format!("the plugin's verification answered what nobody understands: {error}"),
        )
    })?;
    // A check that failed is not outvoted.
    answer.passed &= answer.checks.iter().all(|check| check.passed);
    for check in &mut answer.checks {
        check.name = words::code(&check.name);
        check.detail = words::text(plugin, &check.detail);
    }
    Ok(answer)
}

/// The checks that a job's result lists: those that failed come first, and one more says how many there are beyond the bound.
fn listed(mut checks: Vec<Check>) -> Vec<Check> {
    const LISTED: usize = 1_000;
    checks.sort_by_key(|check| check.passed);
    let more = checks.split_off(checks.len().min(LISTED));
    if !more.is_empty() {
        let passed = more.iter().all(|check| check.passed);
        let detail = format!("{} more checks are not listed", more.len());
        checks.push(Check { name: "more".to_owned(), passed, detail });
    }
    checks
}

/// One line about a proof; heads keep it, so it is bounded.
fn detail(answer: &Answer) -> String {
    const BYTES_MAX: usize = 4 << 10;
    let mut detail = match answer.checks.iter().find(|check| !check.passed) {
        Some(check) => format!("{}: {}", check.name, check.detail),
        None => format!("{} checks passed", answer.checks.len()),
    };
    detail.truncate(detail.floor_char_boundary(BYTES_MAX));
    detail
}

/// The proof becomes a fact about the backup: in the catalog, and in the heads of every target that holds it, so that a rebirth from any
/// of them knows it.
async fn note(context: &Context, row: &BackupRow, proof: &Verification) -> Result<(), Error> {
    let state = &context.state;
    let document = serde_json::to_value(Verified::from(proof))
        .map_err(|error| Error::new(ErrorKind::Internal, "encoding", format!("encoding a proof failed: {error}")))?;
    state.catalog.backup_verified(&row.uid, document, clock::now_ms()).await?;
    if state.is_recovered() {
        return Ok(());
    }
    for target in backups::holders(state, &row.uid).await? {
        if let Err(error) = note_at(context, row, &target, proof).await {
            // The proof stands all the same; that place only does not know of it.
            context.reporter.log("warn", &format!("the proof could not be written down at {}: {error}", target.name));
        }
    }
    Ok(())
}

async fn note_at(context: &Context, row: &BackupRow, target: &TargetRow, proof: &Verification) -> Result<(), Error> {
    let (domain, id) = backups::ids(&context.state, row)?;
    let repository = context.state.repository(target).await?;
    let record = repository.backups(domain).await?.into_iter().find(|record| record.backup == id);
    if let Some(mut record) = record {
        record.verifications.push(proof.clone());
        repository.amend(domain, vec![record]).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_that_failed_is_listed_whatever_comes_before_it() {
        let check = |passed| Check { name: "page".to_owned(), passed, detail: String::new() };
        let listed = listed((0..3_000).map(|number| check(number != 2_999)).collect());
        assert_eq!((listed.len(), listed[0].passed, listed[1].passed), (1_001, false, true));
        assert_eq!((listed[1_000].detail.as_str(), listed[1_000].passed), ("2000 more checks are not listed", true));
    }
}
