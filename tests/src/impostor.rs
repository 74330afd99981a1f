//! Somebody who poses as a PostgreSQL server: speaks as much of the protocol as a backup needs, and lies where a test wants it.
//!
//! Without lies he is believed: his backup is kept. What differs then is what the test changed.

mod tar;

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use crate::Result;

pub use tar::Tar;

/// What he does at one point of a session.
pub type Part = Box<dyn Fn(&mut Peer) -> io::Result<()> + Send + Sync>;

/// Asks for TLS (protocol chapter 55.2.10).
const SSL_REQUEST: u32 = 80_877_103;

/// Where he says that his log begins and ends, and his only history.
const POSITION: [Option<&str>; 2] = [Some("0/2000028"), Some("1")];

/// He who listens on the loopback address, until his value ends.
pub struct Impostor {
    port: u16,
    is_over: Arc<AtomicBool>,
    listening: Option<JoinHandle<()>>,
}

/// What he does instead of what a server does.
struct Role {
    log_in: Part,
    back_up: Part,
}

impl Impostor {
    /// He logs everybody in, and answers `BASE_BACKUP` in this way.
    pub fn who_backs_up(back_up: impl Fn(&mut Peer) -> io::Result<()> + Send + Sync + 'static) -> Result<Self> {
        Self::play(Role { log_in: Box::new(Peer::admit), back_up: Box::new(back_up) })
    }

    /// He answers whoever wants to log in in this way, and ends the connection then.
    pub fn who_logs_in(log_in: impl Fn(&mut Peer) -> io::Result<()> + Send + Sync + 'static) -> Result<Self> {
        let gone = |_: &mut Peer| Err(io::ErrorKind::ConnectionAborted.into());
        let log_in = move |peer: &mut Peer| log_in(peer).and_then(|()| gone(peer));
        Self::play(Role { log_in: Box::new(log_in), back_up: Box::new(gone) })
    }

    fn play(role: Role) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let (role, is_over) = (Arc::new(role), Arc::new(AtomicBool::new(false)));
        let over = is_over.clone();
        let listening = thread::spawn(move || {
            for stream in listener.incoming().flatten().take_while(|_| !over.load(Ordering::Relaxed)) {
                let role = role.clone();
                // A session ends when its client goes away.
                thread::spawn(move || Peer { stream }.converse(&role));
            }
        });
        Ok(Self { port, is_over, listening: Some(listening) })
    }

    /// Where he listens.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        // Wakes him.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        let _ = self.listening.take().map(JoinHandle::join);
    }
}

/// The client of a session.
pub struct Peer {
    stream: TcpStream,
}

impl Peer {
    fn converse(mut self, role: &Role) -> io::Result<()> {
        while u32::from_be_bytes(self.startup()?) == SSL_REQUEST {
            self.raw(b"N")?;
        }
        (role.log_in)(&mut self)?;
        loop {
            let statement = self.statement()?;
            match statement.split([' ', '\0']).next().unwrap_or_default() {
                "BASE_BACKUP" => (role.back_up)(&mut self)?,
                "IDENTIFY_SYSTEM" => {
                    self.rows(&[&[Some("7300000000000000001"), Some("1"), Some("0/2000028"), None]])?
                }
                "CREATE_REPLICATION_SLOT" => self.rows(&[&[Some("slot"), Some("0/2000028"), None, None]])?,
                "SHOW" => self.rows(&[&[Some(setting(statement.trim_end_matches('\0')))]])?,
                // Whatever else is asked, there is none of it.
                _ => self.rows(&[])?,
            }
            self.message(b'Z', b"I")?;
        }
    }

    /// The first four bytes after the length of a startup message; the rest is read over.
    fn startup(&mut self) -> io::Result<[u8; 4]> {
        let (mut length, mut code) = ([0; 4], [0; 4]);
        self.stream.read_exact(&mut length)?;
        self.stream.read_exact(&mut code)?;
        let mut rest = vec![0; (u32::from_be_bytes(length) as usize).saturating_sub(8).min(10_000)];
        self.stream.read_exact(&mut rest)?;
        Ok(code)
    }

    /// The body of the client's next message.
    pub fn answer(&mut self) -> io::Result<Vec<u8>> {
        let mut head = [0; 5];
        self.stream.read_exact(&mut head)?;
        let [_, length @ ..] = head;
        let mut body = vec![0; (u32::from_be_bytes(length) as usize).saturating_sub(4).min(1 << 20)];
        self.stream.read_exact(&mut body)?;
        Ok(body)
    }

    fn statement(&mut self) -> io::Result<String> {
        self.answer().map(|body| String::from_utf8_lossy(&body).into_owned())
    }

    /// Sends bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a message.
    pub fn message(&mut self, tag: u8, body: &[u8]) -> io::Result<()> {
        let length = (body.len() as u32 + 4).to_be_bytes();
        self.raw(&[&[tag][..], &length, body].concat())
    }

    /// Lets him in, whoever he is.
    pub fn admit(&mut self) -> io::Result<()> {
        self.message(b'R', &[0; 4])?;
        self.message(b'S', b"server_version\x0015.4\0")?;
        self.message(b'Z', b"I")
    }

    /// Sends one result.
    pub fn rows(&mut self, rows: &[&[Option<&str>]]) -> io::Result<()> {
        for row in rows {
            let mut body = (row.len() as u16).to_be_bytes().to_vec();
            for column in *row {
                body.extend(column.map_or(-1, |text| text.len() as i32).to_be_bytes());
                body.extend(column.unwrap_or_default().as_bytes());
            }
            self.message(b'D', &body)?;
        }
        self.message(b'C', b"SELECT\0")
    }

    /// Begins a backup with these tablespaces, by oid and path, besides the data directory.
    pub fn begin_backup(&mut self, tablespaces: &[(&str, &str)]) -> io::Result<()> {
        self.rows(&[&POSITION])?;
        let mut rows: Vec<[Option<&str>; 3]> =
            tablespaces.iter().map(|(oid, path)| [Some(*oid), Some(*path), Some("8")]).collect();
        rows.push([None, None, Some("8")]);
        self.rows(&rows.iter().map(|row| &row[..]).collect::<Vec<_>>())?;
        self.message(b'H', &[0, 0, 0])
    }

    /// Begins an archive.
    pub fn begin_archive(&mut self, name: &str, path: &str) -> io::Result<()> {
        self.message(b'd', format!("n{name}\0{path}\0").as_bytes())
    }

    /// Sends bytes of an archive or of the manifest.
    pub fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(60_000) {
            self.message(b'd', &[b"d", piece].concat())?;
        }
        Ok(())
    }

    /// Sends the manifest, and ends the backup.
    pub fn end_backup(&mut self, manifest: &[u8]) -> io::Result<()> {
        self.message(b'd', b"m")?;
        self.data(manifest)?;
        self.message(b'c', b"")?;
        self.rows(&[&POSITION])?;
        self.message(b'C', b"SELECT\0")
    }

    /// A whole backup of this archive of the data directory and of empty tablespaces, with nothing wrong around it.
    pub fn send_backup(&mut self, tablespaces: &[(&str, &str)], archive: &Tar) -> io::Result<()> {
        self.begin_backup(tablespaces)?;
        for (oid, path) in tablespaces {
            self.begin_archive(&format!("{oid}.tar"), path)?;
            self.data(&Tar::default().ended())?;
        }
        self.begin_archive("base.tar", "")?;
        self.data(&archive.ended())?;
        self.end_backup(&manifest("")?)
    }
}

/// A manifest that lists these files, as JSON, with its own checksum.
pub fn manifest(files: &str) -> io::Result<Vec<u8>> {
    let ranges = r#"{ "Timeline": 1, "Start-LSN": "0/2000028", "End-LSN": "0/2000028" }"#;
    let lines = format!(
        "{{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [{files}],\n\"WAL-Ranges\": [\n{ranges}\n],\n"
    );
    let mut sum = Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    if let Some(mut input) = sum.stdin.take() {
        input.write_all(lines.as_bytes())?;
    }
    let output = sum.wait_with_output()?.stdout;
    let digest = String::from_utf8_lossy(&output).split(' ').next().unwrap_or_default().to_owned();
    Ok(format!("{lines}\"Manifest-Checksum\": \"{digest}\"}}\n").into_bytes())
}

/// What `SHOW` answers.
fn setting(statement: &str) -> &'static str {
    match statement.trim_start_matches("SHOW ") {
        "server_version_num" => "150004",
        "block_size" => "8192",
        "wal_segment_size" => "1MB",
        "segment_size" => "1GB",
        "data_directory" => "/data",
        "config_file" => "/data/postgresql.conf",
        "hba_file" => "/data/pg_hba.conf",
        "ident_file" => "/data/pg_ident.conf",
        "wal_level" => "replica",
        "max_slot_wal_keep_size" => "-1",
        "max_replication_slots" => "10",
        "full_page_writes" | "data_checksums" => "on",
        _ => "off",
    }
}
