use std::collections::BTreeMap;
use std::io::Cursor;

use super::*;

/// Keeps members in memory.
#[derive(Default)]
struct Memory {
    done: Vec<(Member, Vec<u8>)>,
}

impl Store for Memory {
    type Input = Cursor<Vec<u8>>;
    type Sink = (Member, Vec<u8>);

    fn begin(&mut self, member: &Member) -> Result<Self::Sink> {
        Ok((member.clone(), Vec::new()))
    }

    fn append(&mut self, sink: &mut Self::Sink, input: &mut Self::Input, length: u64) -> Result<()> {
        let start = sink.1.len();
        sink.1.resize(start + length as usize, 0);
        Ok(input.read_exact(&mut sink.1[start..])?)
    }

    fn end(&mut self, sink: Self::Sink) -> Result<()> {
        self.done.push(sink);
        Ok(())
    }
}

fn header(name: &[u8], kind: u8, size: &str, link: &[u8]) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    block[..name.len()].copy_from_slice(name);
    block[100..107].copy_from_slice(b"0000600");
    block[124..124 + size.len()].copy_from_slice(size.as_bytes());
    block[136..147].copy_from_slice(b"14700000000");
    block[156] = kind;
    block[157..157 + link.len()].copy_from_slice(link);
    block[257..263].copy_from_slice(b"ustar\0");
    seal(&mut block);
    block
}

fn seal(block: &mut [u8]) {
    block[148..156].copy_from_slice(b"        ");
    let sum: u32 = block[..BLOCK].iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn member(name: &[u8], kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = header(name, kind, &format!("{:011o}", body.len()), b"");
    bytes.extend(body);
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

fn unpack_in_pieces(archive: &[u8], piece: usize, terminated: bool) -> Result<Vec<(Member, Vec<u8>)>> {
    let mut memory = Memory::default();
    let mut unpacker = Unpacker::new();
    let mut input = Cursor::new(archive.to_vec());
    for part in archive.chunks(piece) {
        unpacker.feed(&mut memory, &mut input, part.len() as u64)?;
    }
    unpacker.finish(terminated)?;
    Ok(memory.done)
}

fn unpack(archive: &[u8]) -> Result<Vec<(Member, Vec<u8>)>> {
    unpack_in_pieces(archive, 4_096, true)
}

const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

#[test]
fn gives_files_directories_and_links_however_the_stream_is_cut() {
    let body: Vec<u8> = (0..1_300).map(|at| at as u8).collect();
    let mut archive = member(b"base/5/1259", b'0', &body);
    archive.extend(member(b"pg_wal/", b'5', b""));
    archive.extend(member(b"empty", b'0', b""));
    archive.extend(header(b"pg_tblspc/16385/", b'2', "00000000000", b"/srv/fast"));
    archive.extend(member(b"exact", b'0', &[7; BLOCK]));
    archive.extend(END);
    for piece in [1, 7, 511, 512, 513, 100_000] {
        let members = unpack_in_pieces(&archive, piece, true).expect("valid");
        let found: BTreeMap<_, _> =
            members.into_iter().map(|(member, bytes)| (member.path, (member.kind, bytes))).collect();
        assert_eq!(found.len(), 5, "pieces of {piece}");
        assert_eq!(found["base/5/1259"], (Kind::File(1_300), body.clone()));
        assert_eq!(found["pg_wal"], (Kind::Directory, vec![]));
        assert_eq!(found["empty"], (Kind::File(0), vec![]));
        assert_eq!(found["pg_tblspc/16385"], (Kind::Symlink("/srv/fast".into()), vec![]));
        assert_eq!(found["exact"], (Kind::File(512), vec![7; BLOCK]));
    }
}

#[test]
fn old_servers_leave_the_end_out_and_new_ones_may_not() {
    let archive = member(b"a", b'0', b"x");
    assert!(unpack_in_pieces(&archive, 512, false).is_ok());
    assert!(unpack_in_pieces(&archive, 512, true).is_err());
}

#[test]
fn a_cut_at_any_byte_is_an_error() {
    let mut archive = member(b"a", b'0', &[1; 700]);
    archive.extend(END);
    for cut in 0..archive.len() - BLOCK {
        assert!(unpack(&archive[..cut]).is_err(), "cut at {cut}");
    }
}

#[test]
fn long_names_come_by_gnu_and_pax() {
    let long = "d/".repeat(80) + "x";
    let mut archive = member(b"././@LongLink", b'L', format!("{long}\0").as_bytes());
    archive.extend(member(b"short", b'0', b"1"));
    let record = format!("path={long}y\n");
    let record = format!("{} {record}", record.len() + 4);
    archive.extend(member(b"pax", b'x', record.as_bytes()));
    archive.extend(member(b"short", b'0', b"2"));
    archive.extend(member(b"next", b'0', b"3"));
    archive.extend(END);
    let paths: Vec<_> = unpack(&archive).expect("valid").into_iter().map(|(member, _)| member.path).collect();
    assert_eq!(paths, [long.clone(), format!("{long}y"), "next".into()]);
}

#[test]
fn large_sizes_are_binary() {
    let mut block = header(b"big", b'0', "", b"");
    block[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0]);
    seal(&mut block);
    let mut memory = Memory::default();
    let mut unpacker = Unpacker::new();
    unpacker.feed(&mut memory, &mut Cursor::new(block), BLOCK as u64).expect("valid");
    assert!(matches!(unpacker.state, State::Body(_, 0x2_0000_0000, _)));
}

#[test]
fn hostile_headers_are_refused() {
    let damaged = |at: usize, byte: u8, sealed: bool| {
        let mut bytes = member(b"a", b'0', b"x");
        bytes[at] = byte;
        if sealed {
            seal(&mut bytes);
        }
        bytes.extend(END);
        unpack(&bytes)
    };
    assert!(damaged(0, b'b', false).is_err(), "a checksum that does not fit");
    assert!(damaged(156, b'1', true).is_err(), "a hard link");
    assert!(damaged(156, b'3', true).is_err(), "a device");
    assert!(damaged(156, b'5', true).is_err(), "a directory with content");
    assert!(damaged(124, b'9', true).is_err(), "a size that is not octal");
    assert!(damaged(124, 0xFF, true).is_err(), "a size past 64 bits, as a negative one is");
    assert!(damaged(124, b'-', true).is_err(), "a negative size");
    for name in ["/etc/passwd", "../a", "a/../../b", ""] {
        let mut archive = member(name.as_bytes(), b'0', b"x");
        archive.extend(END);
        assert!(unpack(&archive).is_err(), "{name:?}");
    }
}

#[test]
fn hostile_extensions_are_refused() {
    let huge = header(b"x", b'x', "77777777777", b"");
    assert!(unpack_in_pieces(&huge, 512, false).is_err(), "an extension without bound");
    for record in [
        "999 path=x\n",
        "5 path",
        "x path=y\n",
        "8 pathxy\n",
        "0 a=b\n",
        "3 a",
        "18446744073709551615 a=b\n",
        "9 size=-1\n",
    ] {
        let mut archive = member(b"x", b'x', record.as_bytes());
        archive.extend(member(b"a", b'0', b""));
        archive.extend(END);
        assert!(unpack(&archive).is_err(), "{record:?}");
    }
}

#[test]
fn an_archive_of_nothing_ends() {
    for record in [header(b"x", b'x', "00000000000", b""), member(b"x", b'L', b"name\0"), member(b"x", b'g', b"")] {
        assert!(unpack(&record.repeat(1_000)).is_err(), "extension headers without end");
    }
    assert!(unpack(&[0; 100 * BLOCK]).is_err(), "zeros without end");
}

#[test]
fn the_largest_size_waits_for_its_bytes() {
    let mut block = header(b"big", b'0', "", b"");
    block[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0]);
    seal(&mut block);
    assert!(unpack(&block).is_err(), "2^63 bytes were announced, and none came");
}

#[test]
fn nothing_comes_after_the_end() {
    let mut archive = member(b"a", b'0', b"x");
    archive.extend([0; BLOCK]);
    archive.extend(member(b"b", b'0', b"x"));
    assert!(unpack(&archive).is_err());
}
