//! Servers that are hostile too, or merely odd, on ports of their own until the test process ends.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use holdfast_tests::Result;

/// How a server treats whoever connects.
#[derive(Clone, Copy, Debug)]
pub enum Manner {
    /// Takes the connection, and neither reads nor writes.
    Silent,
    /// Closes each connection at once.
    Closing,
    /// Sends a byte every now and then, for ever.
    Dripping,
    /// Sends as fast as it can, for ever.
    Endless,
    /// Sends these bytes, and reads on.
    Saying(&'static [u8]),
    /// Sends back what it gets.
    Echoing,
}

/// Starts a server; its port on the loopback address.
pub fn serve(manner: Manner) -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            if matches!(manner, Manner::Closing) {
                continue;
            }
            thread::spawn(move || {
                // Whoever was connected went away: that is the end of it.
                let _ = manner.treat(connection);
            });
        }
    });
    Ok(port)
}

impl Manner {
    fn treat(self, mut connection: TcpStream) -> std::io::Result<()> {
        match self {
            Self::Silent => loop {
                thread::park();
            },
            // Not even a thread is spent on it.
            Self::Closing => Ok(()),
            Self::Dripping => loop {
                connection.write_all(b"x")?;
                thread::sleep(Duration::from_millis(100));
            },
            Self::Endless => loop {
                connection.write_all(&[7; 65_536])?;
            },
            Self::Saying(bytes) => {
                connection.write_all(bytes)?;
                std::io::copy(&mut connection, &mut std::io::sink()).map(drop)
            }
            Self::Echoing => {
                connection.write_all(b"begin")?;
                let mut buffer = [0; 4_096];
                loop {
                    let count = connection.read(&mut buffer)?;
                    if count == 0 {
                        return Ok(());
                    }
                    connection.write_all(&buffer[..count])?;
                }
            }
        }
    }
}
