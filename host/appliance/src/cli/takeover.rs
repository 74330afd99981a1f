//! `holdfast takeover`.

use holdfast_control::resources::Status;

use super::output::print;
use super::{Common, Exit, Failure};

/// Become the writer of a recovered repository, once its former appliance is gone for good
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The repository's id, as a confirmation
    #[arg(long, value_name = "REPOSITORY")]
    confirm: String,
}

/// Takes over.
pub async fn take_over(common: &Common, arguments: Arguments) -> Result<Exit, Failure> {
    let request = serde_json::json!({ "repository": arguments.confirm });
    print(common.output, &common.client()?.post::<_, Status>("takeover", &request).await?)?;
    Ok(Exit::Done)
}
