//! Certificates for TLS tests: an authority of their own, and a server's certificate from it.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use crate::{Account, Result};

/// Files in PEM.
pub struct Certificates {
    /// The authority's certificate.
    pub authority: PathBuf,
    /// The server's certificate.
    pub certificate: PathBuf,
    /// The server's key, which only its account can read.
    pub key: PathBuf,
}

impl Certificates {
    /// A new authority and a certificate for `localhost` and `127.0.0.1`.
    pub fn issue(directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory)?;
        let mut authority = CertificateParams::default();
        authority.distinguished_name.push(DnType::CommonName, "Scratch authority");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;

        let key = KeyPair::generate()?;
        let server =
            CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()])?.signed_by(&key, &authority)?;

        let files = Self {
            authority: directory.join("ca.pem"),
            certificate: directory.join("server.pem"),
            key: directory.join("server.key"),
        };
        fs::write(&files.authority, authority.pem())?;
        fs::write(&files.certificate, server.pem())?;
        fs::write(&files.key, key.serialize_pem())?;
        // PostgreSQL refuses a key that others can read.
        fs::set_permissions(&files.key, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        Account::for_databases()?.own(&files.key)?;
        Ok(files)
    }
}
