//! Certificates for TLS tests: authorities of their own, and what they sign for servers and clients.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::{Account, Result};

/// An authority that signed itself. Its files lie in one directory.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: PathBuf,
    /// Its certificate, in PEM.
    pub certificate: PathBuf,
}

/// A certificate and its key, in PEM; the key is readable by the account of database servers only.
#[derive(Clone)]
pub struct Certified {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Certified {
    /// What a server with this certificate does about TLS.
    pub(crate) fn acceptor(&self) -> Result<TlsAcceptor> {
        let chain = vec![CertificateDer::from_pem_file(&self.certificate)?];
        let server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, PrivateKeyDer::from_pem_file(&self.key)?)?;
        Ok(TlsAcceptor::from(Arc::new(server)))
    }
}

impl Authority {
    /// A new one in a new directory.
    pub fn new(directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory)?;
        let mut own = CertificateParams::default();
        own.distinguished_name.push(DnType::CommonName, "Scratch authority");
        own.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(own, KeyPair::generate()?)?;
        let certificate = directory.join("ca.pem");
        fs::write(&certificate, issuer.pem())?;
        Ok(Self { issuer, directory: directory.into(), certificate })
    }

    /// No authority: a server that signed its own certificate, as the first line of most instructions makes it.
    pub fn self_signed(directory: &Path, names: &[&str]) -> Result<Certified> {
        let mut params = CertificateParams::new(owned(names))?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        write(directory, "self-signed", &certificate.pem(), &key)
    }

    /// For a server of these names or addresses.
    pub fn server(&self, names: &[&str]) -> Result<Certified> {
        self.sign(names.join("-").as_str(), CertificateParams::new(owned(names))?)
    }

    /// For a server of these names, and over since long ago.
    pub fn expired_server(&self, names: &[&str]) -> Result<Certified> {
        let mut params = CertificateParams::new(owned(names))?;
        (params.not_before, params.not_after) = (date_time_ymd(2001, 1, 1), date_time_ymd(2002, 1, 1));
        self.sign("expired", params)
    }

    /// For a client that logs in as this role.
    pub fn client(&self, role: &str) -> Result<Certified> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, role);
        self.sign(role, params)
    }

    fn sign(&self, name: &str, params: CertificateParams) -> Result<Certified> {
        let key = KeyPair::generate()?;
        let signed = params.signed_by(&key, &self.issuer)?;
        write(&self.directory, name, &signed.pem(), &key)
    }
}

fn write(directory: &Path, name: &str, certificate: &str, key: &KeyPair) -> Result<Certified> {
    let files =
        Certified { certificate: directory.join(format!("{name}.pem")), key: directory.join(format!("{name}.key")) };
    fs::write(&files.certificate, certificate)?;
    fs::write(&files.key, key.serialize_pem())?;
    // PostgreSQL refuses a key that others can read.
    fs::set_permissions(&files.key, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Account::for_databases()?.own(&files.key)?;
    Ok(files)
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}
