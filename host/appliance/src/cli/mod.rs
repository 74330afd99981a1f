//! The command line: a client of the API, a file per command family. Only `serve`, `recover` and an offline restore work without one.
//!
//! Results go to stdout, talk to stderr; the exit code says how it ended (see [`Exit`]).

mod backup;
mod compile;
mod completions;
mod failure;
mod instance;
mod job;
mod key;
mod login;
mod output;
mod plugin;
mod policy;
mod progress;
mod recover;
mod repository;
mod restore;
mod settings;
mod shown;
mod status;
mod takeover;
mod target;
pub mod terminal;
pub mod values;
mod wait;
mod yaml;

use std::fmt::Display;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

pub use failure::{Exit, Failure};
use output::Format;

use crate::client::{Client, Endpoint};
use crate::logging::{self, LogFormat};
use crate::serve;

/// A backup appliance for databases.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, disable_help_subcommand = true)]
#[command(after_help = "\
Exit codes: 0 done, 1 failed, 2 usage, 3 done with warnings or problems found, 4 unreachable or denied, 5 timed out.
The appliance is found by HOLDFAST_URL, HOLDFAST_TOKEN and HOLDFAST_CA (a PEM file), else by the local socket in the data directory, \
else as `holdfast login` saved it.")]
pub struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    invocation: Invocation,
}

/// Over the options of every command.
const GLOBAL: &str = "Global options";

/// What every command takes.
#[derive(Debug, Args)]
pub struct Common {
    /// How results are printed
    #[arg(short, long, global = true, help_heading = GLOBAL, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
    /// The appliance's data directory [default: /var/lib/holdfast]
    #[arg(long, global = true, help_heading = GLOBAL, env = "HOLDFAST_DATA_DIR", hide_env_values = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// What is logged to stderr: a level, or a filter as in RUST_LOG
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "FILTER")]
    log: Option<String>,
    /// How log lines look
    #[arg(long, global = true, help_heading = GLOBAL, value_enum, default_value_t, value_name = "FORMAT")]
    log_format: LogFormat,
}

impl Common {
    /// The data directory, chosen or by default.
    pub fn data_dir(&self) -> &Path {
        self.data_dir.as_deref().unwrap_or(Path::new("/var/lib/holdfast"))
    }

    /// A client for the appliance that flags, environment and login lead to.
    fn client(&self) -> Result<Client, Failure> {
        Ok(Client::new(Endpoint::find(self.data_dir.as_deref(), self.data_dir())?))
    }
}

#[derive(Debug, Subcommand)]
enum Invocation {
    #[command(flatten)]
    Command(Box<Command>),
    #[command(hide = true, name = holdfast_sandbox::COMPILE_COMPONENT)]
    CompileComponent(compile::Arguments),
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Arguments),
    Status(status::Arguments),
    /// Protected database services
    #[command(subcommand)]
    Instance(instance::Command),
    /// What is kept of them
    #[command(subcommand)]
    Backup(backup::Command),
    Restore(restore::Arguments),
    /// What keeps backups, and how long
    #[command(subcommand)]
    Policy(policy::Command),
    /// Places that hold backups
    #[command(subcommand)]
    Target(target::Command),
    /// Queued and running work
    #[command(subcommand)]
    Job(job::Command),
    /// The archive store as a whole
    #[command(subcommand)]
    Repository(repository::Command),
    /// Who can open what
    #[command(subcommand)]
    Key(key::Command),
    Recover(recover::Arguments),
    Takeover(takeover::Arguments),
    /// What engines can be backed up
    #[command(subcommand)]
    Plugin(plugin::Command),
    Login(login::Arguments),
    Completions(completions::Arguments),
}

/// Runs a command to its exit code.
pub fn run(Cli { common, invocation }: Cli) -> ExitCode {
    let command = match invocation {
        Invocation::Command(command) => *command,
        // Without threads and without a log: nothing comes before its limits.
        Invocation::CompileComponent(arguments) => return compile::compile(&arguments),
    };
    let exit = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(execute(common, command)),
        Err(error) => Err(Failure::failed(format!("starting failed: {error}"))),
    };
    match exit {
        Ok(exit) => exit.into(),
        Err(failure) => {
            failure.tell();
            failure.exit.into()
        }
    }
}

async fn execute(common: Common, command: Command) -> Result<Exit, Failure> {
    let default_log = if matches!(command, Command::Serve(_)) { "info" } else { "warn" };
    logging::start(common.log.as_deref(), common.log_format, default_log)?;
    match command {
        Command::Serve(arguments) => serve::serve(&common, arguments).await,
        Command::Status(arguments) => status::status(&common, arguments).await,
        Command::Instance(command) => instance::run(&common, command).await,
        Command::Backup(command) => backup::run(&common, command).await,
        Command::Restore(arguments) => restore::restore(&common, arguments).await,
        Command::Policy(command) => policy::run(&common, command).await,
        Command::Target(command) => target::run(&common, command).await,
        Command::Job(command) => job::run(&common, command).await,
        Command::Repository(command) => repository::run(&common, command).await,
        Command::Key(command) => key::run(&common, command).await,
        Command::Recover(arguments) => recover::recover(&common, arguments).await,
        Command::Takeover(arguments) => takeover::take_over(&common, arguments).await,
        Command::Plugin(command) => plugin::run(&common, command).await,
        Command::Login(arguments) => login::login(&common, arguments).await,
        Command::Completions(arguments) => completions::print(&arguments),
    }
}

/// Talk, to stderr. Nobody is told if nobody can hear it.
pub fn say(line: impl Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// Scripts depend on names and forms: a change of them is seen here.
    #[test]
    fn help_is_as_documented() {
        let mut text = String::new();
        let mut command = Cli::command().term_width(120);
        command.build();
        describe(&mut command, "holdfast", &mut text);
        insta::assert_snapshot!(text);
    }

    fn describe(command: &mut clap::Command, path: &str, text: &mut String) {
        text.push_str(&format!("# {path}\n\n{}\n", command.render_help()));
        let names: Vec<String> = command.get_subcommands().map(|child| child.get_name().to_owned()).collect();
        for name in names {
            if let Some(child) = command.find_subcommand_mut(&name) {
                describe(child, &format!("{path} {name}"), text);
            }
        }
    }
}
