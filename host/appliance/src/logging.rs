//! The log: to stderr, for people by default, as JSON for machines that collect it.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::cli::Failure;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// Starts logging. The filter is the flag's, else `RUST_LOG`'s, else `default`.
pub fn start(filter: Option<&str>, format: LogFormat, default: &str) -> Result<(), Failure> {
    let from_environment = std::env::var("RUST_LOG").ok();
    let filter = filter.or(from_environment.as_deref()).unwrap_or(default);
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        Failure::usage(format!("'{filter}' is not a log filter: {error}"))
            .hint("Use a level such as `info`, or `holdfast_control=debug,info`.")
    })?;
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Human => subscriber.with_target(false).with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => subscriber.json().init(),
    }
    Ok(())
}
