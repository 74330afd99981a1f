//! Every TLS mode against a server of our own.

use ::ring::digest::{SHA256, SHA384, digest};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

use super::*;

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, "test authority");
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("signed")
}

/// A certificate for `name` by `authority`, and its key.
fn issue(authority: &Authority, name: &str) -> (rcgen::Certificate, KeyPair) {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
    (params.signed_by(&key, authority).expect("signed"), key)
}

fn server(authority: &Authority, name: &str) -> ServerConfig {
    let (certificate, key) = issue(authority, name);
    server_of(certificate.der().clone(), &key, None)
}

fn server_of(certificate: CertificateDer<'static>, key: &KeyPair, clients: Option<&Authority>) -> ServerConfig {
    let provider = Arc::new(ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().expect("versions");
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(authority.der().clone()).expect("a root");
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
        }
    };
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    builder.with_single_cert(vec![certificate], key).expect("a server")
}

/// Shakes hands with `server` under the name `localhost` and has one byte echoed; returns the channel binding.
async fn meet(server: ServerConfig, policy: TlsPolicy) -> Result<Option<Vec<u8>>, String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("bound");
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await?;
        let mut stream = TlsAcceptor::from(Arc::new(server)).accept(stream).await?;
        let byte = stream.read_u8().await?;
        stream.write_u8(byte).await?;
        stream.shutdown().await
    });
    let stream = TcpStream::connect(address).await.expect("connected");
    let connector = Tls::new(policy).connector(vec!["demo".to_owned()]);
    let connector = connector.map_err(|error| error.code().unwrap_or_default().to_owned())?;
    let met = handshake(connector, "localhost".to_owned(), stream).await;
    let mut stream = met.map_err(|error| match error {
        CallError::Refused(error) => format!("{}: {}", error.code, error.message),
        _ => "not the server's fault".to_owned(),
    })?;
    // In TLS 1.3 a server refuses a client's certificate only after the handshake.
    stream.write_u8(7).await.map_err(|error| error.to_string())?;
    let echoed = stream.read_u8().await.map_err(|error| error.to_string())?;
    assert_eq!(echoed, 7);
    let _ = serving.await;
    Ok(end_point_binding(&stream))
}

fn policy(mode: TlsMode, authority: &Authority) -> TlsPolicy {
    TlsPolicy { mode, ca: Some(authority.pem()), client: None }
}

#[tokio::test]
async fn verify_full_wants_chain_and_name() {
    let (known, unknown) = (authority(), authority());
    assert!(meet(server(&known, "localhost"), policy(TlsMode::VerifyFull, &known)).await.is_ok());
    let error = meet(server(&known, "elsewhere"), policy(TlsMode::VerifyFull, &known)).await.expect_err("refused");
    assert_eq!(error, "tls-failed: the certificate of localhost is for another name");
    let error = meet(server(&unknown, "localhost"), policy(TlsMode::VerifyFull, &known)).await.expect_err("refused");
    assert!(error.starts_with("tls-failed: "), "{error}");
    // The system's roots know nothing of ours.
    let system = TlsPolicy::default();
    assert!(meet(server(&known, "localhost"), system).await.is_err());
}

#[tokio::test]
async fn verify_ca_wants_the_chain_alone() {
    let (known, unknown) = (authority(), authority());
    assert!(meet(server(&known, "elsewhere"), policy(TlsMode::VerifyCa, &known)).await.is_ok());
    assert!(meet(server(&unknown, "localhost"), policy(TlsMode::VerifyCa, &known)).await.is_err());
}

#[tokio::test]
async fn a_server_that_signed_its_own_certificate_is_known_by_it() {
    let key = KeyPair::generate().expect("a key");
    let own = |year: i32| {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        params.self_signed(&key).expect("signed")
    };
    let meets = async |shown: &rcgen::Certificate, known: &rcgen::Certificate| {
        let policy = TlsPolicy { mode: TlsMode::VerifyFull, ca: Some(known.pem()), client: None };
        meet(server_of(shown.der().clone(), &key, None), policy).await
    };
    let (current, longer, expired) = (own(4000), own(4001), own(2001));
    assert!(meets(&current, &current).await.is_ok());
    assert!(meets(&longer, &current).await.is_err(), "another certificate of the same key");
    let error = meets(&expired, &expired).await.expect_err("refused");
    assert_eq!(error, "tls-failed: the certificate of localhost has expired");
}

#[tokio::test]
async fn require_takes_any_certificate() {
    let (known, unknown) = (authority(), authority());
    assert!(meet(server(&unknown, "elsewhere"), policy(TlsMode::Require, &known)).await.is_ok());
}

#[tokio::test]
async fn a_client_certificate_is_shown() {
    let authority = authority();
    let (certificate, key) = issue(&authority, "localhost");
    let server = || server_of(certificate.der().clone(), &key, Some(&authority));
    assert!(meet(server(), policy(TlsMode::VerifyFull, &authority)).await.is_err());

    let (client, client_key) = issue(&authority, "client");
    let mut with = policy(TlsMode::VerifyFull, &authority);
    with.client = Some((client.pem(), Zeroizing::new(client_key.serialize_pem())));
    assert!(meet(server(), with).await.is_ok());
}

#[tokio::test]
async fn the_binding_is_the_hash_of_the_certificate() {
    let known = authority();
    let (certificate, key) = issue(&known, "localhost");
    let der = certificate.der().clone();
    let binding = meet(server_of(der.clone(), &key, None), policy(TlsMode::VerifyFull, &known)).await.expect("met");
    assert_eq!(binding.as_deref(), Some(digest(&SHA256, &der).as_ref()));

    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).expect("a key");
    let own = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name").self_signed(&key).expect("signed");
    let der = own.der().clone();
    let binding = meet(server_of(der.clone(), &key, None), policy(TlsMode::Require, &known)).await.expect("met");
    assert_eq!(binding.as_deref(), Some(digest(&SHA384, &der).as_ref()));
}

#[test]
fn unreadable_certificates_and_keys_are_named() {
    let authority = authority();
    let mut policy = policy(TlsMode::VerifyFull, &authority);
    policy.client = Some((authority.pem(), Zeroizing::new("not a key".to_owned())));
    let no_key = Tls::new(policy.clone()).connector(Vec::new()).err();
    assert_eq!(no_key.as_ref().and_then(CallError::code), Some("tls-failed"));
    policy.client = None;
    policy.ca = Some("not a certificate".to_owned());
    assert!(Tls::new(policy).connector(Vec::new()).is_err());
}
