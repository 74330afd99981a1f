//! `holdfast login`: remembers how to reach an appliance elsewhere, after it answered.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;

use holdfast_control::resources::Status;
use holdfast_web::Fingerprint;

use super::output::print;
use super::{Common, Exit, Failure, say};
use crate::client::{Client, Endpoint, Login, Token, Trust};

/// Remember an appliance, its certificate and a token
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Such as https://backup.example.org:7443
    url: String,
    /// The certificate's fingerprint, as `holdfast serve` prints it; without it the system's authorities must vouch for the server
    #[arg(long, value_name = "SHA256")]
    fingerprint: Option<Fingerprint>,
    /// Where the token is; HOLDFAST_TOKEN or standard input without it
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// Tries the appliance, then saves how to reach it.
pub async fn login(common: &Common, arguments: Arguments) -> Result<Exit, Failure> {
    let token =
        match (arguments.token_file, Token::from_environment()?) {
            (Some(file), _) => Token::new(&std::fs::read_to_string(&file).map_err(|error| {
                Failure::failed(format!("reading the token from {} failed: {error}", file.display()))
            })?)?,
            (None, Some(token)) => token,
            (None, None) => from_stdin()?,
        };
    let login = Login {
        url: arguments.url,
        fingerprint: arguments.fingerprint.map(|fingerprint| fingerprint.to_string()),
        token,
    };
    let trust = match arguments.fingerprint {
        Some(fingerprint) => Trust::Pinned(fingerprint),
        None => Trust::Authorities(None),
    };
    let client = Client::new(Endpoint::tls(&login.url, trust, Some(login.token.clone()))?);
    let status: Status = client.get("status").await?;
    let path = login.save()?;
    print(common.output, &status)?;
    say(format_args!("saved in {}", path.display()));
    Ok(Exit::Done)
}

fn from_stdin() -> Result<Token, Failure> {
    let mut stdin = std::io::stdin();
    if stdin.is_terminal() {
        return Err(Failure::usage("there is no token")
            .hint("Give --token-file FILE, set HOLDFAST_TOKEN, or pipe the token into this command; a terminal would show it."));
    }
    let mut text = String::new();
    stdin.read_to_string(&mut text).map_err(|error| Failure::failed(format!("reading the token failed: {error}")))?;
    Token::new(&text)
}
