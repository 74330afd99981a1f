//! `holdfast serve`: wires configuration, appliance and web server together, says where it can be reached, and ends in order.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use holdfast_control::{Appliance, Options, UnlockSource};
use holdfast_web::{ServeOptions, Server, socket_path};
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::{Common, Exit, Failure, say, terminal};
use crate::components;
use crate::config::Config;

/// Run the appliance
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Address and port for TLS, instead of `[server] listen`
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Read the passphrase of the keyring from this file, instead of `[keyring] unlock`
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

/// Serves until SIGTERM or SIGINT.
pub async fn serve(common: &Common, arguments: Arguments) -> Result<Exit, Failure> {
    // Heard from here on, so that a signal during a long start still ends in order.
    let shutdown = shutdown_signal()?;
    let data_dir = std::path::absolute(common.data_dir())
        .map_err(|error| Failure::failed(format!("the data directory is not usable: {error}")))?;
    let config = Config::load(&data_dir)?;
    let components = components::embedded();
    if components.is_empty() {
        tracing::warn!(
            "this binary was built without plugins: it can back up no engine; build it with `cargo xtask build`"
        );
    }
    let appliance = Appliance::start(Options {
        data_dir: data_dir.clone(),
        unlocking: terminal::unlocking(
            arguments.passphrase_file.map(UnlockSource::PassphraseFile).or(config.keyring.unlock),
        ),
        components,
        primary_url: config.repository.url,
        primary_site: config.repository.site,
        workers: config.limits.workers,
        compression: config.compression.levels(),
        scrub: config.scrub.days(),
        limits: config.limits.of_runs(),
        compiler: config.limits.compiler(),
    })
    .await?;
    let options = ServeOptions { listen: arguments.listen.unwrap_or(config.server.listen), data_dir };
    let served = match Server::bind(&options).await {
        Ok(server) => {
            announce(&appliance, &server, &options.data_dir).await;
            server.run(appliance.clone(), shutdown).await;
            Ok(Exit::Done)
        }
        Err(error) => Err(Failure::failed(error.to_string()).hint(error.hint())),
    };
    appliance.stop().await;
    served
}

/// Ends with the first SIGTERM or SIGINT.
fn shutdown_signal() -> Result<impl Future<Output = ()>, Failure> {
    let listen = |kind| signal(kind).map_err(|error| Failure::failed(format!("listening for signals failed: {error}")));
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
    })
}

/// Where the appliance is, and what its operator should do next.
async fn announce(appliance: &Appliance, server: &Server, data_dir: &Path) {
    say(format_args!("holdfast {} serves", env!("CARGO_PKG_VERSION")));
    say(format_args!("  API          https://{}/api/v1", server.address()));
    say(format_args!("  certificate  {}", server.fingerprint()));
    say(format_args!("  socket       {}", socket_path(data_dir).display()));
    let token = data_dir.join("admin-token");
    if token.exists() {
        say(format_args!("  admin token  {}", token.display()));
    }
    match appliance.status().await {
        Ok(status) if status.problems.is_empty() => {}
        Ok(status) => {
            say("next steps:");
            for problem in status.problems {
                say(format_args!("  {}. {}", problem.message, problem.hint.unwrap_or_default()));
            }
        }
        Err(error) => tracing::warn!(%error, "the appliance's status is not known"),
    }
}
