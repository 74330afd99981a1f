//! Which server is the right one: one with a pinned certificate, or one that an authority vouches for.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast_web::Fingerprint;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::cli::Failure;

/// Whom to trust.
#[derive(Debug)]
pub enum Trust {
    /// Exactly this certificate, whatever its names are.
    Pinned(Fingerprint),
    /// What these authorities signed for the server's name: of a PEM file, or the system's.
    Authorities(Option<PathBuf>),
}

impl Trust {
    /// TLS settings that trust so.
    pub(super) fn client_config(self) -> Result<Arc<ClientConfig>, Failure> {
        let unusable = |reason: String| Failure::failed(format!("TLS cannot be used: {reason}"));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(error.to_string()))?;
        let rule = match self {
            Self::Pinned(expected) => Rule::Pinned(expected),
            Self::Authorities(file) => {
                let roots = roots(file.as_deref())?.into();
                let authorities = WebPkiServerVerifier::builder_with_provider(roots, provider.clone()).build();
                Rule::Authorities(authorities.map_err(|error| unusable(error.to_string()))?)
            }
        };
        let verifier = Arc::new(Verifier { provider, rule });
        Ok(Arc::new(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()))
    }
}

fn roots(file: Option<&Path>) -> Result<RootCertStore, Failure> {
    let mut roots = RootCertStore::empty();
    let Some(file) = file else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok(roots);
    };
    let unusable = |reason: String| {
        Failure::usage(format!("{} is not a file of certificates: {reason}", file.display()))
            .hint("HOLDFAST_CA names a PEM file, such as a copy of DATA-DIR/tls/certificate.pem.")
    };
    let certificates = CertificateDer::pem_file_iter(file).map_err(|error| unusable(error.to_string()))?;
    for certificate in certificates {
        roots
            .add(certificate.map_err(|error| unusable(error.to_string()))?)
            .map_err(|error| unusable(error.to_string()))?;
    }
    if roots.is_empty() { Err(unusable("it holds none".to_owned())) } else { Ok(roots) }
}

/// Judges a server's certificate by a rule; that the server has the certificate's key is proved in the same way by every rule.
#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    rule: Rule,
}

/// Which certificate is the right one.
#[derive(Debug)]
enum Rule {
    Pinned(Fingerprint),
    Authorities(Arc<WebPkiServerVerifier>),
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let found = Fingerprint::of(end_entity);
        match &self.rule {
            Rule::Pinned(expected) if found == *expected => Ok(ServerCertVerified::assertion()),
            Rule::Pinned(_) => Err(rustls::Error::General(format!("its certificate is another one, {found}"))),
            Rule::Authorities(authorities) => authorities
                .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
                // A refusal tells the fingerprint, for who can compare it.
                .map_err(|error| {
                    rustls::Error::General(format!(
                        "{error}; if its fingerprint is what `holdfast serve` printed there, log in with --fingerprint {found}"
                    ))
                }),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
