//! What goes between the host and the compiling child: files in memory, so that neither ever waits for the other, and what
//! the child may write is bounded by the kernel.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::process::Command;

use rustix::fs::{MemfdFlags, memfd_create};

use super::{CODE_BYTES_MAX, WORDS};

/// The child's three standard streams.
pub(super) struct Exchange {
    component: File,
    code: File,
    words: File,
}

impl Exchange {
    pub(super) fn new(component: &[u8]) -> io::Result<Self> {
        let file = |name| memfd_create(name, MemfdFlags::CLOEXEC).map(File::from);
        let mut input = file("component")?;
        input.write_all(component)?;
        input.rewind()?;
        Ok(Self { component: input, code: file("compiled code")?, words: file("compiler")? })
    }

    pub(super) fn attach(&self, command: &mut Command) -> io::Result<()> {
        command.stdin(self.component.try_clone()?).stdout(self.code.try_clone()?).stderr(self.words.try_clone()?);
        Ok(())
    }

    /// The code that the child wrote.
    pub(super) fn code(&mut self) -> io::Result<Vec<u8>> {
        read(&mut self.code, CODE_BYTES_MAX)
    }

    /// What the child said; cut to what is worth keeping.
    pub(super) fn words(&mut self) -> String {
        read(&mut self.words, WORDS).map(|words| String::from_utf8_lossy(&words).into_owned()).unwrap_or_default()
    }
}

fn read(file: &mut File, most: u64) -> io::Result<Vec<u8>> {
    file.rewind()?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}
