//! What an `s3://bucket/prefix?…` URL says.
//!
//! It refuses keys in the URL, options that it does not know, and endpoints that are never dialled.

use std::ops::Range;

use url::{Host, Url};

use crate::addresses::is_forbidden;
use crate::error::Error;
use crate::{Settings, path, spelling};

/// Options of the URL that may be settings too; a setting counts before the URL.
pub(super) const STYLE: &str = "style";
pub(super) const CHECKSUM: &str = "checksum";
/// The options of the URL.
const OPTIONS: [&str; 4] = ["endpoint", "region", "style", "checksum"];
/// The region where the URL names none: many stores have none, and accept this one.
const REGION: &str = "us-east-1";

/// How the bucket is addressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// `https://endpoint/bucket/key`
    Path,
    /// `https://bucket.endpoint/key`
    Virtual,
}

/// Which checksum goes with a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Checksum {
    Crc64Nvme,
    Crc32,
    /// None of the newer ones: Content-MD5, which every store knows.
    WhenRequired,
    /// None at all, for stores that refuse every one of them.
    None,
}

impl Checksum {
    /// What goes with each write, for people.
    pub(super) fn detail(self) -> &'static str {
        match self {
            Self::Crc64Nvme => "each write goes with a CRC64NVME, and each read is checked against it",
            Self::Crc32 => "each write goes with a CRC32, and each read is checked against it",
            Self::WhenRequired => "each write goes with an MD5, which every store checks",
            Self::None => "writes go without a checksum: damage on the way shows only when objects are read",
        }
    }
}

/// A bucket, where it is, and how it is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) bucket: String,
    /// Empty, or ends with `/`.
    pub(super) prefix: String,
    /// Without one, AWS.
    pub(super) endpoint: Option<Url>,
    pub(super) region: String,
    pub(super) style: Style,
    pub(super) checksum: Checksum,
}

impl Address {
    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        let bad = |reason: String| Error::bad_url(text, reason);
        let url = Url::parse(text).map_err(|error| bad(error.to_string()))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(bad(
                "keys do not belong into a URL, but into the settings `access-key` and `secret-key`".to_owned()
            ));
        }
        if url.port().is_some() || url.fragment().is_some() {
            return Err(bad(
                "a bucket has no port and no fragment; write `endpoint=http://host:port` behind `?`".to_owned()
            ));
        }
        let bucket = url.host_str().unwrap_or_default().to_owned();
        if !is_bucket_name(&bucket) {
            return Err(bad(format!("`{bucket}` is not a bucket's name (3 to 63 of a-z, 0-9, `.` and `-`)")));
        }
        let options = options(&url).map_err(bad)?;
        let endpoint = options.endpoint.as_deref().map(endpoint).transpose().map_err(bad)?;
        let region = options.region.unwrap_or_else(|| REGION.to_owned());
        if region.is_empty() || !region.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return Err(bad("`region` is made of letters, digits and `-`".to_owned()));
        }
        let style = style(options.style.as_deref(), endpoint.as_ref()).map_err(bad)?;
        let checksum = checksum(options.checksum.as_deref(), endpoint.as_ref()).map_err(bad)?;
        Ok(Self { bucket, prefix: prefix(url.path()).map_err(bad)?, endpoint, region, style, checksum })
    }

    /// The same, as the settings say it where the URL does not.
    pub(super) fn with(self, settings: &Settings) -> Result<Self, Error> {
        let bad = |name: &'static str| move |reason: String| Error::bad_setting(name, format!("is wrong: {reason}"));
        let value = |name: &str| settings.get(name).map(String::as_str);
        let style = match value(STYLE) {
            None => self.style,
            text => style(text, self.endpoint.as_ref()).map_err(bad(STYLE))?,
        };
        let checksum = match value(CHECKSUM) {
            None => self.checksum,
            text => checksum(text, self.endpoint.as_ref()).map_err(bad(CHECKSUM))?,
        };
        Ok(Self { style, checksum, ..self })
    }

    /// The service, and where it says so its region.
    pub(super) fn holder(&self) -> String {
        let service =
            self.endpoint.as_ref().and_then(|endpoint| Some((endpoint.host_str()?, endpoint.port_or_known_default()?)));
        match service {
            Some((host, port)) => format!("the service at {host}:{port}"),
            None => format!("AWS in {}", self.region),
        }
    }

    /// The URL, as far as it says where this is.
    pub(super) fn location(&self) -> String {
        let place = format!("s3://{}/{}", self.bucket, self.prefix);
        let place = place.trim_end_matches('/');
        match &self.endpoint {
            Some(endpoint) => format!("{place}?endpoint={}", endpoint.as_str().trim_end_matches('/')),
            None => place.to_owned(),
        }
    }
}

/// The options as they were written, each at most once.
#[derive(Default)]
struct Options {
    endpoint: Option<String>,
    region: Option<String>,
    style: Option<String>,
    checksum: Option<String>,
}

fn options(url: &Url) -> Result<Options, String> {
    let mut options = Options::default();
    for (name, value) in url.query_pairs() {
        let place = match name.as_ref() {
            "endpoint" => &mut options.endpoint,
            "region" => &mut options.region,
            "style" => &mut options.style,
            "checksum" => &mut options.checksum,
            name => {
                return Err(format!("the option `{name}` {}", spelling::unknown(name, &OPTIONS)));
            }
        };
        if place.replace(value.into_owned()).is_some() {
            return Err(format!("the option `{name}` is given twice"));
        }
    }
    Ok(options)
}

fn endpoint(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("`endpoint` is not a URL ({error})"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("`endpoint` begins with `http://` or `https://`".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err("`endpoint` has only a host, a port and a path".to_owned());
    }
    let forbidden = match url.host() {
        Some(Host::Ipv4(address)) => is_forbidden(address.into()),
        Some(Host::Ipv6(address)) => is_forbidden(address.into()),
        _ => false,
    };
    if forbidden {
        return Err("`endpoint` is a link-local or unspecified address, and such are never dialled".to_owned());
    }
    Ok(url)
}

fn style(text: Option<&str>, endpoint: Option<&Url>) -> Result<Style, String> {
    let by_address = endpoint.is_some_and(|url| !matches!(url.host(), Some(Host::Domain(_))));
    match text {
        Some("virtual") if by_address => {
            Err("`style=virtual` needs an endpoint with a name, not an address".to_owned())
        }
        Some("virtual") => Ok(Style::Virtual),
        Some("path") => Ok(Style::Path),
        Some(_) => Err("`style` is `path` or `virtual`".to_owned()),
        // Few stores other than AWS have a name for every bucket.
        None => Ok(if endpoint.is_some() { Style::Path } else { Style::Virtual }),
    }
}

fn checksum(text: Option<&str>, endpoint: Option<&Url>) -> Result<Checksum, String> {
    match text {
        Some("crc64nvme") => Ok(Checksum::Crc64Nvme),
        Some("crc32") => Ok(Checksum::Crc32),
        Some("when-required" | "required-only") => Ok(Checksum::WhenRequired),
        Some("none") => Ok(Checksum::None),
        Some(_) => Err("`checksum` is `crc64nvme`, `crc32`, `when-required` or `none`".to_owned()),
        None => Ok(if endpoint.is_some() { Checksum::WhenRequired } else { Checksum::Crc64Nvme }),
    }
}

/// What keys begin with: nothing, or a path and a `/`.
fn prefix(path: &str) -> Result<String, String> {
    let path = path.trim_matches('/');
    match path {
        "" => Ok(String::new()),
        path => path::fault(path).map_or_else(|| Ok(format!("{path}/")), |fault| Err(format!("the prefix {fault}"))),
    }
}

fn is_bucket_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-');
    let ends = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    (3..=63).contains(&name.len())
        && name.bytes().all(allowed)
        && ends(name.bytes().next())
        && ends(name.bytes().last())
}

/// Whether a `Content-Range` (`bytes 5-9/20`) is `range` cut at the object's end, and `length` bytes long.
pub(super) fn is_cut_of(content_range: &str, range: &Range<u64>, length: usize) -> bool {
    let parse = || {
        let (bounds, total) = content_range.strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = bounds.split_once('-')?;
        let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        let total = total.parse().unwrap_or(u64::MAX);
        let end = last.checked_add(1)?;
        Some(first == range.start && end == range.end.min(total) && end.checked_sub(first)? == length as u64)
    };
    parse().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(url: &str) -> String {
        Address::parse(url).unwrap_err().to_string()
    }

    #[test]
    fn an_own_endpoint_means_path_style_and_old_checksums() {
        let address = Address::parse("s3://backups/acme/db/?endpoint=http://127.0.0.1:9000&region=eu-1").unwrap();
        assert_eq!(
            (address.bucket.as_str(), address.prefix.as_str(), address.region.as_str()),
            ("backups", "acme/db/", "eu-1")
        );
        assert_eq!((address.style, address.checksum), (Style::Path, Checksum::WhenRequired));
        assert_eq!(address.location(), "s3://backups/acme/db?endpoint=http://127.0.0.1:9000");
    }

    #[test]
    fn aws_means_names_for_buckets_and_new_checksums() {
        let address = Address::parse("s3://backups").unwrap();
        assert_eq!(
            (address.style, address.checksum, address.region.as_str()),
            (Style::Virtual, Checksum::Crc64Nvme, "us-east-1")
        );
        assert_eq!(address.location(), "s3://backups");
    }

    #[test]
    fn an_unknown_option_is_refused_with_the_near_name() {
        assert!(
            reason("s3://backups?endpont=http://a")
                .contains("the option `endpont` is unknown here; did you mean `endpoint`?")
        );
        assert!(reason("s3://backups?style=path&style=path").contains("given twice"));
    }

    #[test]
    fn keys_in_a_url_are_refused_and_not_repeated() {
        let shown = reason("s3://AKIA:topsecret@backups/a");
        assert!(shown.contains("keys do not belong"), "{shown}");
        assert!(!shown.contains("topsecret") && !shown.contains("AKIA"), "{shown}");
        assert!(!reason("s3://backups?secret-key=topsecret").contains("topsecret"));
    }

    #[test]
    fn endpoints_that_are_never_dialled_are_refused() {
        assert!(reason("s3://backups?endpoint=http://169.254.169.254").contains("never dialled"));
        assert!(reason("s3://backups?endpoint=http://[fe80::1]:9000").contains("never dialled"));
        assert!(reason("s3://backups?endpoint=ftp://host").contains("begins with"));
        assert!(reason("s3://backups?endpoint=http://user:pw@host").contains("only a host"));
    }

    #[test]
    fn malformed_parts_are_named() {
        assert!(reason("s3://B_ad/x").contains("bucket's name"));
        assert!(reason("s3://backups/a%20b").contains("the prefix has characters"));
        assert!(reason("s3://backups?style=round").contains("`style` is"));
        assert!(reason("s3://backups?checksum=md4").contains("`checksum` is"));
        assert!(reason("s3://backups?region=").contains("`region` is"));
        assert!(
            reason("s3://backups?endpoint=http://10.0.0.1&style=virtual").contains("needs an endpoint with a name")
        );
    }

    #[test]
    fn a_content_range_must_be_the_one_asked_for() {
        assert!(is_cut_of("bytes 5-9/20", &(5..10), 5));
        assert!(is_cut_of("bytes 5-9/10", &(5..100), 5));
        assert!(is_cut_of("bytes 5-9/*", &(5..10), 5));
        for wrong in
            ["bytes 4-9/20", "bytes 5-8/20", "bytes 5-9/9", "5-9/20", "bytes 9-5/20", "bytes 5-18446744073709551615/20"]
        {
            assert!(!is_cut_of(wrong, &(5..10), 5), "{wrong}");
        }
    }
}
