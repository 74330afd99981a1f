//! A plugin that moves bytes in the two ways that plugins have: by `transfer`, where the host moves them, and by lists, where
//! they go through the plugin's memory. Its dump's method says which. It restores and verifies nothing.

mod rows;

use holdfast_sdk::archive::{ContentClass, Entry, EntryKind, Tally, begin_entry};
use holdfast_sdk::document::{
    Description, DumpRequest, Inventory, Method, Probe, RestoreRequest, Restored, Server, Setting, Verified,
    VerifyRequest,
};
use holdfast_sdk::io::{ByteSink, MAX_LIST, transfer};
use holdfast_sdk::{Engine, Error, Result, endpoint, job};

struct Bench;

holdfast_sdk::register!(Bench);

impl Engine for Bench {
    fn describe() -> Description {
        let method = |name: &str, description: &str| Method {
            name: name.into(),
            types: vec!["full".into()],
            restores_to: "server".into(),
            description: description.into(),
        };
        Description {
            name: "bench".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            engine: "bench".into(),
            title: "Bench".into(),
            methods: vec![
                method("transfer", "All that the first member sends, to the second member"),
                method("rows", "The rows that a COPY sends, to an entry"),
            ],
            settings: vec![Setting {
                key: "query".into(),
                description: "The COPY of the method rows".into(),
                ..Setting::default()
            }],
            default_port: 5432,
            socket_name: None,
        }
    }

    fn probe() -> Result<Probe> {
        Err(unsupported())
    }

    fn dump(request: DumpRequest) -> Result<Inventory> {
        match request.method.as_str() {
            "transfer" => move_all().map(|bytes| inventory(0, bytes)),
            "rows" => copy_rows().map(|tally| inventory(tally.entries, tally.bytes)),
            _ => Err(unsupported()),
        }
    }

    fn restore(_: RestoreRequest) -> Result<Restored> {
        Err(unsupported())
    }

    fn verify(_: VerifyRequest) -> Result<Verified> {
        Err(unsupported())
    }
}

fn unsupported() -> Error {
    Error::new("unsupported", "this plugin only moves bytes")
}

/// Piece by piece, as a plugin does that has something to say between two pieces.
fn move_all() -> Result<u64> {
    const PIECE: u64 = MAX_LIST as u64;
    let (source, sink) = (endpoint::connect(0)?.input(), endpoint::connect(1)?.output());
    while transfer(&source, &sink, PIECE)? == PIECE {}
    Ok(ByteSink::finish(sink)?)
}

fn copy_rows() -> Result<Tally> {
    let query = job::setting("query").ok_or_else(|| Error::new("setting-missing", "there is no query"))?;
    let connection = endpoint::connect(0)?;
    let entry =
        Entry { path: "rows".into(), kind: EntryKind::File, size: None, mode: 0o600, modified: 0, extra: Vec::new() };
    let sink = begin_entry(&entry, ContentClass::Pages(8_192))?;
    rows::copy(&connection.input(), &connection.output(), &query, &sink)?;
    let mut tally = Tally::default();
    tally.finish(sink)?;
    Ok(tally)
}

fn inventory(entries: u64, bytes: u64) -> Inventory {
    Inventory {
        entries,
        bytes,
        server: Server {
            version: String::new(),
            system_identifier: String::new(),
            timeline: None,
            role: "primary".into(),
            member: None,
        },
        position: None,
        warnings: Vec::new(),
        details: serde_json::Map::new(),
    }
}
