//! What one store holds: a run's grants, its bounds, and the objects that the guest has handles of.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use wasmtime::UpdateDeadline;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use zeroize::Zeroizing;

use crate::dial::Dialler;
use crate::extraction::Extraction;
use crate::grants::Grants;
use crate::guard::{Guard, Stop};
use crate::imports::archive::Archive;
use crate::imports::types::Error;
use crate::limits::{Entries, Limiter, Limits, Output, Streams};
use crate::runtime::TICK;
use crate::tls::Tls;
use crate::tree::Tree;
use crate::voice::{Mark, Voice, Watch};
use crate::wasi;

/// The last errors that the guest was told, to know them again when the guest hands them on.
#[derive(Default)]
pub(crate) struct Told {
    /// Of the host's own work.
    pub(crate) failure: Option<Error>,
    /// Whether that tells of the target that keeps the archive.
    pub(crate) is_of_the_source: bool,
    /// Of what the guest asked for.
    pub(crate) refusal: Option<Error>,
}

/// The data of one store, that is of one run.
pub(crate) struct State {
    pub(crate) table: ResourceTable,
    pub(crate) guard: Guard,
    pub(crate) limiter: Limiter,
    pub(crate) output: Output,
    pub(crate) entries: Entries,
    pub(crate) streams: Streams,
    pub(crate) voice: Voice,
    pub(crate) dialler: Dialler,
    pub(crate) tls: Tls,
    /// Whether secrets may be handed out: some connection of this run is safe, or need not be.
    pub(crate) secured: bool,
    pub(crate) settings: BTreeMap<String, String>,
    pub(crate) secrets: BTreeMap<String, Zeroizing<Vec<u8>>>,
    pub(crate) archive: Archive,
    /// The granted roots; without the grant there are none.
    pub(crate) tree: Arc<Tree>,
    pub(crate) extraction: Extraction,
    pub(crate) told: Told,
    wasi: WasiCtx,
    limits: Limits,
    /// Ticks of guest code since the last host call.
    busy_ticks: u32,
}

impl State {
    /// Opens what is granted. Errors: a root cannot be opened.
    pub(crate) fn new(
        grants: Grants,
        watch: Watch,
        cancel: CancellationToken,
        mark: Mark,
    ) -> Result<Self, crate::Failure> {
        let limits = grants.limits;
        let mut table = ResourceTable::new();
        table.set_max_capacity(limits.handles);
        let guard = Guard::new(&limits, cancel);
        let voice = Voice::new(watch.events, mark);
        let tls = Tls::new(grants.tls);
        Ok(Self {
            table,
            limiter: Limiter::new(&limits),
            output: Output::new(&limits),
            entries: Entries::new(&limits),
            streams: Streams::new(&limits),
            wasi: wasi::empty_context(&voice),
            secured: tls.is_off() || grants.members.iter().all(crate::dial::is_local),
            dialler: Dialler::new(grants.members, grants.denied, limits.connect),
            tls,
            settings: grants.settings,
            secrets: grants.secrets,
            archive: Archive { writer: grants.writer, current: grants.current, parent: grants.parent },
            tree: Arc::new(Tree::open(grants.destination)?),
            extraction: Extraction::default(),
            told: Told::default(),
            guard,
            voice,
            limits,
            busy_ticks: 0,
        })
    }

    /// Every host call comes in here: the guest's time between two of them begins anew.
    pub(crate) fn host_call(&mut self) -> &mut Self {
        self.busy_ticks = 0;
        self
    }

    /// A tick passed in guest code. Ticks that the machine spent elsewhere are not counted: a late tick is one tick.
    pub(crate) fn tick(&mut self) -> wasmtime::Result<UpdateDeadline> {
        self.guard.check()?;
        self.busy_ticks += 1;
        if TICK * self.busy_ticks > self.limits.cpu {
            let detail = format!("it computed for {} s without a host call", self.limits.cpu.as_secs_f32());
            return Err(Stop::Limit { limit: "cpu", detail }.into());
        }
        Ok(UpdateDeadline::Continue(1))
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.host_call();
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}
