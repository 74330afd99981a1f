//! Archives as PostgreSQL sends them, with members that no server would send.

/// An archive that is being made.
#[derive(Clone, Default)]
pub struct Tar(Vec<u8>);

impl Tar {
    /// What every backup must have, and nothing else.
    pub fn whole() -> Self {
        let label = b"START WAL LOCATION: 0/2000028 (file 000000010000000000000020)\nCHECKPOINT LOCATION: 0/2000060\nSTART TIMELINE: 1\n";
        let log = "pg_wal/000000010000000000000020";
        let whole = Self::default().file("backup_label", label).file("global/pg_control", &[0; 8192]);
        ["PG_VERSION", "postgresql.conf", "pg_hba.conf", "pg_ident.conf"]
            .into_iter()
            .fold(whole.file(log, &[0; 1 << 20]), |whole, name| whole.file(name, b"15\n"))
    }

    /// Adds a file.
    pub fn file(self, name: &str, content: &[u8]) -> Self {
        let size = content.len() as u64;
        self.member(name, b'0', size, "").bytes(content).bytes(&vec![0; content.len().wrapping_neg() % 512])
    }

    /// Adds a link.
    pub fn link(self, name: &str, target: &str) -> Self {
        self.member(name, b'2', 0, target)
    }

    /// Adds the header of a member: its type as the format has it, and the size that it claims.
    pub fn member(self, name: &str, kind: u8, size: u64, link: &str) -> Self {
        let mut header = [0; 512];
        put(&mut header[..100], name.as_bytes());
        put(&mut header[100..108], b"0000600");
        put(&mut header[108..116], b"0000000");
        put(&mut header[116..124], b"0000000");
        match size < 1 << 33 {
            true => put(&mut header[124..136], format!("{size:011o}").as_bytes()),
            // The binary form.
            false => {
                header[124] = 0x80;
                header[128..136].copy_from_slice(&size.to_be_bytes());
            }
        }
        put(&mut header[136..148], b"00000000000");
        header[148..156].fill(b' ');
        header[156] = kind;
        put(&mut header[157..257], link.as_bytes());
        put(&mut header[257..265], b"ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        put(&mut header[148..156], format!("{sum:06o}\0 ").as_bytes());
        self.bytes(&header)
    }

    /// Adds bytes as they are.
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// All bytes so far.
    pub fn open(&self) -> &[u8] {
        &self.0
    }

    /// All bytes, with the blocks of zeros that end an archive.
    pub fn ended(&self) -> Vec<u8> {
        [&self.0[..], &[0; 1024]].concat()
    }
}

/// Fills the start of a field; what does not fit is cut.
fn put(field: &mut [u8], text: &[u8]) {
    let length = text.len().min(field.len());
    field[..length].copy_from_slice(&text[..length]);
}
