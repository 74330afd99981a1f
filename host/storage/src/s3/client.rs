//! Makes the S3 client: fixed keys, TLS by rustls, limits on connecting and on standing still.
//!
//! The SDK's own retries are off, for there is one place that tries again. Nothing comes from the environment,
//! from files in a home directory, or from a metadata service.

use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    self, BehaviorVersion, Config, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    SharedHttpClient, StalledStreamProtectionConfig,
};
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};

use super::address::{self, Address, Checksum, Style};
use super::resolver::Resolver;
use super::terms::{self, Terms};
use crate::error::Error;
use crate::{Settings, spelling};

const ACCESS_KEY: &str = "access-key";
const SECRET_KEY: &str = "secret-key";
const SESSION_TOKEN: &str = "session-token";
const SETTINGS: [&str; 9] = [
    ACCESS_KEY,
    SECRET_KEY,
    SESSION_TOKEN,
    address::STYLE,
    address::CHECKSUM,
    terms::CA,
    terms::STORAGE_CLASS,
    terms::LOCK,
    terms::LOCK_DAYS,
];

/// For the TCP and TLS handshakes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// From the request's first byte to the answer's first one.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// The same where an upload of up to 17 MiB lies between.
const WRITE_TIMEOUT: Duration = Duration::from_secs(300);
/// How long a body may stand still.
const STALL_GRACE: Duration = Duration::from_secs(20);

pub(super) fn new(address: &Address, terms: &Terms, settings: &Settings) -> Result<Client, Error> {
    let (calculation, validation) = match address.checksum {
        Checksum::WhenRequired | Checksum::None => {
            (RequestChecksumCalculation::WhenRequired, ResponseChecksumValidation::WhenRequired)
        }
        Checksum::Crc32 | Checksum::Crc64Nvme => {
            (RequestChecksumCalculation::WhenSupported, ResponseChecksumValidation::WhenSupported)
        }
    };
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .credentials_provider(credentials(settings)?)
        .region(Region::new(address.region.clone()))
        .force_path_style(address.style == Style::Path)
        .request_checksum_calculation(calculation)
        .response_checksum_validation(validation)
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts(READ_TIMEOUT))
        .stalled_stream_protection(StalledStreamProtectionConfig::enabled().grace_period(STALL_GRACE).build())
        .http_client(http_client(terms)?);
    let config = match &address.endpoint {
        Some(endpoint) => config.endpoint_url(endpoint.as_str()),
        None => config,
    };
    Ok(Client::from_conf(config.build()))
}

/// What differs for requests that carry an object.
pub(super) fn for_writing() -> config::Builder {
    Config::builder().timeout_config(timeouts(WRITE_TIMEOUT))
}

fn timeouts(first_byte: Duration) -> TimeoutConfig {
    TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).read_timeout(first_byte).build()
}

/// Trusts what the machine trusts, or, where an authority is named, that one alone.
fn http_client(terms: &Terms) -> Result<SharedHttpClient, Error> {
    let builder = Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring));
    let Some(ca) = &terms.ca else { return Ok(builder.build_with_resolver(Resolver)) };
    let trusted = TrustStore::empty().with_pem_certificate(ca.as_bytes());
    let context = TlsContext::builder().with_trust_store(trusted).build();
    let context = context.map_err(|error| Error::bad_setting(terms::CA, format!("cannot be used ({error})")))?;
    Ok(builder.tls_context(context).build_with_resolver(Resolver))
}

/// The keys in the settings. Refuses settings that are unknown, missing or cannot be keys; never shows a value.
fn credentials(settings: &Settings) -> Result<Credentials, Error> {
    if let Some(name) = settings.keys().find(|name| !SETTINGS.contains(&name.as_str())) {
        return Err(Error::bad_setting(name, spelling::unknown(name, &SETTINGS)));
    }
    let required = |name: &str| {
        key(settings, name)?.ok_or_else(|| Error::bad_setting(name, "is missing, and this store needs it"))
    };
    Ok(Credentials::new(required(ACCESS_KEY)?, required(SECRET_KEY)?, key(settings, SESSION_TOKEN)?, None, "settings"))
}

fn key(settings: &Settings, name: &str) -> Result<Option<String>, Error> {
    match settings.get(name) {
        Some(value) if value.is_empty() => Err(Error::bad_setting(name, "is empty")),
        Some(value) if !value.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Err(Error::bad_setting(name, "has white space or characters that no key has"))
        }
        value => Ok(value.cloned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(settings: &[(&str, &str)]) -> String {
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        credentials(&settings).unwrap_err().to_string()
    }

    #[test]
    fn settings_are_checked_by_name_and_never_shown() {
        assert_eq!(
            refusal(&[("acces-key", "a")]),
            "the setting `acces-key` is unknown here; did you mean `access-key`?"
        );
        assert_eq!(refusal(&[("access-key", "a")]), "the setting `secret-key` is missing, and this store needs it");
        assert_eq!(refusal(&[("access-key", "a"), ("secret-key", "")]), "the setting `secret-key` is empty");
        let shown = refusal(&[("access-key", "a"), ("secret-key", "hidden\n")]);
        assert!(shown.contains("white space") && !shown.contains("hidden"), "{shown}");
    }
}
