//! Operations on instances.

use std::collections::BTreeMap;
use std::time::Duration;

use holdfast_catalog::{BackupState, InstanceRow, Scope};
use holdfast_repository::{InstanceId, Keyring};
use holdfast_sandbox::{Call, Grants, Plugin, Watch};
use zeroize::Zeroizing;

use crate::appliance::State;
use crate::jobs::{self, Silent};
use crate::names::{InstanceName, check_part};
use crate::resources::{CreateInstance, Instance, InstanceCheck, Member, Page, Problem, SecretText};
use crate::{Appliance, Error, ErrorKind, ListQuery, Principal, backups, clock, settings, targets, views, words};

/// For looking at a server: somebody waits for the answer.
const CHECKING: Duration = Duration::from_secs(240);

impl Appliance {
    /// Registers a database service. Its settings are checked against its plugin's description; the server is not contacted.
    pub async fn create_instance(&self, who: &Principal, request: CreateInstance) -> Result<Instance, Error> {
        let state = &self.0;
        state.must_be_writer("adding an instance")?;
        let name = InstanceName::new(&request.organization, &request.project, &request.name)?;
        let description = state.plugins.of_engine(&request.engine)?.description().clone();
        settings::check(&description, &request.settings, &request.secrets)?;
        let site = match request.site {
            Some(site) => site,
            None => targets::primary(state).await?.site,
        };
        check_part("site", &site)?;
        let now = clock::now_ms();
        // Secrets are sealed for the uid: one that is adopted keeps its own.
        let former = state.catalog.any_instance_by_name(&name.organization, &name.project, &name.instance).await?;
        let uid = former.filter(|_| request.adopt).map_or_else(|| InstanceId::random().to_string(), |row| row.uid);
        let row = InstanceRow {
            secrets: seal_secrets(&state.keyring.current(), &format!("instance/{uid}"), &request.secrets),
            uid,
            organization: name.organization,
            project: name.project,
            name: name.instance,
            engine: request.engine,
            site,
            settings: request.settings,
            created_ms: now,
            updated_ms: now,
            resource_version: 1,
            removed_ms: None,
        };
        let row = state.catalog.insert_instance(row, request.adopt).await?;
        state.audit(who, "instance.add", &row.full_name()).await?;
        jobs::export::soon(state).await?;
        self.view_instance(row).await
    }

    /// Instances by name.
    pub async fn instances(&self, query: ListQuery) -> Result<Page<Instance>, Error> {
        let limit = query.page_size()?;
        let page = self.0.catalog.list_instances(query.catalog_scope(), query.after.as_deref(), limit).await?;
        let mut items = Vec::with_capacity(page.items.len());
        for row in page.items {
            items.push(self.view_instance(row).await?);
        }
        Ok(Page { items, next: page.next })
    }

    /// One instance.
    pub async fn instance(&self, name: &InstanceName) -> Result<Instance, Error> {
        self.view_instance(find(&self.0, name).await?).await
    }

    /// Asks the instance's plugin to look at the server: what it is, and what would keep a backup from succeeding.
    pub async fn check_instance(&self, name: &InstanceName) -> Result<InstanceCheck, Error> {
        let state = &self.0;
        let row = find(state, name).await?;
        let plugin = state.plugins.of_engine(&row.engine)?;
        let watch = Watch { events: std::sync::Arc::new(Silent), cancel: tokio_util::sync::CancellationToken::new() };
        let mut grants = grants(state, &row, &plugin)?;
        grants.limits.wall = grants.limits.wall.min(CHECKING);
        let members: Vec<String> = grants.members.iter().map(ToString::to_string).collect();
        match plugin.run(Call::Probe, grants, watch).await {
            Ok(document) => check_from(&plugin, document),
            Err(failure) => Ok(unreachable(failure.into(), members)),
        }
    }

    /// Takes an instance off the list. Its backups stay.
    pub async fn remove_instance(&self, who: &Principal, name: &InstanceName) -> Result<(), Error> {
        let state = &self.0;
        let row = find(state, name).await?;
        let running = state
            .catalog
            .list_backups(Scope::from_path(&name.to_string()), Some(BackupState::Pending), None, 1)
            .await?;
        if !running.items.is_empty() {
            return Err(Error::unprocessable("backup-running", format!("a backup of {name} is running"))
                .hint("Wait for its end, or cancel its job first."));
        }
        state.catalog.remove_instance(&row.uid, clock::now_ms()).await?;
        state.audit(who, "instance.remove", &name.to_string()).await?;
        jobs::export::soon(state).await
    }

    async fn view_instance(&self, row: InstanceRow) -> Result<Instance, Error> {
        let latest = match self.0.catalog.latest_usable(&row.uid).await? {
            Some(backup) => {
                let copies = backups::copies(&self.0, &backup.uid).await?;
                Some((backup, copies))
            }
            None => None,
        };
        let targets = self.0.catalog.targets().await?;
        let offsite_ms = self.0.catalog.offsite(Some(&row.uid)).await?.into_iter().find_map(|found| found.offsite_ms);
        Ok(views::instance(&row, latest.as_ref(), offsite_ms, &targets))
    }
}

/// The live instance of that name.
pub(crate) async fn find(state: &State, name: &InstanceName) -> Result<InstanceRow, Error> {
    match state.catalog.instance_by_name(&name.organization, &name.project, &name.instance).await? {
        Some(row) => Ok(row),
        None => Err(Error::not_found("instance-not-found", format!("there is no instance {name}"))
            .hint("`holdfast instance list` shows all.")),
    }
}

/// What a job on this instance may touch, its secrets opened.
pub(crate) fn grants(state: &State, row: &InstanceRow, plugin: &Plugin) -> Result<Grants, Error> {
    let secrets = open_secrets(&state.keyring.current(), &format!("instance/{}", row.uid), &row.secrets)?;
    let granted = settings::grants(plugin.description(), &row.settings, secrets)?;
    Ok(Grants { limits: state.plugins.limits(), ..granted })
}

/// Seals secrets for their row; `context` and key are bound in.
pub(crate) fn seal_secrets(
    keyring: &Keyring,
    context: &str,
    secrets: &BTreeMap<String, SecretText>,
) -> BTreeMap<String, Vec<u8>> {
    secrets
        .iter()
        .map(|(key, value)| (key.clone(), keyring.seal_secret(&format!("{context}/{key}"), value.expose().as_bytes())))
        .collect()
}

/// Opens what [`seal_secrets`] sealed.
pub(crate) fn open_secrets(
    keyring: &Keyring,
    context: &str,
    sealed: &BTreeMap<String, Vec<u8>>,
) -> Result<BTreeMap<String, Zeroizing<Vec<u8>>>, Error> {
    sealed
        .iter()
        .map(|(key, value)| Ok((key.clone(), keyring.open_secret(&format!("{context}/{key}"), value)?)))
        .collect()
}

fn check_from(plugin: &Plugin, mut document: serde_json::Value) -> Result<InstanceCheck, Error> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Probe {
        version: Option<String>,
        role: Option<String>,
        size_bytes: Option<u64>,
        #[serde(default)]
        problems: Vec<Problem>,
        #[serde(default)]
        members: Vec<Member>,
    }
    words::make_harmless(&mut document);
    let probe: Probe = serde_json::from_value(document).map_err(|error| {
        Error::new(
            ErrorKind::Internal,
            "plugin-answer",
            format!("the plugin's probe answered what nobody understands: {error}"),
        )
    })?;
    let of_plugin = |problem: Problem| Problem {
        code: words::code(&problem.code),
        message: plugin.attribute(&problem.message),
        hint: problem.hint.map(|hint| plugin.attribute(&hint)),
        ..problem
    };
    let of_member = |member: Member| Member { problem: member.problem.map(of_plugin), ..member };
    Ok(InstanceCheck {
        reachable: true,
        version: probe.version,
        role: probe.role,
        size_bytes: probe.size_bytes,
        problems: probe.problems.into_iter().map(of_plugin).collect(),
        members: probe.members.into_iter().map(of_member).collect(),
    })
}

/// Of several members the error names each with its reason; of one it is the reason.
fn unreachable(error: Error, addresses: Vec<String>) -> InstanceCheck {
    let problem = Problem { code: error.code, message: error.message, hint: error.hint, blocking: true };
    let only = (addresses.len() == 1).then_some(&problem);
    let member = |address| Member { address, reachable: false, role: None, version: None, problem: only.cloned() };
    let members = addresses.into_iter().map(member).collect();
    InstanceCheck { reachable: false, version: None, role: None, size_bytes: None, problems: vec![problem], members }
}
