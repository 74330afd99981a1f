//! `holdfast policy`.

use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand};
use holdfast_control::resources::{CreatePolicy, EditPolicy, Page, Policy, PolicyRules, PreviewedBackup, Status};

use super::output::{print, print_list};
use super::shown::Removed;
use super::{Common, Exit, Failure, values};

/// Commands on retention policies.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Add a policy; what it would let go of the backups that are there stays for a day
    Add(AddArguments),
    /// List policies
    List,
    /// Show a policy
    Show {
        /// Which
        #[arg(value_parser = values::word)]
        name: String,
    },
    /// Change a policy: given rules replace all others; what it would let go stays for a day
    Edit(EditArguments),
    /// Say of each backup whether it is kept or deleted at each target, and why
    Preview {
        /// Only of this `ORG[/PROJ[/NAME]]`
        #[arg(value_parser = values::scope)]
        scope: Option<String>,
        /// As if all changes of policies acted already
        #[arg(long)]
        after_changes: bool,
    },
    /// Remove a policy; what no other policy matches is kept for ever
    Remove {
        /// Which
        #[arg(value_parser = values::word)]
        name: String,
    },
    /// Let backups expire again after a recovery from heads alone, which know no policies
    Confirm,
}

/// What `policy add` takes.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("rules").required(true).multiple(true))]
pub struct AddArguments {
    /// Its name from now on
    #[arg(value_parser = values::word)]
    name: String,
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    rules: RuleArguments,
}

/// What `policy edit` takes.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("rules").multiple(true))]
pub struct EditArguments {
    /// Which
    #[arg(value_parser = values::word)]
    name: String,
    #[command(flatten)]
    selection: Selection,
    /// Of all organizations
    #[arg(long, conflicts_with = "scope")]
    all_scopes: bool,
    /// Whatever their labels are
    #[arg(long, conflicts_with = "label")]
    all_labels: bool,
    /// At all targets
    #[arg(long, conflicts_with = "target")]
    all_targets: bool,
    #[command(flatten)]
    rules: RuleArguments,
}

/// Which backups, and where.
#[derive(Debug, Args)]
struct Selection {
    /// Only backups of this `ORG[/PROJ[/NAME]]`
    #[arg(long, value_parser = values::scope)]
    scope: Option<String>,
    /// Only backups with this label; with all of several
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::key_value)]
    label: Vec<(String, String)>,
    /// Only at this target; at any of several
    #[arg(long, value_name = "TARGET", value_parser = values::word)]
    target: Vec<String>,
}

/// What is kept: the union of all that is given, which replaces all that was there.
#[derive(Debug, Args)]
struct RuleArguments {
    /// Keep the newest N
    #[arg(long, value_name = "N", group = "rules")]
    keep_last: Option<u32>,
    /// Keep what is at most so much older than the newest, such as 30d
    #[arg(long, value_name = "D", value_parser = values::duration, group = "rules")]
    keep_within: Option<Duration>,
    /// Keep the newest of each of the last N hours that have one (UTC)
    #[arg(long, value_name = "N", group = "rules")]
    keep_hourly: Option<u32>,
    /// The same of days
    #[arg(long, value_name = "N", group = "rules")]
    keep_daily: Option<u32>,
    /// The same of weeks, which begin on Mondays
    #[arg(long, value_name = "N", group = "rules")]
    keep_weekly: Option<u32>,
    /// The same of months
    #[arg(long, value_name = "N", group = "rules")]
    keep_monthly: Option<u32>,
    /// The same of years
    #[arg(long, value_name = "N", group = "rules")]
    keep_yearly: Option<u32>,
    /// Keep everything
    #[arg(long, group = "rules")]
    keep_forever: bool,
}

impl From<RuleArguments> for PolicyRules {
    fn from(rules: RuleArguments) -> Self {
        Self {
            forever: rules.keep_forever,
            last: rules.keep_last,
            within_seconds: rules.keep_within.map(|within| within.as_secs()),
            hourly: rules.keep_hourly,
            daily: rules.keep_daily,
            weekly: rules.keep_weekly,
            monthly: rules.keep_monthly,
            yearly: rules.keep_yearly,
        }
    }
}

/// Runs one of them.
pub async fn run(common: &Common, command: Command) -> Result<Exit, Failure> {
    let client = common.client()?;
    match command {
        Command::Add(AddArguments { name, selection, rules }) => {
            let request = CreatePolicy {
                name,
                scope: selection.scope,
                labels: selection.label.into_iter().collect(),
                targets: selection.target,
                rules: rules.into(),
            };
            print(common.output, &client.post::<_, Policy>("policies", &request).await?)?;
        }
        Command::List => print_list(common.output, &client.get::<Page<Policy>>("policies").await?)?,
        Command::Show { name } => print(common.output, &client.get::<Policy>(&path(&name)).await?)?,
        Command::Edit(arguments) => {
            let path = path(&arguments.name);
            print(common.output, &client.patch::<_, Policy>(&path, &arguments.request()).await?)?;
        }
        Command::Preview { scope, after_changes } => {
            let scope = scope.map(|scope| format!("&scope={scope}")).unwrap_or_default();
            let query = format!("retention?afterChanges={after_changes}{scope}");
            print_list(common.output, &client.get::<Page<PreviewedBackup>>(&query).await?)?;
        }
        Command::Remove { name } => {
            client.delete(&path(&name)).await?;
            print(common.output, &Removed::new(name))?;
        }
        Command::Confirm => print(common.output, &client.post::<_, Status>("retention/confirm", &()).await?)?,
    }
    Ok(Exit::Done)
}

fn path(name: &str) -> String {
    format!("policies/{name}")
}

impl EditArguments {
    fn request(self) -> EditPolicy {
        let Self { selection, rules, .. } = self;
        let rules = PolicyRules::from(rules);
        let labels = (!selection.label.is_empty() || self.all_labels).then(|| selection.label.into_iter().collect());
        EditPolicy {
            resource_version: None,
            scope: selection.scope.or_else(|| self.all_scopes.then(String::new)),
            labels,
            targets: (!selection.target.is_empty() || self.all_targets).then_some(selection.target),
            rules: (rules != PolicyRules::default()).then_some(rules),
        }
    }
}
