//! Results on stdout in four forms. JSON and YAML are the API's own documents, exact; tables are for people and escape control characters.

use std::io::{ErrorKind, Write};

use comfy_table::Table;
use holdfast_control::resources::Page;
use serde::Serialize;

use super::{Failure, yaml};

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Table,
    /// The API's document
    Json,
    /// The same as YAML
    Yaml,
    /// Names only, one a line
    Name,
}

/// A result that can be shown to people.
pub trait Shown: Serialize {
    /// Of the columns of a list.
    const HEADINGS: &'static [&'static str];

    /// One for each heading.
    fn cells(&self) -> Vec<String>;

    /// By which other commands take it.
    fn name(&self) -> String;

    /// All that a single one shows, by label.
    fn details(&self) -> Vec<(&'static str, String)> {
        Self::HEADINGS.iter().copied().zip(self.cells()).collect()
    }
}

/// Prints one result.
pub fn print<T: Shown>(format: Format, result: &T) -> Result<(), Failure> {
    match format {
        Format::Table => {
            let rows = result.details().into_iter().filter(|(_, value)| !value.is_empty());
            write(&table(&[], rows.map(|(label, value)| vec![label.to_owned(), value])))
        }
        Format::Name => write(&result.name()),
        Format::Json | Format::Yaml => document(format, result),
    }
}

/// Prints a list.
pub fn print_list<T: Shown>(format: Format, list: &Page<T>) -> Result<(), Failure> {
    match format {
        Format::Table if list.items.is_empty() => Ok(()),
        Format::Table => write(&table(T::HEADINGS, list.items.iter().map(Shown::cells))),
        Format::Name => list.items.iter().try_for_each(|item| write(&item.name())),
        Format::Json | Format::Yaml => document(format, list),
    }
}

fn document(format: Format, result: &impl Serialize) -> Result<(), Failure> {
    let unprintable = |error| Failure::failed(format!("the result cannot be printed: {error}"));
    if format == Format::Yaml {
        write(yaml::text(&serde_json::to_value(result).map_err(unprintable)?).trim_end())
    } else {
        write(&serde_json::to_string_pretty(result).map_err(unprintable)?)
    }
}

/// Writes lines to stdout. A reader that went away had enough: no error.
pub fn write(text: &str) -> Result<(), Failure> {
    match writeln!(std::io::stdout().lock(), "{text}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("writing the result failed: {error}")))
        }
        _ => Ok(()),
    }
}

fn table(headings: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    if !headings.is_empty() {
        table.set_header(headings.iter().map(|heading| heading.to_uppercase()));
    }
    for row in rows {
        table.add_row(row.iter().map(|cell| printable(cell)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// Strings come from servers and plugins that are not trusted: nothing in them may move a terminal's cursor or turn text around.
pub fn printable(text: &str) -> String {
    let turns = |c| matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let moves = |c: char| c.is_control() && c != '\n';
    text.chars()
        .flat_map(|c| if moves(c) || turns(c) { c.escape_default().collect::<Vec<_>>() } else { vec![c] })
        .collect()
}

/// Bytes for people, in powers of 1024.
pub fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} PiB")
}

/// A time for people: UTC to the second, with its `Z`.
pub fn time(text: &str) -> String {
    match text.split_once('T') {
        Some((date, clock)) => format!("{date} {}Z", clock.trim_end_matches('Z').split('.').next().unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// What may be absent.
pub fn optional(text: Option<&String>) -> String {
    text.cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        assert_eq!([0, 1023, 1024, 1536, 5 << 30].map(size), ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "5.0 GiB"]);
        assert_eq!(size(u64::MAX), "16384.0 PiB");
    }

    #[test]
    fn times_are_utc_to_the_second() {
        assert_eq!(time("2026-11-21T06:10:01.123Z"), "2026-11-21 06:10:01Z");
        assert_eq!(time("2026-11-21T06:10:01Z"), "2026-11-21 06:10:01Z");
        assert_eq!(time("never"), "never");
    }

    #[test]
    fn a_hostile_string_cannot_move_the_cursor() {
        assert_eq!(printable("a\u{1b}[2Jb\rc\u{202e}"), "a\\u{1b}[2Jb\\rc\\u{202e}");
    }

    #[test]
    fn a_table_has_its_headings_and_no_trailing_blanks() {
        let rows = [vec!["a".to_owned(), "bb".to_owned()], vec!["ccc".to_owned(), "d".to_owned()]];
        assert_eq!(table(&["x", "y"], rows.into_iter()), "X    Y\na    bb\nccc  d");
    }
}
