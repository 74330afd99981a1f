//! Asking a person for a secret, without an echo. Where standard input is no terminal nobody is asked: a service would wait for ever.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, IsTerminal, Write};

use holdfast_control::resources::SecretText;
use holdfast_control::{UnlockSource, Unlocking};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

/// The keyring is opened from there, or as it says itself; a person is asked at the terminal.
pub fn unlocking(source: Option<UnlockSource>) -> Unlocking {
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(Into::into);
    Unlocking { source, credentials, ask: ask_secret }
}

/// A terminal that does not echo, until this is dropped.
struct Silent<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Silent<'a> {
    fn new(terminal: &'a File) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut silent = before.clone();
        silent.local_modes -= LocalModes::ECHO;
        silent.local_modes |= LocalModes::ECHONL;
        tcsetattr(terminal, OptionalActions::Flush, &silent)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Silent<'_> {
    fn drop(&mut self) {
        // A terminal that is gone needs no echo.
        let _ = tcsetattr(self.terminal, OptionalActions::Flush, &self.before);
    }
}

/// Asks with this question. Errors: there is no terminal; nothing was typed.
fn ask_secret(question: &str) -> io::Result<SecretText> {
    if !io::stdin().is_terminal() {
        return Err(io::Error::other("standard input is no terminal"));
    }
    let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty")?;
    let silent = Silent::new(&terminal)?;
    // Only now: whoever answers at once is not shown either.
    (&terminal).write_all(format!("{question}: ").as_bytes())?;
    let mut line = Zeroizing::new(String::with_capacity(1024));
    BufReader::new(&terminal).read_line(&mut line)?;
    drop(silent);
    match line.trim_end_matches(['\r', '\n']) {
        "" => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "nothing was typed")),
        secret => Ok(secret.to_owned().into()),
    }
}
