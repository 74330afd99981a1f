//! Channel binding data `tls-server-end-point` (RFC 5929 §4.1): the hash of the server's certificate by the hash algorithm of
//! its signature. Reads just as much DER as that takes; what it does not know gives no binding, never a wrong one.

use ring::digest::{Algorithm, SHA256, SHA384, SHA512, digest};

/// The binding for a DER certificate; none where its signature defines no hash of ours (Ed25519, SHA-224).
pub(crate) fn end_point_binding(certificate: &[u8]) -> Option<Vec<u8>> {
    let hash = signature_hash(certificate)?;
    Some(digest(hash, certificate).as_ref().to_vec())
}

const SEQUENCE: u8 = 0x30;
const OBJECT_IDENTIFIER: u8 = 0x06;
/// `[0]`, explicit: where RSASSA-PSS parameters name their hash.
const PSS_HASH: u8 = 0xa0;

// Object identifiers, encoded.
const RSA_MD5: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x04];
const RSA_SHA1: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x05];
const RSA_PSS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a];
const RSA_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b];
const RSA_SHA384: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0c];
const RSA_SHA512: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0d];
const ECDSA_SHA1: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01];
const ECDSA_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
const ECDSA_SHA384: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03];
const ECDSA_SHA512: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x04];
const SHA1: &[u8] = &[0x2b, 0x0e, 0x03, 0x02, 0x1a];
const HASH_SHA256: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];
const HASH_SHA384: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02];
const HASH_SHA512: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03];

fn signature_hash(certificate: &[u8]) -> Option<&'static Algorithm> {
    let (certificate, _) = element(certificate, SEQUENCE)?;
    let (_to_be_signed, rest) = element(certificate, SEQUENCE)?;
    let (algorithm, _signature) = element(rest, SEQUENCE)?;
    let (name, parameters) = element(algorithm, OBJECT_IDENTIFIER)?;
    match name {
        // MD5 and SHA-1 are replaced by SHA-256: the RFC says so.
        RSA_MD5 | RSA_SHA1 | ECDSA_SHA1 | RSA_SHA256 | ECDSA_SHA256 => Some(&SHA256),
        RSA_SHA384 | ECDSA_SHA384 => Some(&SHA384),
        RSA_SHA512 | ECDSA_SHA512 => Some(&SHA512),
        RSA_PSS => pss_hash(parameters),
        _ => None,
    }
}

fn pss_hash(parameters: &[u8]) -> Option<&'static Algorithm> {
    let (parameters, _) = element(parameters, SEQUENCE)?;
    // Left out, the hash is SHA-1.
    let Some((hash, _)) = element(parameters, PSS_HASH) else {
        return Some(&SHA256);
    };
    let (algorithm, _) = element(hash, SEQUENCE)?;
    match element(algorithm, OBJECT_IDENTIFIER)?.0 {
        SHA1 | HASH_SHA256 => Some(&SHA256),
        HASH_SHA384 => Some(&SHA384),
        HASH_SHA512 => Some(&SHA512),
        _ => None,
    }
}

/// The content of the first element, if it has this tag, and what follows it.
fn element(input: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = input.split_first()?;
    let (&first, rest) = rest.split_first()?;
    if found != tag {
        return None;
    }
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrap(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(content.len()).expect("short").to_be_bytes();
        [&[tag, 0x82, length[0], length[1]], content].concat()
    }

    /// A certificate as far as this module looks: a body, an algorithm, a signature.
    fn certificate(algorithm: &[u8]) -> Vec<u8> {
        wrap(SEQUENCE, &[wrap(SEQUENCE, b"body"), wrap(SEQUENCE, algorithm), wrap(0x03, b"\0signature")].concat())
    }

    #[test]
    fn the_hash_follows_the_signature() {
        for (name, hash) in [
            (RSA_MD5, Some(&SHA256)),
            (RSA_SHA1, Some(&SHA256)),
            (ECDSA_SHA256, Some(&SHA256)),
            (RSA_SHA384, Some(&SHA384)),
            (ECDSA_SHA512, Some(&SHA512)),
            (&[0x2b, 0x65, 0x70], None), // Ed25519
        ] {
            let certificate = certificate(&wrap(OBJECT_IDENTIFIER, name));
            let expected = hash.map(|hash| digest(hash, &certificate).as_ref().to_vec());
            assert_eq!(end_point_binding(&certificate), expected, "{name:x?}");
        }
    }

    #[test]
    fn pss_names_its_hash_in_its_parameters() {
        let hash = wrap(PSS_HASH, &wrap(SEQUENCE, &wrap(OBJECT_IDENTIFIER, HASH_SHA384)));
        for (parameters, length) in [(hash, 48), (Vec::new(), 32)] {
            let algorithm = [wrap(OBJECT_IDENTIFIER, RSA_PSS), wrap(SEQUENCE, &parameters)].concat();
            assert_eq!(end_point_binding(&certificate(&algorithm)).map(|binding| binding.len()), Some(length));
        }
    }

    #[test]
    fn cut_or_strange_bytes_give_none() {
        let whole = certificate(&wrap(OBJECT_IDENTIFIER, RSA_SHA256));
        assert!((0..whole.len()).all(|length| end_point_binding(&whole[..length]).is_none()));
        assert_eq!(end_point_binding(&[SEQUENCE, 0x80, 0, 0]), None);
        assert_eq!(end_point_binding(&[SEQUENCE, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
    }
}
