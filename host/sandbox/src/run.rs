//! One run: a thread, a runtime, a store, one call, and the reason for its end.
//!
//! The guest has a thread of its own, so that neither its computing nor its blocking can hold up anybody else. A run ends by
//! itself: every wait of a host call watches the guard, guest code watches the epoch. Only a guest that sleeps inside WASI
//! sees neither; after a grace its call is dropped, and the store with it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use wasmtime::component::ResourceTableError;
use wasmtime::{Error as Raised, Store};

use crate::guard::{Guard, Stop};
use crate::imports::types::{Error, Host as _};
use crate::imports::{Engine, EnginePre};
use crate::limits::INSTANCES;
use crate::state::{State, Told};
use crate::tree::Written;
use crate::voice::{Mark, harmless, is_code};
use crate::{Call, Events, Failure, Grants, Limits, Watch};

/// How long after its end is due a guest is given to come out of a host call by itself.
const GRACE: Duration = Duration::from_secs(1);
/// How long a plugin may take to describe itself.
const DESCRIBING: Duration = Duration::from_secs(30);
/// Bytes kept of a guest's error message or hint.
const MESSAGE: usize = 8 << 10;
/// The code of an error whose own is none.
const INVALID_CODE: &str = "invalid-code";

/// Calls one of the exports that take grants.
pub(crate) async fn call(
    pre: EnginePre<State>,
    call: Call,
    grants: Grants,
    watch: Watch,
    mark: Mark,
) -> Result<serde_json::Value, Failure> {
    let restores = matches!(call, Call::Restore(_)) && grants.destination.is_some();
    let ended = on_own_thread(pre, grants, watch, mark, async move |engine, store| {
        let plugin = engine.holdfast_engine_plugin();
        match call {
            Call::Probe => plugin.call_probe(store).await,
            Call::Dump(request) => plugin.call_dump(store, &request.to_string()).await,
            Call::Restore(request) => plugin.call_restore(store, &request.to_string()).await,
            Call::Verify(request) => plugin.call_verify(store, &request.to_string()).await,
        }
    })
    .await?;
    if restores {
        ended.must_agree()?;
    }
    Ok(ended.document)
}

/// How a run ended well.
struct Ended {
    document: serde_json::Value,
    /// What the host wrote for it.
    written: Written,
}

impl Ended {
    /// Fails unless the plugin's count of what it restored is the host's: nobody else would notice a file that is missing.
    fn must_agree(&self) -> Result<(), Failure> {
        let count = |key: &str| self.document[key].as_u64();
        let (files, bytes) = (count("files"), count("bytes"));
        if (files, bytes) == (Some(self.written.files), Some(self.written.bytes)) {
            return Ok(());
        }
        let words = |count: Option<u64>| count.map_or("no".to_owned(), |count| count.to_string());
        let message = format!(
            "the plugin counted {} files and {} bytes, and the host wrote {} and {}",
            words(files),
            words(bytes),
            self.written.files,
            self.written.bytes
        );
        Err(defect("result-differs", message))
    }
}

/// What only the plugin's author can mend.
fn defect(code: &str, message: String) -> Failure {
    let hint = Some("This is a defect of the plugin: report it to its author.".to_owned());
    Failure::Host { code: code.to_owned(), message, hint, retryable: false, is_of_the_source: false }
}

/// Calls `describe`, which depends on nothing and so gets nothing.
pub(crate) async fn describe(pre: EnginePre<State>, limits: Limits) -> Result<serde_json::Value, Failure> {
    let limits = Limits { wall: limits.wall.min(DESCRIBING), ..limits };
    let watch = Watch { events: Arc::new(Silence), cancel: CancellationToken::new() };
    on_own_thread(pre, Grants { limits, ..Grants::default() }, watch, Mark::default(), async |engine, store| {
        engine.holdfast_engine_plugin().call_describe(store).await.map(Ok)
    })
    .await
    .map(|ended| ended.document)
}

/// Nobody listens while a plugin is loaded.
struct Silence;

impl Events for Silence {
    fn log(&self, _level: &str, _message: &str) {}
    fn progress(&self, _phase: &str, _done: u64, _total: Option<u64>, _unit: &str) {}
}

/// What an export gives: a trap, or its document, or its own error.
type Outcome = wasmtime::Result<Result<String, Error>>;

async fn on_own_thread<F>(
    pre: EnginePre<State>,
    grants: Grants,
    watch: Watch,
    mark: Mark,
    export: F,
) -> Result<Ended, Failure>
where
    F: AsyncFnOnce(Engine, &mut Store<State>) -> Outcome + Send + 'static,
{
    let cancel = watch.cancel.child_token();
    // A caller that goes away takes its run along.
    let _cancel_with_caller = cancel.clone().drop_guard();
    let (report, reported) = oneshot::channel();
    let thread = std::thread::Builder::new().name("guest".to_owned()).spawn(move || {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return drop(report.send(Err(no_thread(&error)))),
        };
        let hostcall_bytes = grants.limits.hostcall_bytes;
        let result = runtime.block_on(async {
            let state = State::new(grants, watch, cancel.clone(), mark)?;
            run(pre, state, hostcall_bytes, cancel, export).await
        });
        // A name that is still being resolved must not hold up the result.
        runtime.shutdown_background();
        let _ = report.send(result);
    });
    thread.map_err(|error| no_thread(&error))?;
    reported.await.unwrap_or_else(|_| Err(Failure::host("internal", "the plugin's thread ended early".to_owned())))
}

fn no_thread(error: &std::io::Error) -> Failure {
    Failure::host("sandbox-unavailable", format!("cannot start a thread for the plugin: {error}"))
}

async fn run<F>(
    pre: EnginePre<State>,
    state: State,
    hostcall_bytes: usize,
    cancel: CancellationToken,
    export: F,
) -> Result<Ended, Failure>
where
    F: AsyncFnOnce(Engine, &mut Store<State>) -> Outcome,
{
    let guard = state.guard.clone();
    let mut store = Store::new(pre.engine(), state);
    store.limiter(|state| &mut state.limiter);
    store.set_hostcall_fuel(hostcall_bytes);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|mut store| store.data_mut().tick());

    let outcome = or_killed(&guard, async {
        let engine = pre.instantiate_async(&mut store).await?;
        let outcome = export(engine, &mut store).await?;
        match outcome {
            // Whatever a guest forgets: what it queued is written, durable, and free of errors, or its run has failed.
            Ok(document) => match store.data_mut().settle().await {
                Ok(_) => Ok(Ok(document)),
                Err(error) => store.data_mut().convert_error(error).map(Err),
            },
            Err(error) => Ok(Err(error)),
        }
    })
    .await;

    // What may still be queued is not wanted any more; after a success nothing is.
    cancel.cancel();
    let state = store.data_mut();
    state.extraction.stop().await;
    state.voice.finish();
    conclude(outcome, state)
}

/// The call's own end, or the guard's where the call does not see it.
async fn or_killed(guard: &Guard, call: impl Future<Output = Outcome>) -> Outcome {
    let killed = async {
        let stop = guard.end().await;
        sleep(GRACE).await;
        stop
    };
    tokio::select! {
        biased;
        outcome = call => outcome,
        stop = killed => Err(stop.into()),
    }
}

fn conclude(outcome: Outcome, state: &State) -> Result<Ended, Failure> {
    match outcome {
        Ok(Ok(document)) => match serde_json::from_str(&document) {
            Ok(document @ serde_json::Value::Object(_)) => Ok(Ended { document, written: state.tree.written() }),
            _ => Err(defect("invalid-result", "the plugin's result is not a JSON object".to_owned())),
        },
        Ok(Err(error)) => Err(reported(error, &state.told, &state.voice.mark())),
        Err(raised) => Err(ended(&raised, state)),
    }
}

/// The guest's error, with what the host knows better where the guest hands on the host's own.
fn reported(error: Error, told: &Told, mark: &Mark) -> Failure {
    let code = if is_code(&error.code) { error.code.clone() } else { INVALID_CODE.to_owned() };
    let message = harmless(&error.message, MESSAGE);
    let hint = error.hint.as_ref().map(|hint| harmless(hint, MESSAGE));
    let failure = told.failure.as_ref().filter(|told| told.code == error.code);
    let retryable = failure.map_or(error.retryable, |told| told.retryable);
    let is_of_the_source = failure.is_some() && told.is_of_the_source;
    // Word by word the host's own; with one word more it is the plugin that speaks.
    let said = |told: &&Error| {
        told.code == error.code && told.message == error.message && (hint.is_none() || told.hint == error.hint)
    };
    if let Some(told) = told.failure.iter().chain(&told.refusal).find(said) {
        return Failure::Host { code, message, hint: told.hint.clone(), retryable, is_of_the_source };
    }
    let message = match message.as_str() {
        "" => "the plugin failed without a reason".to_owned(),
        words => mark.on(words),
    };
    let hint = match hint {
        Some(words) => Some(mark.on(&words)),
        None => failure.and_then(|told| told.hint.clone()),
    };
    Failure::Reported { code, message, hint, retryable, is_of_the_source }
}

/// Why the call did not return at all.
fn ended(raised: &Raised, state: &State) -> Failure {
    match raised.downcast_ref::<Stop>() {
        Some(Stop::Cancelled) => return Failure::Cancelled,
        Some(Stop::Limit { limit, detail }) => {
            return Failure::Limit { limit, detail: detail.clone() };
        }
        None => {}
    }
    if let Some(ResourceTableError::Full) = raised.downcast_ref::<ResourceTableError>() {
        let detail = format!("{} may be open at once", state.table.max_capacity());
        return Failure::Limit { limit: "handles", detail };
    }
    // wasmtime keeps this error's type to itself; its text is all there is.
    if raised.chain().any(|cause| cause.to_string().contains("fuel allocated for hostcalls")) {
        return Failure::Limit { limit: "host-call", detail: "too many bytes in one host call".to_owned() };
    }
    if raised.chain().any(|cause| cause.to_string().contains("count too high")) {
        return Failure::Limit {
            limit: "instances",
            detail: format!("{INSTANCES} instances, tables and memories each"),
        };
    }
    if let Some((limit, detail)) = state.limiter.denied() {
        return Failure::Limit { limit, detail };
    }
    let cause = harmless(&raised.root_cause().to_string(), MESSAGE);
    let message = match state.voice.last_error() {
        Some(words) => format!("{cause}; its last words were: {words}"),
        None => cause,
    };
    Failure::Trapped { message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Author;

    fn error(message: &str, hint: Option<&str>) -> Error {
        let (code, message, hint) = ("disk-full".to_owned(), message.to_owned(), hint.map(str::to_owned));
        Error { code, message, hint, retryable: false }
    }

    #[test]
    fn only_word_by_word_does_a_strangers_plugin_speak_for_the_host() {
        let own = error("no room at /srv", Some("Make room."));
        let told = Told { failure: Some(Error { retryable: true, ..own.clone() }), ..Told::default() };
        let said = |error: Error| match reported(error, &told, &Mark::new(Author::Stranger, "redis")) {
            Failure::Host { message, hint, retryable, .. } => ("host", message, hint, retryable),
            Failure::Reported { message, hint, retryable, .. } => ("plugin", message, hint, retryable),
            other => panic!("{other}"),
        };
        let hint = Some("Make room.".to_owned());
        assert_eq!(said(own.clone()), ("host", "no room at /srv".to_owned(), hint.clone(), true));
        assert_eq!(said(Error { hint: None, ..own }), ("host", "no room at /srv".to_owned(), hint.clone(), true));
        let step = error("writing: no room at /srv", None);
        assert_eq!(said(step), ("plugin", "[plugin redis] writing: no room at /srv".to_owned(), hint, true));
        let posing = error("no room at /srv", Some("Delete all."));
        let marked = Some("[plugin redis] Delete all.".to_owned());
        assert_eq!(said(posing), ("plugin", "[plugin redis] no room at /srv".to_owned(), marked, true));
    }
}
