#!/usr/bin/env python3
"""Checks reader.py on what no fixture holds: deltas, deep trees, checkpoints, rotated keys; and on hostile things.

The repositories are made here by a writer of its own, which was written from host/repository/FORMAT.md too. It writes
the little that a check asks for, and whatever is wrong with it on purpose.
"""

from __future__ import annotations

import os
import struct
import tempfile
import unittest
from pathlib import Path
from typing import Any

import cbor2
import pyrage
import zstandard
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import reader
from reader import HEAD, INDEX, KEYRING_SIGNATURE, KEYS, MANIFEST, NO_BASE, PACK, REFS

DIGEST_OF_NOTHING = blake3(b"").digest()

# By what the base begins with: a frame that tells its length, and one that does not. The second base begins as a
# dictionary of zstd's own form does, and is none.
FRAMES = {
    b"": (
        "28b52ffd6004ff2d01006004bfc621c8c30aa56d6f726508440130fc0ff81ff03fe07fc0ff80ff01ff03fe1f00d001",
        "28b52ffd00382d01006004bfc621c8c30aa56d6f726508440130fc0ff81ff03fe07fc0ff80ff01ff03fe1f00d001",
    ),
    b"\x37\xa4\x30\xec": (
        "28b52ffd6004ff2d01006036bfc621c8c30aa56d6f726508440130fc0ff81ff03fe07fc0ff80ff01ff03fe1f00d001",
        "28b52ffd00382d01006036bfc621c8c30aa56d6f726508440130fc0ff81ff03fe07fc0ff80ff01ff03fe1f00d001",
    ),
}


def patch(places: bytes, new: bytes, prefix: bytes) -> bytes:
    """The frames of a patch, and the length of the first."""
    prefixed = zstandard.ZstdCompressionDict(prefix, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    first = zstandard.compress(places)
    return struct.pack("<I", len(first)) + first + zstandard.ZstdCompressor(dict_data=prefixed).compress(new)


def pseudorandom(length: int) -> bytes:
    """Bytes that do not compress, the same ones everywhere."""
    state, found = 12345, bytearray()
    for _ in range(length):
        state = (state * 1664525 + 1013904223) % (1 << 32)
        found.append(state >> 24)
    return bytes(found)


def encode(value: Any) -> bytes:
    return cbor2.dumps(value, canonical=True)


def seal(plain: bytes, key: bytes, kind: int, bound: bytes) -> bytes:
    salt = os.urandom(32)
    derived = reader.hkdf(key, salt, b"holdfast v1 seal" + bytes([kind]) + blake3(bound).digest(), 64)
    frames = []
    for number in range(len(plain) // reader.FRAME + 1):
        frame = plain[number * reader.FRAME : (number + 1) * reader.FRAME]
        nonce = struct.pack(">B3xQ", len(frame) < reader.FRAME, number)
        frames.append(AESGCM(derived[:32]).encrypt(nonce, frame, None))
    return salt + derived[32:] + b"".join(frames)


def public(seed: bytes) -> bytes:
    key = Ed25519PrivateKey.from_private_bytes(seed).public_key()
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def sign(seed: bytes, message: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(seed).sign(message)


class Writer:
    """A repository with one domain, in a directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.identity = pyrage.x25519.Identity.generate()
        self.id, self.domain, self.backup = os.urandom(16), os.urandom(16), os.urandom(16)
        self.seed = os.urandom(32)
        self.former: list[list[bytes]] = []
        self.data, self.list, self.table, self.index_key = (os.urandom(32) for _ in range(4))
        self.organization_key, self.data_key = os.urandom(32), os.urandom(32)
        self.folder = f"domains/{self.domain.hex()}"
        self.place = f"{self.folder}/backups/{self.backup.hex()}"
        self.objects: list[list[Any]] = []
        self.chunks: dict[bytes, tuple[bytes, int, bytes | None]] = {}
        self.plain: dict[bytes, bytes] = {}
        self.entries: list[dict[int, Any]] = []
        self.indexes: list[bytes] = []
        self.heads = 0
        self.previous: bytes | None = None
        facts = f'{{"magic":"holdfast repository","format":1,"id":"{self.id.hex()}"}}'
        self.put("repository.json", facts.encode())
        self.pinned = public(self.seed)

    def put(self, path: str, raw: bytes) -> list[Any]:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_bytes(raw)
        return [path, len(raw), blake3(raw).digest()]

    def envelope(self, path: str, kind: int, clear: Any, key: bytes = b"", plain: bytes | None = None) -> bytes:
        clear = encode(clear)
        raw = b"HFST" + bytes([kind, 1, 0, 0]) + struct.pack("<I", len(clear)) + clear
        if plain is not None:
            raw += seal(plain, key, kind, raw)
        message = b"holdfast v1 signature\0" + self.id + struct.pack("<H", len(path)) + path.encode()
        return raw + sign(self.seed, message + blake3(raw).digest())

    def rotate(self) -> None:
        """Goes on with another signing key."""
        following = os.urandom(32)
        message = b"holdfast v1 next key" + self.id + public(following)
        self.former.append([public(self.seed), sign(self.seed, message)])
        self.seed = following

    def keyring(self, generation: int = 1) -> None:
        domain: dict[int, Any] = {
            1: self.domain,
            2: 0,
            3: "acme",
            4: self.data,
            5: self.list,
            6: self.table,
            7: self.index_key,
        }
        domain |= {8: 7, 9: [[1, self.organization_key]]}
        ring = {1: self.id, 2: generation, 3: self.seed, 4: self.former, 5: [domain], 6: bytes(32), 7: []}
        age = pyrage.encrypt(encode(ring), [self.identity.to_public()])
        _, length, digest = self.put(f"keyring/{generation}.age", age)
        clear = {1: generation, 2: digest, 3: length, 4: public(self.seed), 5: self.former}
        path = f"keyring/{generation}.sig"
        self.put(path, self.envelope(path, KEYRING_SIGNATURE, clear))

    def kit(self) -> reader.Kit:
        path = self.root / "alice.key"
        path.write_text(f"# repository: {self.id.hex()}\n# verify-key: {self.pinned.hex()}\n{self.identity}\n")
        return reader.Kit.load(path)

    def chunk(self, plain: bytes, key: bytes, base: bytes | None = None) -> bytes:
        """Adds a chunk: compressed, or as a delta to another data chunk; its hash."""
        hashed = blake3(plain, key=key).digest()
        identity, depth = reader.chunk_id(hashed), 0
        body = struct.pack("<BI", 1 if base is None else 2, len(plain))
        if base is None:
            body += zstandard.compress(plain)
        else:
            prefix = zstandard.ZstdCompressionDict(self.plain[base], dict_type=zstandard.DICT_TYPE_RAWCONTENT)
            body += base + zstandard.ZstdCompressor(dict_data=prefix).compress(plain)
            depth = self.chunks[reader.chunk_id(base)][1] + 1
        nonce = os.urandom(12)
        sealed = nonce + AESGCM(reader.chunk_key(hashed)).encrypt(nonce, body, b"holdfast v1 chunk" + identity)
        self.chunks.setdefault(identity, (sealed, depth, base and reader.chunk_id(base)))
        self.plain[hashed] = plain
        return hashed

    def tree(self, leaves: list[tuple[bytes, int]], sized: bool, fan: int, root: int = 16) -> tuple[int, bytes]:
        """Level and root items of a tree, with `fan` items a list."""
        level = 0
        while len(leaves) > root:
            lists = [leaves[start : start + fan] for start in range(0, len(leaves), fan)]
            leaves = [(self.chunk(items(part, sized), self.list), sum(size for _, size in part)) for part in lists]
            level += 1
        return level, items(leaves, sized)

    def file(
        self, path: str, pieces: list[bytes], page: int = 0, fan: int = 64, hashes: list[bytes] | None = None
    ) -> None:
        hashes = hashes or [self.chunk(piece, self.data) for piece in pieces]
        leaves = [(hashed, len(piece)) for hashed, piece in zip(hashes, pieces, strict=True)]
        level, root = self.tree(leaves, page == 0, fan)
        entry = {1: path, 2: 0, 3: sum(map(len, pieces)), 4: 0o640, 5: -1, 6: page, 9: level, 10: root, 11: {}}
        self.entries.append(entry | ({7: len(pieces[0])} if page else {}))

    def inline(self, path: str, content: bytes) -> None:
        self.entries.append({1: path, 2: 0, 3: len(content), 4: 0o600, 5: 1, 8: content, 11: {"k": "v"}})

    def pack(self) -> None:
        """Writes all chunks as a pack and its index."""
        bases = sorted({base for _, _, base in self.chunks.values() if base})
        raw, records = b"HFST\x02\x01\0\0", []
        for identity, (sealed, depth, base) in self.chunks.items():
            number = bases.index(base) if base else NO_BASE
            records.append(struct.pack("<32sIIII", identity, 0, len(raw), len(sealed) | depth << 24, number))
            raw += sealed
        counts = struct.pack("<II", len(records), len(bases))
        footer = seal(counts + b"".join(bases + records), self.index_key, PACK, raw[:8])
        raw += footer + struct.pack("<I", len(footer))
        name = blake3(raw).digest()
        self.objects.append(self.put(f"{self.folder}/packs/{name.hex()[:2]}/{name.hex()}", raw))
        header = encode({1: 1, 2: len(bases), 3: len(records), 4: []})
        plain = struct.pack("<I", len(header)) + header + name + b"".join(bases + sorted(records))
        raw = self.envelope(f"{self.folder}/indexes/", INDEX, {1: self.domain}, self.index_key, plain)
        self.indexes.append(blake3(raw).digest())
        self.objects.append(self.put(f"{self.folder}/indexes/{self.indexes[-1].hex()}", raw))

    def commit(self, **changes: Any) -> None:
        """Writes the backup and the head that names it. `changes` replace fields of the manifest, by `m` and number."""
        ordered = sorted(self.entries, key=lambda entry: entry[1].encode())
        raw = [encode(entry) for entry in ordered]
        parts = [b"".join(raw[start : start + 3]) for start in range(0, len(raw), 3)]
        leaves = [(self.chunk(part, self.table), len(part)) for part in parts]
        level, root = self.tree(leaves, True, 64)
        self.pack()
        logical = sum(entry.get(3, 0) for entry in ordered)
        facts: dict[int, Any] = {
            5: "x@1",
            6: DIGEST_OF_NOTHING,
            7: "m",
            8: "full",
            9: "{}",
            10: [level, root, sum(map(len, parts))],
        }
        facts |= {11: len(ordered), 12: logical, 14: "e", 15: 2, 16: 3, 17: self.indexes}
        manifest: dict[int, Any] = {
            1: self.backup,
            2: self.domain,
            3: [self.data, self.list, self.table],
            4: self.index_key,
        }
        manifest |= facts
        manifest |= {int(name[1:]): value for name, value in changes.items()}
        clear = {1: self.domain, 2: self.backup}
        header = encode({2: len(self.chunks), 3: 0, 4: 0})
        refs = struct.pack("<I", len(header)) + header + b"".join(sorted(self.chunks))
        self.add("refs.0", REFS, clear, self.index_key, refs)
        self.add("keys.1", KEYS, clear | {3: 1, 4: [self.slot()]}, b"", None)
        self.add("manifest", MANIFEST, clear, self.data_key, encode(manifest))
        self.keyring()
        self.head({9: self.objects, 13: [[self.backup, self.indexes, 1]]}, [self.record(manifest)])

    def add(self, name: str, kind: int, clear: Any, key: bytes, plain: bytes | None) -> None:
        path = f"{self.place}/{name}"
        self.objects.append(self.put(path, self.envelope(path, kind, clear, key, plain)))

    def slot(self) -> dict[int, Any]:
        salt = os.urandom(32)
        key = reader.hkdf(self.organization_key, salt, b"holdfast v1 slot", 32)
        return {1: 0, 2: 1, 3: salt + AESGCM(key).encrypt(bytes(12), self.data_key, self.backup)}

    def record(self, manifest: dict[int, Any]) -> dict[int, Any]:
        facts: dict[int, Any] = {
            1: self.backup,
            2: bytes(16),
            3: "acme",
            4: "shop",
            5: "pg",
            6: "first",
            8: {},
            9: "e",
            10: "m",
        }
        facts |= {11: "full", 12: "x@1", 13: DIGEST_OF_NOTHING, 14: 1, 15: 2, 16: 3}
        return facts | {17: manifest[11], 18: manifest[12], 19: 0, 21: [], 22: [], 23: [], 24: "here", 25: []}

    def head(self, changes: dict[int, Any] | None = None, records: list[Any] | None = None) -> None:
        clear = {
            1: self.heads,
            3: 0,
            4: bytes(16),
            5: 0,
            6: 0,
            7: 0,
            8: False,
            9: [],
            10: [],
            11: [],
            12: 1,
            13: [],
            14: [],
        }
        clear |= {2: self.previous} if self.previous else {}
        path = f"{self.folder}/heads/{self.heads:016x}"
        sealed = encode({1: records or [], 2: []})
        raw = self.envelope(path, HEAD, clear | (changes or {}), self.index_key, sealed)
        self.heads, self.previous = self.heads + 1, self.put(path, raw)[2]


def items(leaves: list[tuple[bytes, int]], sized: bool) -> bytes:
    return b"".join(hashed + (struct.pack("<Q", size) if sized else b"") for hashed, size in leaves)


class Checks(unittest.TestCase):
    """Each check has a directory with a repository, in which it looks, and one for what is extracted."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.root = Path(directory.name)
        self.out = self.root / "outside" / "out"
        self.out.parent.mkdir()
        self.writer = Writer(self.root / "target")

    def extract(self) -> Path:
        repository = reader.Repository(reader.Target(self.writer.root), self.writer.kit())
        reader.extract(repository.find("acme/shop/pg/first"), self.out)
        return self.out

    def refuse(self, words: str) -> None:
        with self.assertRaisesRegex(reader.Refused, words):
            self.extract()
        self.assertEqual(list(self.out.parent.iterdir()), [], "something was written")

    def test_a_small_backup(self) -> None:
        self.writer.inline("a/b", b"content")
        self.writer.commit()
        file = self.extract() / "a" / "b"
        self.assertEqual(file.read_bytes(), b"content")
        self.assertEqual((file.stat().st_mode & 0o777, file.stat().st_mtime), (0o600, 1))

    def test_entries_of_every_shape(self) -> None:
        pages = [bytes([number % 251]) * 16 for number in range(1024 * 3)]
        self.writer.file("pages", [*pages, b"last"], page=8, fan=1024)
        pieces = [bytes([number % 7]) * (1 + number % 5) for number in range(5000)]
        self.writer.file("bytes", pieces)
        self.writer.inline("empty", b"")
        self.writer.entries.append({1: "folder", 2: 1, 4: 0o500, 5: 7, 11: {}})
        self.writer.inline("folder/file", b"x")
        for number in range(100):
            self.writer.inline(f"many/{number}", str(number).encode())
        self.assertEqual({entry.get(9) for entry in self.writer.entries}, {None, 1, 2})
        self.writer.commit()
        out = self.extract()
        self.assertEqual((out / "pages").read_bytes(), b"".join(pages) + b"last")
        self.assertEqual((out / "bytes").read_bytes(), b"".join(pieces))
        self.assertEqual((out / "empty").read_bytes(), b"")
        self.assertEqual(((out / "folder").stat().st_mode & 0o777, (out / "folder").stat().st_mtime), (0o500, 7))
        self.assertEqual({int(file.read_bytes()) for file in (out / "many").iterdir()}, set(range(100)))

    def test_deltas_to_their_greatest_depth(self) -> None:
        self.delta_chain(8)
        self.assertEqual((self.extract() / "file").read_bytes(), b"".join(self.versions))

    def test_a_deeper_delta_is_refused(self) -> None:
        self.delta_chain(9)
        self.refuse("depth does not fit")

    def delta_chain(self, depth: int) -> None:
        self.versions = [os.urandom(4096)]
        hashes = [self.writer.chunk(self.versions[0], self.writer.data)]
        for number in range(depth):
            self.versions.append(self.versions[-1][:-1] + bytes([number]))
            hashes.append(self.writer.chunk(self.versions[-1], self.writer.data, hashes[-1]))
        self.writer.file("file", self.versions, page=4096, hashes=hashes)
        self.writer.commit()

    def test_deltas_that_the_common_compressor_made(self) -> None:
        """Frames of the zstd library with `ZSTD_CCtx_refPrefix`: one tells its length, one does not."""
        for begin, frames in FRAMES.items():
            base = bytearray(pseudorandom(65536))
            base[: len(begin)] = begin
            content = bytearray(base)
            for place in range(0, 65536, 8192):
                content[place] ^= 1
            content += b"more"
            for frame in map(bytes.fromhex, frames):
                self.assertEqual(reader.decompress(frame, len(content), bytes(base)), content)
                for length in (len(content) - 1, len(content) + 1, 0):
                    with self.assertRaises(reader.Refused):
                        reader.decompress(frame, length, bytes(base))
                with self.assertRaises(reader.Refused):
                    reader.decompress(frame + b"x", len(content), bytes(base))

    def test_patches_tell_what_differs(self) -> None:
        base = pseudorandom(1000)
        plain = bytearray(base) + b"grown"
        plain[3:6], plain[300:301] = b"new", b"x"
        new = b"newxgrown"
        places = bytes([3, 3, 0xA6, 2, 1, 0xBB, 5, 5])
        body = patch(places, new, base + base[3:6] + base[300:301])
        self.assertEqual(reader.patched(body, 1005, base), plain)
        self.assertEqual(reader.patched(patch(b"", b"", base), 900, base), base[:900])
        self.assertEqual(reader.patched(patch(b"", b"", base), 1002, base), base + bytes(2))
        for wrong in (
            body[:3],
            body + b"x",
            struct.pack("<I", len(body)) + body[4:],
            patch(places[:-1], new, base),
            patch(bytes([3, 0]), b"", base),
            patch(bytes([3, 3, 0, 1]), b"newx", base),
            patch(bytes([3, 3, 0xA6, 2, 1, 0xBB, 5, 6]), new + b"x", base),
            patch(bytes([0x80, 0x80, 0x80, 0x80, 0, 1]), b"n", base),
            patch(bytes([1, 1] * 253), bytes(253), base),
            patch(places, new + b"x", base),
        ):
            with self.assertRaises(reader.Refused):
                reader.patched(wrong, 1005, base)

    def test_a_delta_to_the_wrong_base_is_refused(self) -> None:
        first, other = (self.writer.chunk(os.urandom(4096), self.writer.data) for _ in range(2))
        content = self.writer.plain[first][:-1] + b"x"
        hashed = self.writer.chunk(content, self.writer.data, first)
        sealed, depth, _ = self.writer.chunks[reader.chunk_id(hashed)]
        self.writer.chunks[reader.chunk_id(hashed)] = (sealed, depth, reader.chunk_id(other))
        self.writer.file("file", [content], page=4096, hashes=[hashed])
        self.writer.commit()
        self.refuse("its base is not the one")

    def test_a_seal_does_not_stand_for_the_hash(self) -> None:
        right, wrong = b"right" * 200, b"wrong" * 200
        hashed = self.writer.chunk(right, self.writer.data)
        identity = reader.chunk_id(hashed)
        body = struct.pack("<BI", 0, len(wrong)) + wrong
        sealed = bytes(12) + AESGCM(reader.chunk_key(hashed)).encrypt(bytes(12), body, b"holdfast v1 chunk" + identity)
        self.writer.chunks[identity] = (sealed, 0, None)
        self.writer.file("file", [right], hashes=[hashed])
        self.writer.commit()
        self.refuse("its hash is wrong")

    def test_nothing_leaves_the_output_directory(self) -> None:
        for path in ("../x", "/x", "a/../../x", "a//x", "./x", "x/", "", "x\0", "a" * 4097):
            with self.subTest(path=path):
                self.writer = Writer(self.root / f"target-{len(path)}-{hash(path)}")
                self.writer.inline(path, b"x")
                self.writer.commit()
                self.refuse("path")

    def test_links_are_kept_and_never_followed(self) -> None:
        self.writer.entries.append({1: "link", 2: 2, 4: 0o777, 5: 1, 11: {}, 12: str(self.out.parent)})
        self.writer.commit()
        self.assertEqual(os.readlink(self.extract() / "link"), str(self.out.parent))

    def test_nothing_is_written_below_a_link(self) -> None:
        self.writer.entries.append({1: "link", 2: 2, 4: 0o777, 5: 1, 11: {}, 12: str(self.out.parent)})
        self.writer.inline("link/x", b"x")
        self.writer.commit()
        self.refuse("no directory")

    def test_entries_have_the_fields_of_their_kind(self) -> None:
        for field, value in ((2, 3), (2, 1), (3, 2), (6, 0), (7, 8), (9, 0), (12, "x")):
            with self.subTest(field=field, value=value):
                self.writer = Writer(self.root / f"target-{field}-{value}")
                self.writer.inline("a", b"x")
                self.writer.entries[0][field] = value
                self.writer.commit()
                self.refuse("entry 'a'")

    def test_chunks_that_refs_leave_out_are_noticed(self) -> None:
        """They would be pruned away."""
        self.writer.file("a", [b"first" * 200])
        add = self.writer.add
        header = encode({2: 0, 3: 0, 4: 0})
        refs = struct.pack("<I", len(header)) + header
        self.writer.add = lambda name, *rest: add(name, *rest[:3], refs if name == "refs.0" else rest[3])  # type: ignore
        self.writer.commit()
        self.refuse("refs: 2 chunks")

    def test_totals_are_compared(self) -> None:
        self.writer.inline("a", b"x")
        self.writer.commit(m11=2)
        self.refuse("the table holds 1 entries")

    def test_heads_are_a_chain_without_gaps(self) -> None:
        self.writer.inline("a", b"x")
        self.writer.commit()
        for _ in range(3):
            self.writer.head()
        heads = self.writer.root / self.writer.folder / "heads"
        second = (heads / f"{1:016x}").read_bytes()
        (heads / f"{1:016x}").unlink()
        self.refuse("gap")
        (heads / f"{1:016x}").write_bytes((heads / f"{2:016x}").read_bytes())
        self.refuse("its signature is wrong")
        # Signed for its place, but it follows another head than the one before it.
        self.writer.heads, self.writer.previous = 1, bytes(32)
        self.writer.head()
        self.refuse("does not follow")
        (heads / f"{1:016x}").write_bytes(second)
        self.extract()

    def test_a_checkpoint_stands_for_all_before_it(self) -> None:
        self.writer.inline("a", b"x")
        self.writer.commit()
        self.writer.head({14: [self.writer.backup]})
        self.refuse("there is no backup")
        manifest = {11: 1, 12: 1}
        repeated = {8: True, 9: self.writer.objects, 13: [[self.writer.backup, self.writer.indexes, 1]]}
        self.writer.head(repeated, [self.writer.record(manifest)])
        self.assertEqual((self.extract() / "a").read_bytes(), b"x")

    def test_a_checkpoint_leaves_nothing_out(self) -> None:
        self.writer.inline("a", b"x")
        self.writer.commit()
        self.writer.head({8: True, 9: self.writer.objects[1:]})
        self.refuse("leaves out")

    def test_condemned_packs_do_not_count(self) -> None:
        self.writer.file("file", [os.urandom(1000)])
        self.writer.commit()
        pack = next(digest for path, _, digest in self.writer.objects if "/packs/" in path)
        self.writer.head({10: [[pack, 1]]})
        self.refuse("is in no index")

    def test_condemned_indexes_do_not_count_and_may_be_gone(self) -> None:
        self.writer.file("file", [os.urandom(1000)])
        self.writer.commit()
        path, index = next((path, digest) for path, _, digest in self.writer.objects if "/indexes/" in path)
        self.writer.head({10: [[index, 1]]})
        (self.writer.root / path).unlink()
        self.refuse("is in no index")

    def test_what_is_removed_is_condemned_no_more(self) -> None:
        self.writer.inline("a", b"x")
        self.writer.commit()
        path, length, manifest = next(found for found in self.writer.objects if found[0].endswith("/manifest"))
        self.writer.head({10: [[manifest, 1]], 11: [path]})
        self.writer.head({9: [[path, length, manifest]]})
        self.assertEqual((self.extract() / "a").read_bytes(), b"x")

    def test_unknown_features_are_refused(self) -> None:
        for field, value, words in (
            (6, 4, "unknown features"),
            (12, 2, "needs generation 2"),
            (99, 0, "unknown key 99"),
        ):
            with self.subTest(words=words):
                self.writer = Writer(self.root / words)
                self.writer.inline("a", b"x")
                self.writer.commit()
                self.writer.head({field: value})
                self.refuse(words)

    def test_an_old_kit_pins_what_its_key_led_to(self) -> None:
        self.writer.inline("a", b"x")
        self.writer.commit()
        self.writer.rotate()
        self.writer.rotate()
        self.writer.keyring(2)
        self.writer.head({12: 2})
        self.assertEqual((self.extract() / "a").read_bytes(), b"x")

    def test_a_stranger_s_keyring_is_passed_over(self) -> None:
        self.writer.inline("a", b"x")
        self.writer.commit()
        self.writer.seed = os.urandom(32)
        self.writer.keyring(2)
        self.extract()
        self.writer.head()
        self.out = self.out.parent.parent / "elsewhere" / "out"
        self.out.parent.mkdir()
        self.refuse("its signature is wrong")

    def test_a_slot_for_the_kit_s_own_recipient(self) -> None:
        wrapped = pyrage.encrypt(self.writer.data_key, [self.writer.identity.to_public()])
        self.writer.slot = lambda: {1: 1, 3: wrapped, 4: str(self.writer.identity.to_public())}  # type: ignore
        self.writer.inline("a", b"x")
        self.writer.commit()
        self.assertEqual((self.extract() / "a").read_bytes(), b"x")

    def test_every_flipped_byte_is_refused(self) -> None:
        self.writer.inline("a", b"x")
        self.writer.file("b", [bytes(600)])
        self.writer.commit()
        for path in sorted(self.writer.root.rglob("*")):
            if not path.is_file() or path.name == "alice.key":
                continue
            sound = path.read_bytes()
            for place in range(len(sound)):
                path.write_bytes(sound[:place] + bytes([sound[place] ^ 1 << place % 8]) + sound[place + 1 :])
                with self.subTest(path=path.name, place=place):
                    self.refuse("")
            path.write_bytes(sound)
        self.extract()


if __name__ == "__main__":
    # What is said of good extractions would only stand in the way.
    unittest.main(buffer=True)
