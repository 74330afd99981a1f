//! Makes a restored configuration file start a server from its new place.
//!
//! What names a place outside of the data directory is commented out, never changed or lost. Everything else stays as it
//! was, byte for byte.

/// Settings that always name a place of the old machine.
const PLACES: &[&str] = &[
    "data_directory",
    "hba_file",
    "ident_file",
    "external_pid_file",
    "unix_socket_directories",
    "stats_temp_directory",
];

/// Settings that do where their value is an absolute path.
const ABSOLUTE_PLACES: &[&str] = &["log_directory"];

/// Files without which a server that has `ssl` on does not start.
const CERTIFICATES: &[&str] =
    &["ssl_cert_file", "ssl_key_file", "ssl_ca_file", "ssl_crl_file", "ssl_crl_dir", "ssl_dh_params_file"];

/// A file made fit to start from, and what the operator should know of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Rewritten {
    /// The whole file.
    pub text: String,
    /// What was turned off that may be missed.
    pub notes: Vec<String>,
}

/// Comments out what does not hold at a new place in the configuration file `name`. `is_restored` says whether a path that
/// `include` names, relative to the file, is restored too.
pub fn rewrite(name: &str, text: &str, is_restored: impl Fn(&str) -> bool) -> Rewritten {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let foreign_certificate = lines
        .iter()
        .filter_map(|line| Assignment::parse(line))
        .find(|assignment| CERTIFICATES.contains(&assignment.name.as_str()) && assignment.value.starts_with('/'));

    let mut rewritten = Rewritten { text: String::with_capacity(text.len()), notes: Vec::new() };
    for line in lines {
        let Some(Assignment { name: setting, value }) = Assignment::parse(line) else {
            rewritten.text.push_str(line);
            continue;
        };
        let off = match setting.as_str() {
            place if PLACES.contains(&place) => true,
            place if ABSOLUTE_PLACES.contains(&place) => value.starts_with('/'),
            "ssl" => match &foreign_certificate {
                Some(certificate) if !is_off(&value) => {
                    rewritten.notes.push(format!(
                        "TLS is off in the restored {name}: {} was {}, which is not part of the backup",
                        certificate.name, certificate.value
                    ));
                    true
                }
                _ => false,
            },
            "include" | "include_dir" | "include_if_exists" if !is_restored(&value) => {
                rewritten.notes.push(format!("the restored {name} no longer has: {setting} '{value}'"));
                true
            }
            "archive_mode" if !is_off(&value) => {
                rewritten.notes.push(format!(
                    "{setting} is on in the restored {name}: the new server would archive its log to where the old one does"
                ));
                false
            }
            _ => false,
        };
        if off {
            rewritten.text.push_str("# Off since the restore: ");
        }
        rewritten.text.push_str(line);
    }
    rewritten
}

fn is_off(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "off" | "false" | "no" | "0" | "f" | "n")
}

/// A line that sets something, as PostgreSQL reads it: `name = value`, the sign optional, the value quoted or not.
struct Assignment {
    name: String,
    value: String,
}

impl Assignment {
    fn parse(line: &str) -> Option<Self> {
        let line = line.trim();
        let end =
            line.find(|character: char| !(character.is_ascii_alphanumeric() || matches!(character, '_' | '.')))?;
        let (name, rest) = line.split_at(end);
        if name.is_empty() {
            return None;
        }
        let rest = rest.trim_start();
        let rest = rest.strip_prefix('=').unwrap_or(rest).trim_start();
        let value = match rest.strip_prefix('\'') {
            Some(quoted) => unquote(quoted)?,
            None => rest.split(|character: char| character.is_whitespace() || character == '#').next()?.to_owned(),
        };
        Some(Self { name: name.to_ascii_lowercase(), value })
    }
}

/// A quoted value after its first quote: quotes are doubled or escaped.
fn unquote(quoted: &str) -> Option<String> {
    let mut value = String::new();
    let mut characters = quoted.chars().peekable();
    loop {
        match characters.next()? {
            '\\' => value.push(characters.next()?),
            '\'' if characters.peek() == Some(&'\'') => value.extend(characters.next()),
            '\'' => return Some(value),
            other => value.push(other),
        }
    }
}

/// A value as a configuration file quotes it.
pub fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing(_: &str) -> bool {
        false
    }

    #[test]
    fn places_of_the_old_machine_are_commented_out() {
        let text = "data_directory = '/var/lib/postgresql/15/main'\t\t# use data in another directory\n\
                    HBA_File='/etc/postgresql/15/main/pg_hba.conf'\nident_file '/etc/x'\n  external_pid_file = '/run/x.pid'\n\
                    unix_socket_directories = '/var/run/postgresql'\nlog_directory = '/var/log/pg'\nport = 5433\n";
        let rewritten = rewrite("postgresql.conf", text, nothing);
        let (off, on): (Vec<_>, Vec<_>) =
            rewritten.text.lines().partition(|line| line.starts_with("# Off since the restore: "));
        assert_eq!(on, ["port = 5433"]);
        assert_eq!(off.len(), 6);
        assert_eq!(rewritten.text.replace("# Off since the restore: ", ""), text, "nothing is lost");
    }

    #[test]
    fn everything_else_stays_byte_for_byte() {
        let text = "#data_directory = '/x'\n\n# ssl = on\nshared_buffers = 128MB\r\nlog_directory = 'log'\nssl = on\n\
                    ssl_cert_file = 'server.crt'\nodd line\n'\nlast = 'it''s \\'no end";
        assert_eq!(rewrite("postgresql.conf", text, nothing), Rewritten { text: text.into(), notes: vec![] });
    }

    #[test]
    fn tls_is_off_where_its_certificate_stayed_behind() {
        let text = "ssl = on\nssl_cert_file = '/etc/ssl/certs/ssl-cert-snakeoil.pem'\n";
        let rewritten = rewrite("postgresql.conf", text, nothing);
        assert!(rewritten.text.starts_with("# Off since the restore: ssl = on\nssl_cert_file"));
        assert!(rewritten.notes[0].contains("ssl-cert-snakeoil.pem"), "{:?}", rewritten.notes);
        let off = "ssl = off\nssl_cert_file = '/etc/x'\n";
        assert_eq!(rewrite("postgresql.conf", off, nothing).text, off);
    }

    #[test]
    fn includes_stay_where_they_were_restored() {
        let text = "include_dir = 'conf.d'\ninclude 'extra.conf'\n";
        let rewritten = rewrite("postgresql.conf", text, |path| path == "extra.conf");
        assert_eq!(rewritten.text, "# Off since the restore: include_dir = 'conf.d'\ninclude 'extra.conf'\n");
        assert_eq!(rewritten.notes.len(), 1);
    }

    #[test]
    fn archiving_is_noted() {
        let rewritten = rewrite("postgresql.conf", "archive_mode = on\n", nothing);
        assert_eq!(rewritten.text, "archive_mode = on\n");
        assert_eq!(rewritten.notes.len(), 1);
    }

    #[test]
    fn quoting_goes_both_ways() {
        for value in ["", "plain", "it's", "back\\slash", "'"] {
            let quoted = quote(value);
            assert_eq!(unquote(&quoted[1..]).as_deref(), Some(value));
        }
    }
}
