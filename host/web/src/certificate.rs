//! The server's certificate: made at first start, self-signed, kept under the data directory, trusted by its fingerprint.
//!
//! Operators may put their own `certificate.pem` (a chain) and `key.pem` there instead. The key is readable for its owner only.

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::Error;

/// SHA-256 of a certificate, by which a client knows the server; as text `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint of a certificate.
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, certificate).as_ref());
        Self(bytes)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Fingerprint {
    type Err = String;

    /// With or without `sha256:`; colons between the bytes, as other tools print them, are skipped.
    fn from_str(text: &str) -> Result<Self, String> {
        let digits: Vec<u8> =
            text.strip_prefix("sha256:").unwrap_or(text).bytes().filter(|byte| *byte != b':').collect();
        let wrong = || format!("'{text}' is not a fingerprint: it has 64 hexadecimal digits, after `sha256:`");
        if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(wrong());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| wrong())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
        }
        Ok(Self(bytes))
    }
}

/// The certificate and the TLS settings that use it.
pub(crate) struct Identity {
    pub(crate) fingerprint: Fingerprint,
    pub(crate) tls: Arc<ServerConfig>,
}

/// Loads the certificate from `data_dir/tls`, making it where there is none, valid for `names`.
pub(crate) fn load_or_make(data_dir: &Path, names: Vec<String>) -> Result<Identity, Error> {
    let files = Files::beneath(data_dir);
    if !files.certificate.exists() {
        files.make(names)?;
    }
    files.load()
}

struct Files {
    directory: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl Files {
    fn beneath(data_dir: &Path) -> Self {
        let directory = data_dir.join("tls");
        Self { certificate: directory.join("certificate.pem"), key: directory.join("key.pem"), directory }
    }

    /// The certificate goes last: where it is missing, both are made anew.
    fn make(&self, names: Vec<String>) -> Result<(), Error> {
        let unusable =
            |error: rcgen::Error| Error::Certificate { directory: self.directory.clone(), reason: error.to_string() };
        let key = rcgen::KeyPair::generate().map_err(unusable)?;
        let mut parameters = rcgen::CertificateParams::new(names).map_err(unusable)?;
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "holdfast");
        parameters.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = parameters.self_signed(&key).map_err(unusable)?;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory).map_err(failed(&self.directory))?;
        write(&self.key, key.serialize_pem().as_bytes(), 0o600).map_err(failed(&self.key))?;
        write(&self.certificate, certificate.pem().as_bytes(), 0o644).map_err(failed(&self.certificate))
    }

    fn load(&self) -> Result<Identity, Error> {
        let unusable = |reason: String| Error::Certificate { directory: self.directory.clone(), reason };
        let chain = fs::read(&self.certificate).map_err(failed(&self.certificate))?;
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&chain)
            .collect::<Result<_, _>>()
            .map_err(|error| unusable(error.to_string()))?;
        let key = fs::read(&self.key).map_err(failed(&self.key))?;
        let key = PrivateKeyDer::from_pem_slice(&key).map_err(|error| unusable(error.to_string()))?;
        let fingerprint =
            Fingerprint::of(chain.first().ok_or_else(|| unusable("certificate.pem is empty".to_owned()))?);
        let mut tls = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(error.to_string()))?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| unusable(error.to_string()))?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Identity { fingerprint, tls: Arc::new(tls) })
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    |source| Error::CertificateFile { path, source }
}

/// Writes a whole file under another name first, so that a crash leaves no half certificate.
#[allow(clippy::disallowed_methods)] // Losing the files costs a new certificate.
fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let _ = fs::remove_file(&temporary);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_certificate_is_made_once_and_its_key_is_private() {
        let data_dir = tempfile::tempdir().unwrap();
        let names = || vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let first = load_or_make(data_dir.path(), names()).unwrap().fingerprint;
        let again = load_or_make(data_dir.path(), names()).unwrap().fingerprint;
        assert_eq!(first, again);
        let mode = fs::metadata(data_dir.path().join("tls/key.pem")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_key_of_another_certificate_is_refused_with_a_hint() {
        let data_dir = tempfile::tempdir().unwrap();
        load_or_make(data_dir.path(), vec!["localhost".to_owned()]).unwrap();
        let other = rcgen::KeyPair::generate().unwrap();
        fs::write(data_dir.path().join("tls/key.pem"), other.serialize_pem()).unwrap();
        let error = load_or_make(data_dir.path(), vec![]).err().unwrap();
        assert!(matches!(error, Error::Certificate { .. }), "{error}");
        assert!(error.hint().contains("key.pem"));
    }

    #[test]
    fn fingerprints_read_what_they_print() {
        let fingerprint = Fingerprint([0xa5; 32]);
        assert_eq!(fingerprint.to_string().parse(), Ok(fingerprint));
        assert_eq!("A5:".repeat(32).trim_end_matches(':').parse(), Ok(fingerprint));
        assert!("sha256:a5".parse::<Fingerprint>().is_err());
    }
}
