//! Files that look like a database's: pages of which half the bytes are noise, and SQL text.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::Path;

use holdfast_tests::{Result, ensure};

/// Bytes of one file.
const FILE: usize = 64 << 20;
const PAGE: usize = 8192;

/// A generator of numbers that are the same each time: xorshift, nothing secret.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Makes so many MiB: three quarters of it pages, one quarter text.
pub fn make(directory: &Path, mib: u32) -> Result {
    let count = (mib as usize * (1 << 20)).div_ceil(FILE);
    for number in 0..count {
        let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15 ^ (number as u64 + 1));
        let name = if number % 4 == 3 { format!("{number}.sql") } else { format!("{number}.pages") };
        let mut file = BufWriter::new(File::create(directory.join(&name))?);
        if name.ends_with(".sql") {
            text(&mut file, &mut numbers)?;
        } else {
            pages(&mut file, &mut numbers)?;
        }
        file.into_inner().map_err(|error| error.into_error())?.sync_all()?;
    }
    Ok(())
}

/// Rows of 64 bytes: 32 of noise, the rest of what rows have in common.
fn pages(file: &mut impl std::io::Write, numbers: &mut Numbers) -> Result {
    let mut row = [0; 64];
    for number in 0..FILE / PAGE * (PAGE / row.len()) {
        row[..8].copy_from_slice(&(number as u64).to_le_bytes());
        row[8..16].copy_from_slice(&[2, 0, 4, 0, 2, 9, 24, 0]);
        row[16..32].copy_from_slice(b"in good standing");
        for place in row[32..].as_chunks_mut::<8>().0 {
            *place = numbers.next().to_le_bytes();
        }
        file.write_all(&row)?;
    }
    Ok(())
}

fn text(file: &mut impl std::io::Write, numbers: &mut Numbers) -> Result {
    const WORDS: [&str; 8] = ["amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heath"];
    let mut written = 0;
    while written < FILE {
        let (one, other) = (numbers.next(), numbers.next());
        let word = |shift: u32| WORDS[(one >> shift) as usize % WORDS.len()];
        let line = format!(
            "INSERT INTO orders VALUES ({}, '{} {} {}', {}.{:02}, '2026-{:02}-{:02}', '{:016x}');\n",
            one % 10_000_000,
            word(40),
            word(44),
            word(48),
            other % 9_999,
            other % 100,
            1 + other % 12,
            1 + one % 28,
            other,
        );
        file.write_all(line.as_bytes())?;
        written += line.len();
    }
    Ok(())
}

/// Fails unless a restored directory holds the same files.
pub fn must_equal(files: &Path, restored: &Path) -> Result {
    for file in fs::read_dir(files)? {
        let path = file?.path();
        let name = path.file_name().unwrap_or_default();
        ensure(fs::read(&path)? == fs::read(restored.join(name))?, || format!("{} differs", name.display()))?;
    }
    Ok(())
}
