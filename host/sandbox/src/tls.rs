//! TLS towards a member: what certificate the operator's policy accepts, and in which words a refusal is reported.

use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::certificate;
use crate::grants::{TlsMode, TlsPolicy};
use crate::imports::types::{CallError, refused};

/// One run's TLS, by its policy.
pub(crate) struct Tls {
    policy: TlsPolicy,
    /// Reading the system's roots takes milliseconds: once is enough.
    config: OnceLock<Arc<ClientConfig>>,
}

impl Tls {
    pub(crate) fn new(policy: TlsPolicy) -> Self {
        Self { policy, config: OnceLock::new() }
    }

    pub(crate) fn is_off(&self) -> bool {
        self.policy.mode == TlsMode::Off
    }

    /// What does the handshake, offering `alpn`. Errors: the policy's certificates or key cannot be read.
    pub(crate) fn connector(&self, alpn: Vec<String>) -> Result<TlsConnector, CallError> {
        let config = match self.config.get() {
            Some(config) => config,
            None => {
                let config = Arc::new(client_config(&self.policy)?);
                self.config.get_or_init(|| config)
            }
        };
        if alpn.is_empty() {
            return Ok(TlsConnector::from(config.clone()));
        }
        let mut config = ClientConfig::clone(config);
        config.alpn_protocols = alpn.into_iter().map(String::into_bytes).collect();
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

/// Shakes hands with `host`. Errors: `tls-failed` in words for people.
pub(crate) async fn handshake(
    connector: TlsConnector,
    host: String,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, CallError> {
    let name = ServerName::try_from(host.clone()).map_err(|_| {
        failed(
            format!("'{host}' is not a name that a certificate can have"),
            "Set host to the server's DNS name or address.",
        )
    })?;
    connector.connect(name, stream).await.map_err(|error| explain(&host, &error))
}

/// RFC 5929 `tls-server-end-point` of the server's certificate.
pub(crate) fn end_point_binding(stream: &TlsStream<TcpStream>) -> Option<Vec<u8>> {
    let (_, session) = stream.get_ref();
    certificate::end_point_binding(session.peer_certificates()?.first()?)
}

fn failed(message: impl Into<String>, hint: impl Into<String>) -> CallError {
    refused("tls-failed", message, hint)
}

fn client_config(policy: &TlsPolicy) -> Result<ClientConfig, CallError> {
    let provider = Arc::new(ring::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let verifier = Verifier { mode: policy.mode, roots: roots(policy)?, named: named(policy)?, algorithms };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(format!("TLS cannot be set up: {error}"), "Report this: it is a defect."))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match &policy.client {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let chain = certificates(chain, "client-certificate")?;
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| {
                failed("client-key is not a PEM private key", "Give client-key an unencrypted PEM private key.")
            })?;
            builder.with_client_auth_cert(chain, key).map_err(|error| {
                let hint = "Give client-certificate and client-key that belong together.";
                failed(format!("the client certificate cannot be used: {error}"), hint)
            })?
        }
    };
    // A resumed session would show no certificate to bind to.
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn certificates(pem: &str, setting: &str) -> Result<Vec<CertificateDer<'static>>, CallError> {
    let unreadable =
        || failed(format!("{setting} has no PEM certificate"), format!("Give {setting} PEM certificates."));
    let certificates: Vec<_> =
        CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().map_err(|_| unreadable())?;
    if certificates.is_empty() { Err(unreadable()) } else { Ok(certificates) }
}

/// The certificates of `ca`.
fn named(policy: &TlsPolicy) -> Result<Vec<CertificateDer<'static>>, CallError> {
    policy.ca.as_ref().map_or_else(|| Ok(Vec::new()), |pem| certificates(pem, "ca"))
}

fn roots(policy: &TlsPolicy) -> Result<RootCertStore, CallError> {
    let mut roots = RootCertStore::empty();
    match (&policy.ca, policy.mode) {
        (_, TlsMode::Require | TlsMode::Off) => {}
        (Some(_), _) => {
            for certificate in named(policy)? {
                roots.add(certificate).map_err(|error| {
                    failed(format!("ca cannot be used: {error}"), "Give ca the PEM certificate of the authority.")
                })?;
            }
        }
        (None, _) => {
            // Some unreadable roots among the system's are no reason to trust none of them.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    Ok(roots)
}

/// Checks a server's certificate as far as the mode asks for. Signatures of the handshake are checked in every mode: the
/// server must have the key of the certificate that channel binding rests on.
#[derive(Debug)]
struct Verifier {
    mode: TlsMode,
    roots: RootCertStore,
    /// What `ca` names: an authority, or the very certificate of a server that signed its own.
    named: Vec<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain = matches!(self.mode, TlsMode::VerifyFull | TlsMode::VerifyCa);
        if chain {
            let certificate = ParsedCertificate::try_from(end_entity)?;
            let algorithms = self.algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, algorithms)
                .or_else(|error| {
                    if is_authority_itself(&error) && self.named.contains(end_entity) { Ok(()) } else { Err(error) }
                })?;
            if self.mode == TlsMode::VerifyFull {
                verify_server_name(&certificate, server_name)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Whether nothing is wrong with a certificate but that it may sign others, as most instructions make the one that a server signs
/// itself. Its time was looked at before.
fn is_authority_itself(error: &rustls::Error) -> bool {
    let rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(reason))) = error else { return false };
    reason.downcast_ref() == Some(&webpki::Error::CaUsedAsEndEntity)
}

/// What a broken connection means where the server ended it by an alert: with TLS 1.3, only after the handshake does a client
/// learn what the server makes of its certificate.
pub(crate) fn ended_by_alert(member: &str, error: &std::io::Error) -> Option<CallError> {
    match error.get_ref()?.downcast_ref()? {
        rustls::Error::AlertReceived(_) => Some(explain(member, error)),
        _ => None,
    }
}

/// A failed handshake in words for people.
fn explain(host: &str, error: &std::io::Error) -> CallError {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let (message, hint) = match inner {
        Some(rustls::Error::InvalidCertificate(reason)) => explain_certificate(host, reason),
        Some(rustls::Error::AlertReceived(alert)) => (
            format!("{host} ended TLS with the alert {alert:?}"),
            "Check that the server accepts the client certificate, if it asks for one.".to_owned(),
        ),
        Some(other) => (
            format!("the TLS handshake with {host} failed: {other}"),
            "Check that the server speaks TLS 1.2 or 1.3 on this port.".to_owned(),
        ),
        None => (
            format!("{host} closed the connection in the TLS handshake: {error}"),
            "Check the server's log and that TLS is turned on there.".to_owned(),
        ),
    };
    failed(message, hint)
}

fn explain_certificate(host: &str, reason: &CertificateError) -> (String, String) {
    use CertificateError as Reason;
    let (what, hint) = match reason {
        Reason::NotValidForName | Reason::NotValidForNameContext { .. } => (
            "is for another name".to_owned(),
            "Set host to a name in the certificate, or tls=verify-ca to accept any name of this authority.",
        ),
        // Another authority may have the same name.
        Reason::UnknownIssuer | Reason::BadSignature => (
            "is not signed by a known authority".to_owned(),
            "Set ca to the PEM certificate of the authority that signed it.",
        ),
        Reason::Expired | Reason::ExpiredContext { .. } => {
            ("has expired".to_owned(), "Renew the server's certificate, and check the clock of this machine.")
        }
        Reason::NotValidYet | Reason::NotValidYetContext { .. } => {
            ("is not valid yet".to_owned(), "Check the clocks of this machine and of the server.")
        }
        other => (format!("was refused: {other}"), "Give the server a certificate of an authority that is in ca."),
    };
    (format!("the certificate of {host} {what}"), hint.to_owned())
}

#[cfg(test)]
mod tests;
