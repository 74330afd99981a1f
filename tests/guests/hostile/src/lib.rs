//! A plugin that does harm: each of its exports has a setting of its own name, which says what harm it does there.
//!
//! Without harm it is honest: its dump writes two entries, its restore brings them back, its verification reads them. Harm
//! comes in the middle of honest work, when there is something to spoil. Settings end with the dump, so what a restore and a
//! verification are to do is kept in the backup's own document.

mod archive;
mod destination;
mod documents;
mod honest;
mod memory;
mod network;
mod time;
mod voice;

use holdfast_sdk::document::{
    Description, DumpRequest, Inventory, Method, Probe, RestoreRequest, Restored, Setting, Verified, VerifyRequest,
};
use holdfast_sdk::{Engine, Error, Result, job};

struct Hostile;

holdfast_sdk::register!(Hostile);

/// What an export does where its setting says nothing.
const NOTHING: &str = "nothing";

/// A harm and how it is done. One that returns leaves the export to go on as if nothing had happened.
type Harm = (&'static str, fn() -> Result<()>);

/// All harm that is done beside the document, by kind.
const HARMS: &[&[Harm]] =
    &[time::HARMS, memory::HARMS, archive::HARMS, destination::HARMS, network::HARMS, voice::HARMS];

impl Engine for Hostile {
    fn describe() -> Description {
        let plain = |key: &str, description: &str| Setting {
            key: key.into(),
            description: description.into(),
            ..Setting::default()
        };
        Description {
            name: "hostile".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            engine: "hostile".into(),
            title: "Hostile".into(),
            methods: vec![Method {
                name: "files".into(),
                types: vec!["full".into()],
                restores_to: "directory".into(),
                description: "Two entries, and what the settings say".into(),
            }],
            settings: vec![
                plain("host", "Where the server is"),
                plain("port", "Its port"),
                plain("tls", "How the connection is protected"),
                Setting { secret: true, ..plain("password", "A secret to be kept") },
                plain("probe", "Harm that the probe does"),
                plain("dump", "Harm that the dump does"),
                plain("restore", "Harm that the restore does"),
                plain("verify", "Harm that the verification does"),
            ],
            default_port: 1,
            socket_name: None,
        }
    }

    fn probe() -> Result<Probe> {
        let harm = chosen("probe");
        perform(&harm)?;
        let mut probe = honest::probe();
        documents::twist_probe(&harm, &mut probe);
        Ok(probe)
    }

    fn dump(_: DumpRequest) -> Result<Inventory> {
        let harm = chosen("dump");
        let mut inventory = honest::dump(|| perform(&harm))?;
        for later in ["restore", "verify"] {
            inventory.details.insert(later.into(), chosen(later).into());
        }
        documents::twist_inventory(&harm, &mut inventory);
        Ok(inventory)
    }

    fn restore(_: RestoreRequest) -> Result<Restored> {
        let harm = honest::remembered("restore")?;
        let mut restored = honest::restore(|| perform(&harm))?;
        documents::twist_restored(&harm, &mut restored);
        Ok(restored)
    }

    fn verify(_: VerifyRequest) -> Result<Verified> {
        let harm = honest::remembered("verify")?;
        let mut verified = honest::verify(|| perform(&harm))?;
        documents::twist_verified(&harm, &mut verified);
        Ok(verified)
    }
}

fn chosen(export: &str) -> String {
    job::setting(export).unwrap_or_else(|| NOTHING.into())
}

/// Does the harm of this name; a name that nobody knows is an error, so that no scenario tries nothing.
fn perform(harm: &str) -> Result<()> {
    if harm == NOTHING || documents::TWISTS.contains(&harm) {
        return Ok(());
    }
    match HARMS.iter().copied().flatten().find(|(name, _)| *name == harm) {
        Some((_, act)) => act(),
        None => Err(Error::new("unknown-harm", format!("this guest knows no harm '{harm}'"))),
    }
}
