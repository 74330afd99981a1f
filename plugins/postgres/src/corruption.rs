//! Pages that the server found damaged while it sent them.
//!
//! It names up to five blocks of a file in warnings, then only counts them, and refuses the backup after its end. Its words
//! are of its own language: the file is what stands in quotes, and what is said of it are the numbers behind it.

use std::collections::BTreeMap;

use crate::failure::Report;
use crate::names;

/// Files that are remembered with their blocks; more are only counted.
const MAX_FILES: usize = 50;

/// Blocks of a file that are remembered. The server names five.
const MAX_BLOCKS: usize = 10;

/// Opening and closing quotes of all languages that PostgreSQL speaks.
const QUOTES: &[char] = &['"', '\'', '«', '»', '„', '“', '”', '‘', '’', '「', '」'];

/// All that the server said about damaged pages.
#[derive(Debug, Default)]
pub struct Damage {
    /// By the file's path, as the server named it.
    files: BTreeMap<String, File>,
    /// Files for which there was no room.
    more_files: u64,
}

/// What is damaged in one file.
#[derive(Debug, Default)]
struct File {
    /// In the file, not in the relation.
    blocks: Vec<u32>,
    /// How many blocks there are, if more than named.
    total: u64,
}

impl Damage {
    /// Takes a warning; whether it was one about damaged pages.
    pub fn take(&mut self, warning: &Report) -> bool {
        if warning.file != "basebackup.c" {
            return false;
        }
        let Some((path, numbers)) = read(&warning.message) else {
            // How many there are in all follows at the end, and is known by then.
            return warning.routine == "perform_base_backup" && !self.is_empty();
        };
        let room = self.files.len() < MAX_FILES || self.files.contains_key(path);
        if !room {
            // Every file is first met with a block that is damaged.
            self.more_files += u64::from(numbers.len() == 3);
            return true;
        }
        let file = self.files.entry(path.to_owned()).or_default();
        match numbers[..] {
            // The block, the checksum that it has, the one that it should have.
            [block, _, _] if file.blocks.len() < MAX_BLOCKS => file.blocks.extend(block.parse::<u32>().ok()),
            [total] => file.total = total.parse().unwrap_or(0),
            _ => {}
        }
        true
    }

    /// Whether the server complained of nothing.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// A line for each block, by its number in its relation; `name` knows what a relation is called.
    pub fn lines(&self, segment_blocks: u32, mut name: impl FnMut(&str) -> Option<String>) -> Vec<String> {
        let mut lines = Vec::new();
        for (path, file) in &self.files {
            let (relation, segment) = names::cut_segment(path);
            let called = name(relation).map(|name| format!(" ({name})")).unwrap_or_default();
            for block in &file.blocks {
                let number = u64::from(segment) * u64::from(segment_blocks) + u64::from(*block);
                let place =
                    if segment > 0 { format!(", which is block {block} of the file {path}") } else { String::new() };
                lines.push(format!("damaged page: block {number} of {relation}{called}{place}"));
            }
            let unnamed = file.total.saturating_sub(file.blocks.len() as u64);
            if unnamed > 0 {
                lines.push(format!("damaged pages: {unnamed} more in {path}{called}, which the server does not name"));
            }
        }
        if self.more_files > 0 {
            lines.push(format!("damaged pages: in {} more places", self.more_files));
        }
        lines
    }
}

/// The relation file that a warning is about, and the numbers behind its name: decimal, or hexadecimal in capitals.
fn read(message: &str) -> Option<(&str, Vec<&str>)> {
    let (_, rest) = message.split_once(QUOTES)?;
    let (path, rest) = rest.split_once(QUOTES)?;
    let path = path.trim();
    let path = path.strip_prefix("./").unwrap_or(path);
    names::is_relation_path(path).then_some(())?;
    let is_number = |word: &&str| {
        word.starts_with(|first: char| first.is_ascii_digit() || first.is_ascii_uppercase())
            && word.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F'))
    };
    // Not every language sets a number off by blanks.
    let words = rest.split(|character: char| !character.is_ascii_alphanumeric());
    Some((path, words.filter(is_number).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(message: &str) -> Report {
        Report {
            file: "basebackup.c".into(),
            routine: if message.contains('/') { "sendFile" } else { "perform_base_backup" }.into(),
            message: message.into(),
            ..Report::default()
        }
    }

    fn damage(warnings: &[&str]) -> Damage {
        let mut damage = Damage::default();
        for warning in warnings {
            assert!(damage.take(&report(warning)), "{warning}");
        }
        damage
    }

    #[test]
    fn blocks_are_numbered_within_their_relation() {
        let damage = damage(&[
            r#"checksum verification failed in file "./base/5/16385", block 3: calculated 2FB3 but expected 6A91"#,
            r#"checksum verification failed in file "./base/5/16385.2", block 4: calculated CD27 but expected 23A"#,
            r#"further checksum verification failures in file "./base/5/16385.2" will not be reported"#,
            r#"file "./base/5/16385.2" has a total of 7 checksum verification failures"#,
            "8 total checksum verification failures",
        ]);
        let name = |path: &str| (path == "base/5/16385").then(|| "public.bad".to_owned());
        let expected = [
            "damaged page: block 3 of base/5/16385 (public.bad)",
            "damaged page: block 262148 of base/5/16385 (public.bad), which is block 4 of the file base/5/16385.2",
            "damaged pages: 6 more in base/5/16385.2 (public.bad), which the server does not name",
        ];
        assert_eq!(damage.lines(131_072, name), expected);
    }

    #[test]
    fn every_language_of_the_server_is_understood() {
        for warning in [
            "Prüfsummenüberprüfung fehlgeschlagen in Datei »./base/5/1«, Block 3: berechnet BAD, aber erwartet 6A91",
            "échec de la vérification de la somme de contrôle dans le fichier « ./base/5/1 », bloc 3 : calculé 2FB3, alors que le bloc contient 6A91",
            "ファイル\"./base/5/1\"でチェックサム検証が失敗しました(ブロック3、計算値2FB3、期待値6A91)",
        ] {
            let lines = damage(&[warning]).lines(131_072, |_| None);
            assert_eq!(lines, ["damaged page: block 3 of base/5/1"], "{warning}");
        }
    }

    #[test]
    fn other_warnings_are_left_to_others() {
        let mut damage = Damage::default();
        for message in [
            r#"skipping special file "./base/x""#,
            r#"file "./postgresql.conf" is odd"#,
            "nothing quoted",
            r#"one "quote"#,
        ] {
            assert!(!damage.take(&report(message)), "{message}");
        }
        let elsewhere = Report { file: "other.c".into(), ..report(r#"file "./base/5/1", block 3: A B"#) };
        assert!(!damage.take(&elsewhere) && damage.is_empty());
    }

    #[test]
    fn endless_warnings_cost_no_memory() {
        let mut damage = Damage::default();
        for number in 0..10_000 {
            damage.take(&report(&format!(r#"in file "./base/5/{number}", block 3: 1 2"#)));
            damage.take(&report(&format!(r#"in file "./base/5/1", block {number}: 1 2"#)));
        }
        let lines = damage.lines(131_072, |_| None);
        assert!(lines.len() <= MAX_FILES + MAX_BLOCKS, "{}", lines.len());
        assert_eq!(lines.last().map(String::as_str), Some("damaged pages: in 9950 more places"));
    }
}
