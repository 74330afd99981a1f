#!/usr/bin/env python3
"""An independent reader of Holdfast's repository format, version 1.

It lists the backups of a repository and extracts one, from a local copy of a target, with nothing but a recovery kit.
It was written from host/repository/FORMAT.md alone and shares no code with Holdfast: what it reads, anybody can read.
The sections below are those of that page, whose words and numbers they use.

It refuses what it cannot prove: every object's signature is checked against the verify key pinned in the kit, every
object's length and digest against the chain of heads, every pack against its name and its own footer, every chunk by
its authenticated encryption and then by its hash, every total against the sum of its parts. A backup is extracted into
a temporary directory that becomes the output directory only once all of it is right: a damaged repository never leaves
a wrong byte, or a part of a backup, under the name that was asked for. Nothing is written outside of the output
directory: paths that lead out are refused, and links, which are kept as they were, are made last and never followed.

It needs Python 3.11 and the packages in reader-requirements.txt.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import shutil
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cbor2
import pyrage
import zstandard
from blake3 import blake3
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

KEYRING_SIGNATURE, PACK, INDEX, MANIFEST, REFS, KEYS, HEAD = range(1, 8)
FRAME = 256 * 1024
TAG = 16
PLAIN_LIMIT = 16 * 1024 * 1024
DEPTH_LIMIT = 8
LIST_ITEMS = 1024
NO_BASE = 0xFFFF_FFFF
LEVEL_LIMIT = 8
PATH_LIMIT = 4096
KNOWN_FEATURES = 0b11
RAW, ZSTD, PREFIXED, PATCH = range(4)
DELTAS = (PREFIXED, PATCH)
FILE, DIRECTORY, LINK = range(3)


class Refused(Exception):
    """What is in front of us is not what the format, a signature or a digest says it must be."""


def require(holds: object, complaint: str) -> None:
    """Refuses unless something holds."""
    if not holds:
        raise Refused(complaint)


@contextmanager
def named(name: str) -> Iterator[None]:
    """Puts the name of the object at hand before every refusal within."""
    try:
        yield
    except Refused as refusal:
        raise Refused(f"{name}: {refusal}") from refusal


# --- §1 Objects and where they lie ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """A local copy of a target."""

    root: Path

    def read(self, path: str) -> bytes:
        """The bytes of the object at a path."""
        require(not {"", ".", ".."} & set(path.split("/")), f"{path!r} is no path of an object")
        try:
            return (self.root / path).read_bytes()
        except OSError as error:
            raise Refused(f"{path} cannot be read: {error.strerror}") from error

    def names(self, folder: str) -> list[str]:
        """The names in a folder; none if there is no such folder."""
        try:
            return sorted(os.listdir(self.root / folder))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise Refused(f"{folder} cannot be listed: {error.strerror}") from error


# --- §2 The preamble, CBOR, the envelope ------------------------------------------------------------------------------

Check = Callable[[Any], Any]


def unsigned(value: Any) -> int:
    require(type(value) is int and 0 <= value < 1 << 64, "a number is not unsigned")
    return value


def signed(value: Any) -> int:
    require(type(value) is int and -(1 << 63) <= value < 1 << 63, "a number is not an integer")
    return value


def flag(value: Any) -> bool:
    require(type(value) is bool, "a flag is neither true nor false")
    return value


def text(value: Any) -> str:
    require(type(value) is str, "a text is none")
    return value


def data(value: Any) -> bytes:
    require(type(value) is bytes, "a byte string is none")
    return value


def bytes_of(length: int) -> Check:
    def check(value: Any) -> bytes:
        require(len(data(value)) == length, f"a byte string is not {length} bytes long")
        return value

    return check


def array(check: Check) -> Check:
    def items(value: Any) -> list[Any]:
        require(type(value) is list, "an array is none")
        return [check(item) for item in value]

    return items


def row(*checks: Check) -> Check:
    def columns(value: Any) -> tuple[Any, ...]:
        require(type(value) is list and len(value) == len(checks), f"a row is not an array of {len(checks)}")
        return tuple(check(item) for check, item in zip(checks, value, strict=True))

    return columns


def texts_by_text(value: Any) -> dict[str, str]:
    require(type(value) is dict, "a map is none")
    return {text(key): text(item) for key, item in value.items()}


def structure(name: str, *fields: tuple[int, str, Check]) -> Check:
    """A map with integer keys. A name that ends in `?` may be absent, and is then None."""
    known = {key for key, _, _ in fields}

    def check(value: Any) -> SimpleNamespace:
        require(type(value) is dict, f"the {name} is not a map")
        for key in value:
            require(key in known or (type(key) is int and key >= 128), f"the {name} has an unknown key {key!r}")
        result = SimpleNamespace()
        for key, label, part in fields:
            require(key in value or label.endswith("?"), f"the {name} has no {label}")
            try:
                setattr(result, label.rstrip("?"), part(value[key]) if key in value else None)
            except Refused as refusal:
                raise Refused(f"{label.rstrip('?')} of the {name}: {refusal}") from refusal
        return result

    return check


identifier, digest, secret = bytes_of(16), bytes_of(32), bytes_of(32)


def decode_first(raw: bytes, start: int, shape: Check) -> tuple[SimpleNamespace, int]:
    """The structure that begins at `start`, and where it ends."""
    try:
        value = cbor2.CBORDecoder(io.BytesIO(raw[start:] if start else raw)).decode()
        # Only the deterministic encoding is the same again.
        again = cbor2.dumps(value, canonical=True)
    except (cbor2.CBORError, ValueError, TypeError, EOFError, OverflowError, MemoryError, RecursionError) as error:
        raise Refused(f"it is not CBOR: {error}") from error
    require(raw[start : start + len(again)] == again, "its CBOR is not deterministic")
    return shape(value), start + len(again)


def decode(raw: bytes, shape: Check) -> SimpleNamespace:
    """A structure that fills all the bytes."""
    value, end = decode_first(raw, 0, shape)
    require(end == len(raw), "bytes follow its CBOR")
    return value


def hkdf(key: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    return HKDF(algorithm=SHA256(), length=length, salt=salt, info=info).derive(key)


def verify(key: bytes, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except InvalidSignature:
        return False
    return True


def open_sealed(sealed: bytes, key: bytes, kind: int, bound: bytes) -> bytes:
    """The plaintext of a sealed part that is bound to what lies before it."""
    require(len(sealed) >= 64 + TAG, "its sealed part is cut short")
    salt, commitment, frames = sealed[:32], sealed[32:64], sealed[64:]
    derived = hkdf(key, salt, b"holdfast v1 seal" + bytes([kind]) + blake3(bound).digest(), 64)
    require(derived[32:] == commitment, "its sealed part is damaged, or sealed under another key")
    cipher, plain = AESGCM(derived[:32]), []
    for number, start in enumerate(range(0, len(frames), FRAME + TAG)):
        frame = frames[start : start + FRAME + TAG]
        # The last frame is always shorter: a part that ends with a whole one was cut.
        last = len(frame) < FRAME + TAG
        nonce = struct.pack(">B3xQ", last, number)
        try:
            plain.append(cipher.decrypt(nonce, frame, None))
        except (InvalidTag, ValueError) as error:
            raise Refused(f"frame {number} of its sealed part is damaged") from error
    require(last, "its sealed part is cut short")
    return b"".join(plain)


def check_preamble(raw: bytes, kind: int) -> None:
    require(raw[:4] == b"HFST", "it does not begin as an object of Holdfast")
    require(raw[4:6] == bytes([kind, 1]), f"it is kind {raw[4]}, version {raw[5]}, not kind {kind}, version 1")
    require(raw[6:8] == b"\0\0", "its preamble is damaged")


@dataclass(frozen=True)
class Envelope:
    """An object of any kind but a pack, cut into its parts. Nothing in it is believed before its signature fits."""

    kind: int
    clear: bytes
    sealed: bytes
    before_seal: bytes
    before_signature: bytes
    signature: bytes

    @classmethod
    def parse(cls, raw: bytes, kind: int) -> Envelope:
        require(len(raw) >= 8 + 4 + 64, "it is cut short")
        check_preamble(raw, kind)
        end = 12 + struct.unpack_from("<I", raw, 8)[0]
        require(end + 64 <= len(raw), "it is cut short")
        return cls(kind, raw[12:end], raw[end:-64], raw[:end], raw[:-64], raw[-64:])

    def check_signature(self, keys: list[bytes], repository: bytes, path: str) -> None:
        place = struct.pack("<H", len(path.encode())) + path.encode()
        message = b"holdfast v1 signature\0" + repository + place + blake3(self.before_signature).digest()
        require(any(verify(key, self.signature, message) for key in keys), "its signature is wrong")

    def open(self, key: bytes) -> bytes:
        return open_sealed(self.sealed, key, self.kind, self.before_seal)


# --- §3 Chunks --------------------------------------------------------------------------------------------------------


def chunk_id(hashed: bytes) -> bytes:
    return blake3(hashed, derive_key_context="holdfast v1 2026-11 chunk id").digest()


def chunk_key(hashed: bytes) -> bytes:
    return blake3(hashed, derive_key_context="holdfast v1 2026-11 chunk key").digest()


def decompress(frame: bytes, length: int, prefix: bytes | None) -> bytes:
    """One zstd frame of a known plain length, made with a prefix or without."""
    plain = decompress_within(frame, length, prefix)
    require(len(plain) == length, "its frame has another length than its chunk")
    return plain


def decompress_within(frame: bytes, limit: int, prefix: bytes | None) -> bytes:
    """One zstd frame of at most so many plain bytes."""
    dictionary = None
    if prefix is not None:
        dictionary = zstandard.ZstdCompressionDict(prefix, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    try:
        told = zstandard.frame_content_size(frame)
        require(told <= limit, "its frame is longer than its chunk allows")
        decompressor = zstandard.ZstdDecompressor(dict_data=dictionary)
        if told == 0:
            # The function for whole frames looks no further than at this length.
            nothing = decompressor.decompressobj()
            require(nothing.decompress(frame) == b"" and nothing.eof and not nothing.unused_data, "its frame lies")
            return b""
        plain = decompressor.decompress(frame, max_output_size=max(limit, 1), allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise Refused(f"it cannot be decompressed: {error}") from error
    require(len(plain) <= limit, "its frame is longer than its chunk allows")
    return plain


def patched(body: bytes, length: int, base: bytes) -> bytes:
    """What a base becomes by the frames of a patch."""
    require(len(body) >= 4, "it is cut short")
    (first,) = struct.unpack_from("<I", body)
    require(first <= len(body) - 4, "it is cut short")
    places = list(read_places(decompress_within(body[4 : 4 + first], length // 2 + 2, None), length))
    old = b"".join(base[start:end] for start, end in places)
    new = decompress(body[4 + first :], sum(end - start for start, end in places), base + old)
    plain, source = bytearray(base[:length].ljust(length, b"\0")), io.BytesIO(new)
    for start, end in places:
        plain[start:end] = source.read(end - start)
    return bytes(plain)


def read_places(encoded: bytes, length: int) -> Iterator[tuple[int, int]]:
    """Where a patch differs from its base: the start and end of each place."""
    numbers, number, group = [], 0, 0
    for byte in encoded:
        number |= (byte & 0x7F) << (7 * group)
        group += 1
        require(byte < 0x80 or group < 4, "a number of its places is too long")
        if byte < 0x80:
            numbers.append(number)
            number, group = 0, 0
    require(group == 0 and len(numbers) % 2 == 0, "its places are cut short")
    end = 0
    for skipped, size in zip(numbers[::2], numbers[1::2]):
        require(skipped > 0 or end == 0, "one of its places is a part of the one before")
        start, end = end + skipped, end + skipped + size
        require(start < end <= length, "one of its places is empty or beyond its end")
        yield start, end


# --- §4, §5 Packs and indexes -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """Where a sealed chunk lies."""

    pack: bytes
    offset: int
    length: int
    depth: int
    base: bytes | None


def split(raw: bytes, width: int) -> list[bytes]:
    return [raw[start : start + width] for start in range(0, len(raw), width)]


def read_records(raw: bytes, packs: list[bytes], bases: list[bytes]) -> Iterator[tuple[bytes, Place]]:
    for identity, pack, offset, length, base in struct.iter_unpack("<32sIIII", raw):
        require(pack < len(packs), "a record numbers a pack that is not in the table")
        require(base == NO_BASE or base < len(bases), "a record numbers a base that is not in the table")
        depth = length >> 24
        require(depth <= DEPTH_LIMIT and (depth == 0) == (base == NO_BASE), "a record's depth does not fit its base")
        yield identity, Place(packs[pack], offset, length & 0xFF_FFFF, depth, None if base == NO_BASE else bases[base])


def read_pack(raw: bytes, name: bytes, index_key: bytes) -> dict[bytes, Place]:
    """What the footer of a pack says of its chunks."""
    require(blake3(raw).digest() == name, "its bytes are not those that it is named by")
    check_preamble(raw, PACK)
    require(len(raw) >= 12, "it is cut short")
    start = len(raw) - 4 - struct.unpack("<I", raw[-4:])[0]
    require(start >= 8, "its footer is longer than the pack")
    footer = open_sealed(raw[start:-4], index_key, PACK, raw[:8])
    require(len(footer) >= 8, "its footer is cut short")
    count, bases = struct.unpack_from("<II", footer)
    require(len(footer) == 8 + 32 * bases + 48 * count, "its footer's counts do not fit")
    records = list(read_records(footer[8 + 32 * bases :], [name], split(footer[8 : 8 + 32 * bases], 32)))
    end = 8
    for _, place in records:
        require(place.offset == end, "its chunks do not lie back to back")
        end += place.length
    require(end == start, "its chunks do not fill it")
    return dict(records)


def read_header(plain: bytes, shape: Check) -> tuple[SimpleNamespace, int]:
    """The header that binary sealed parts begin with, and where it ends."""
    require(len(plain) >= 4, "it is cut short")
    end = 4 + struct.unpack_from("<I", plain)[0]
    return decode(plain[4:end], shape), end


INDEX_CLEAR = structure("index", (1, "domain", identifier))
INDEX_HEADER = structure(
    "header", (1, "packs", unsigned), (2, "bases", unsigned), (3, "records", unsigned), (4, "supersedes", array(digest))
)  # fmt: skip


def read_index(plain: bytes) -> list[tuple[bytes, Place]]:
    header, tables = read_header(plain, INDEX_HEADER)
    bases, records = tables + 32 * header.packs, tables + 32 * (header.packs + header.bases)
    require(len(plain) == records + 48 * header.records, "its counts do not fit")
    found = list(read_records(plain[records:], split(plain[tables:bases], 32), split(plain[bases:records], 32)))
    require(all(a[0] <= b[0] for a, b in pairwise(found)), "its records are not sorted")
    return found


# --- §6 Entries, the manifest, refs, keys -----------------------------------------------------------------------------

ENTRY = structure(
    "entry", (1, "path", text), (2, "kind", unsigned), (3, "size?", unsigned), (4, "mode", unsigned),
    (5, "modified", signed), (6, "page_size?", unsigned), (7, "chunk_size?", unsigned), (8, "inline?", data),
    (9, "level?", unsigned), (10, "root?", data), (11, "annotations", texts_by_text), (12, "link?", text),
)  # fmt: skip


def check_entry(entry: SimpleNamespace) -> None:
    """Refuses an entry that has not exactly the fields of its kind."""
    tree = [field is not None for field in (entry.page_size, entry.level, entry.root)]
    if entry.kind == FILE:
        require(entry.size is not None and entry.link is None, "it is a file with other fields")
        require(
            any(tree) != (entry.inline is not None) and any(tree) == all(tree), "its content is not told in one way"
        )
        require(bool(entry.page_size) == (entry.chunk_size is not None), "its class and chunk size do not fit")
        return
    require(entry.kind in (DIRECTORY, LINK), f"its kind {entry.kind} is unknown")
    content = (entry.size, entry.inline, entry.chunk_size)
    require(not any(tree) and content == (None, None, None), "it has content and is no file")
    require((entry.kind == LINK) == bool(entry.link), "it is a link without a target, or no link with one")


BACKUP_CLEAR = structure("clear part", (1, "domain", identifier), (2, "backup", identifier))

MANIFEST_SEALED = structure(
    "manifest", (1, "backup", identifier), (2, "domain", identifier), (3, "secrets", row(secret, secret, secret)),
    (4, "index_key", secret), (5, "plugin", text), (6, "component", digest), (7, "method", text), (8, "type", text),
    (9, "document", text), (10, "table", row(unsigned, data, unsigned)), (11, "entries", unsigned),
    (12, "logical_bytes", unsigned), (13, "parent?", identifier), (14, "engine", text), (15, "started", unsigned),
    (16, "finished", unsigned), (17, "indexes", array(digest)),
)  # fmt: skip

REFS_HEADER = structure(
    "header", (1, "parent?", identifier), (2, "added", unsigned), (3, "adopted", unsigned), (4, "dropped", unsigned)
)  # fmt: skip

SLOT = structure(
    "slot", (1, "kind", unsigned), (2, "version?", unsigned), (3, "wrapped", data), (4, "recipient?", text)
)  # fmt: skip
KEYS_CLEAR = structure(
    "clear part", (1, "domain", identifier), (2, "backup", identifier), (3, "generation", unsigned),
    (4, "slots", array(SLOT)),
)  # fmt: skip


def unwrap(slot: SimpleNamespace, organization_keys: dict[int, bytes], backup: bytes, kit: Kit) -> bytes | None:
    """The data key in a slot, if we hold what opens it."""
    if slot.kind == 1:
        try:
            return pyrage.decrypt(slot.wrapped, [kit.identity])
        except pyrage.DecryptError:
            return None
    if slot.kind != 0 or slot.version not in organization_keys:
        return None
    key = hkdf(organization_keys[slot.version], slot.wrapped[:32], b"holdfast v1 slot", 32)
    try:
        return AESGCM(key).decrypt(bytes(12), slot.wrapped[32:], backup)
    except (InvalidTag, ValueError) as error:
        raise Refused("the data key's slot is damaged") from error


# --- §7 The keyring ---------------------------------------------------------------------------------------------------

FORMER_KEYS = array(row(bytes_of(32), bytes_of(64)))
DOMAIN = structure(
    "domain", (1, "id", identifier), (2, "kind", unsigned), (3, "organization?", text), (4, "data_secret", secret),
    (5, "list_secret", secret), (6, "table_secret", secret), (7, "index_key", secret), (8, "chunker_seed", unsigned),
    (9, "organization_keys", array(row(unsigned, secret))),
)  # fmt: skip
RECIPIENT = structure("recipient", (1, "name", text), (2, "recipient", text), (3, "added", unsigned))
KEYRING = structure(
    "keyring", (1, "repository", identifier), (2, "generation", unsigned), (3, "signing_key", secret),
    (4, "former_keys", FORMER_KEYS), (5, "domains", array(DOMAIN)), (6, "catalog_key", secret),
    (7, "recipients", array(RECIPIENT)),
)  # fmt: skip
KEYRING_CLEAR = structure(
    "signature", (1, "generation", unsigned), (2, "digest", digest), (3, "length", unsigned),
    (4, "verify_key", bytes_of(32)), (5, "former_keys", FORMER_KEYS),
)  # fmt: skip


@dataclass(frozen=True)
class Kit:
    """A recovery kit: an age identity, and what its comment lines pin."""

    identity: pyrage.x25519.Identity
    repository: bytes
    verify_key: bytes

    @classmethod
    def load(cls, path: Path) -> Kit:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        comments = (line.lstrip("# ").partition(":") for line in lines if line.startswith("#"))
        pins = {key: value.strip() for key, _, value in comments}
        secrets = [line for line in lines if line.startswith("AGE-SECRET-KEY-1")]
        require(len(secrets) == 1, f"{path} does not hold one age identity")
        require("repository" in pins and "verify-key" in pins, f"{path} does not pin a repository and its verify key")
        try:
            repository, key = bytes.fromhex(pins["repository"]), bytes.fromhex(pins["verify-key"])
            return cls(pyrage.x25519.Identity.from_str(secrets[0]), identifier(repository), bytes_of(32)(key))
        except (ValueError, pyrage.IdentityError) as error:
            raise Refused(f"{path} is damaged: {error}") from error


def is_reached(pinned: bytes, clear: SimpleNamespace, repository: bytes) -> bool:
    """Whether signatures lead from the pinned verify key to the one that signs now."""
    chain = [*clear.former_keys, (clear.verify_key, None)]
    for (key, signature), (following, _) in pairwise(chain):
        require(
            verify(key, signature, b"holdfast v1 next key" + repository + following), "its former keys are no chain"
        )
    return pinned in (key for key, _ in chain)


def read_keyring(target: Target, kit: Kit) -> tuple[SimpleNamespace, list[bytes]]:
    """The current keyring, and the verify keys that objects may be signed by."""
    names = (re.fullmatch(r"(0|[1-9][0-9]*)\.sig", name) for name in target.names("keyring"))
    generations = sorted((int(name[1]) for name in names if name), reverse=True)
    for generation in generations:
        try:
            signature, sealed = read_published(target, kit, generation)
        except Refused as refusal:
            # What is not signed is nobody's. Should it be ours, and damaged: heads say which generation they need.
            print(f"reader.py: passed over: {refusal}", file=sys.stderr)
        else:
            with named(f"keyring/{generation}.age"):
                verify_keys = [*(key for key, _ in signature.former_keys), signature.verify_key]
                return open_keyring(sealed, signature, kit), verify_keys
    raise Refused("keyring/: there is no keyring that is signed by the key that the kit pins")


def read_published(target: Target, kit: Kit, generation: int) -> tuple[SimpleNamespace, bytes]:
    """What is signed of a generation, and its age file, which is the one that was signed."""
    path = f"keyring/{generation}.sig"
    with named(path):
        envelope = Envelope.parse(target.read(path), KEYRING_SIGNATURE)
        clear = decode(envelope.clear, KEYRING_CLEAR)
        require(is_reached(kit.verify_key, clear, kit.repository), "its key is not the one that the kit pins")
        envelope.check_signature([clear.verify_key], kit.repository, path)
        require(clear.generation == generation and not envelope.sealed, "it is something else")
    path = f"keyring/{generation}.age"
    with named(path):
        sealed = target.read(path)
        require(
            (len(sealed), blake3(sealed).digest()) == (clear.length, clear.digest), "its bytes are not those signed"
        )
    return clear, sealed


def open_keyring(sealed: bytes, signature: SimpleNamespace, kit: Kit) -> SimpleNamespace:
    try:
        keyring = decode(pyrage.decrypt(sealed, [kit.identity]), KEYRING)
    except pyrage.DecryptError as error:
        raise Refused("the kit's identity does not open it") from error
    require(keyring.repository == kit.repository, "it is of another repository")
    require(keyring.generation == signature.generation, "it is of another generation")
    signing = Ed25519PrivateKey.from_private_bytes(keyring.signing_key).public_key()
    require(signing.public_bytes(Encoding.Raw, PublicFormat.Raw) == signature.verify_key, "its signing key is another")
    require(keyring.former_keys == signature.former_keys, "its former keys are others")
    return keyring


# --- §8 Heads ---------------------------------------------------------------------------------------------------------

HEAD_CLEAR = structure(
    "head", (1, "sequence", unsigned), (2, "previous?", digest), (3, "epoch", unsigned), (4, "writer", identifier),
    (5, "written", unsigned), (6, "incompatible", unsigned), (7, "compatible", unsigned), (8, "checkpoint", flag),
    (9, "added", array(row(text, unsigned, digest))), (10, "condemned", array(row(digest, unsigned))),
    (11, "removed", array(text)), (12, "keyring", unsigned),
    (13, "backups", array(row(identifier, array(digest), unsigned))), (14, "backups_removed", array(identifier)),
)  # fmt: skip

BACKUP_RECORD = structure(
    "backup record", (1, "backup", identifier), (2, "instance_id", identifier), (3, "organization", text),
    (4, "project", text), (5, "instance", text), (6, "name", text), (7, "description?", text),
    (8, "labels", texts_by_text), (9, "engine", text), (10, "method", text), (11, "type", text), (12, "plugin", text),
    (13, "component", digest), (14, "created", unsigned), (15, "started", unsigned), (16, "finished", unsigned),
    (17, "entries", unsigned), (18, "logical_bytes", unsigned), (19, "stored_bytes", unsigned),
    (20, "parent?", identifier), (21, "warnings", array(text)), (22, "holds", array(row(text, text, unsigned))),
    (23, "verifications", array(row(text, text, unsigned, flag, text))), (24, "site", text),
    (25, "losses", array(text)),
)  # fmt: skip

# What a backup record says as the manifest does.
REPEATED = (
    "engine",
    "method",
    "type",
    "plugin",
    "component",
    "started",
    "finished",
    "entries",
    "logical_bytes",
    "parent",
)
HEAD_SEALED = structure(
    "directory's change", (1, "records", array(BACKUP_RECORD)), (2, "deleted", array(row(identifier, unsigned)))
)  # fmt: skip


@dataclass
class State:
    """What a domain holds at the target after its heads up to one."""

    objects: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    condemned: dict[bytes, int] = field(default_factory=dict)
    backups: dict[bytes, tuple[list[bytes], int]] = field(default_factory=dict)
    records: dict[bytes, SimpleNamespace] = field(default_factory=dict)

    def apply(self, head: SimpleNamespace, change: SimpleNamespace) -> None:
        if head.checkpoint:
            objects = set(self.objects) - set(head.removed) - {path for path, _, _ in head.added}
            backups = set(self.backups) - set(head.backups_removed) - {backup for backup, _, _ in head.backups}
            require(not objects and not backups, "it is a checkpoint and leaves out what is present")
            self.objects, self.condemned, self.backups, self.records = {}, {}, {}, {}
        self.objects |= {path: (length, digested) for path, length, digested in head.added}
        self.condemned |= dict(head.condemned)
        for path in head.removed:
            _, digested = self.objects.pop(path, (0, b""))
            self.condemned.pop(digested, None)
        self.backups |= {backup: (indexes, generation) for backup, indexes, generation in head.backups}
        self.records |= {record.backup: record for record in change.records}
        for backup in head.backups_removed:
            self.backups.pop(backup, None)
            self.records.pop(backup, None)
        require(self.backups.keys() == self.records.keys(), "its backups and their records do not match")


class Domain:
    """One domain at the target: its chain of heads, applied, and from there down to the bytes of an entry."""

    def __init__(
        self, target: Target, kit: Kit, keyring: SimpleNamespace, verify_keys: list[bytes], keys: SimpleNamespace
    ) -> None:
        self.target, self.kit, self.keyring, self.verify_keys, self.keys = target, kit, keyring, verify_keys, keys
        self.root = f"domains/{keys.id.hex()}"
        self.state = State()
        self.newest: tuple[SimpleNamespace, bytes] | None = None
        self.places: dict[bytes, Place] = {}
        self.packs: dict[bytes, dict[bytes, Place]] = {}
        self._follow_heads()

    def _follow_heads(self) -> None:
        names = self.target.names(f"{self.root}/heads")
        gapless = [f"{sequence:016x}" for sequence in range(len(names))]
        require(names == gapless, f"{self.root}/heads: the chain of heads has a gap")
        for sequence, name in enumerate(names):
            path = f"{self.root}/heads/{name}"
            with named(path):
                raw = self.target.read(path)
                envelope = Envelope.parse(raw, HEAD)
                envelope.check_signature(self.verify_keys, self.kit.repository, path)
                head = decode(envelope.clear, HEAD_CLEAR)
                self._check_head(head, sequence)
                self.state.apply(head, decode(envelope.open(self.keys.index_key), HEAD_SEALED))
                self.newest = (head, blake3(raw).digest())

    def _check_head(self, head: SimpleNamespace, sequence: int) -> None:
        before, digest_before = self.newest or (None, None)
        require(head.sequence == sequence, "it is another head")
        require(head.previous == digest_before, "it does not follow the head before it")
        require(before is None or head.epoch >= before.epoch, "its epoch is below that of the head before it")
        require(not head.incompatible & ~KNOWN_FEATURES, f"it needs unknown features ({head.incompatible:#x})")
        have = self.keyring.generation
        require(head.keyring <= have, f"it needs generation {head.keyring} of the keyring, and {have} is what is here")

    def read(self, path: str) -> bytes:
        """An object that the heads name, as they describe it."""
        require(path in self.state.objects, "no head names it")
        raw = self.target.read(path)
        require(
            (len(raw), blake3(raw).digest()) == self.state.objects[path], "its bytes are not those that the heads name"
        )
        return raw

    def open(self, path: str, kind: int, shape: Check, key: bytes | None, signed_path: str = "") -> tuple[Any, bytes]:
        """The clear part and the opened sealed part of an object that the heads name."""
        envelope = Envelope.parse(self.read(path), kind)
        envelope.check_signature(self.verify_keys, self.kit.repository, signed_path or path)
        clear = decode(envelope.clear, shape)
        require(clear.domain == self.keys.id, "it is of another domain")
        require(key is not None or not envelope.sealed, "it has a sealed part")
        return clear, envelope.open(key) if key is not None else b""

    def load_indexes(self) -> None:
        """Learns where the chunks are from all indexes that are present."""
        folder = f"{self.root}/indexes/"
        copies: dict[bytes, list[Place]] = {}
        for path, (_, digested) in self.state.objects.items():
            if not path.startswith(folder) or digested in self.state.condemned:
                continue
            with named(path):
                _, plain = self.open(path, INDEX, INDEX_CLEAR, self.keys.index_key, folder)
                require(path == folder + self.state.objects[path][1].hex(), "it is not named by its digest")
                for identity, place in read_index(plain):
                    if self.is_usable(place.pack):
                        copies.setdefault(identity, []).append(place)

        def is_whole(place: Place, bases: int = DEPTH_LIMIT) -> bool:
            below = copies.get(place.base, []) if place.base is not None else []
            return place.base is None or (bases > 0 and any(is_whole(copy, bases - 1) for copy in below))

        def rank(place: Place) -> tuple[bool, int]:
            return not is_whole(place), place.depth

        self.places = {identity: min(places, key=rank) for identity, places in copies.items()}

    def is_usable(self, pack: bytes) -> bool:
        return self.pack_path(pack) in self.state.objects and pack not in self.state.condemned

    def pack_path(self, pack: bytes) -> str:
        return f"{self.root}/packs/{pack.hex()[:2]}/{pack.hex()}"

    def chunk(self, hashed: bytes, key: bytes, depth: int = DEPTH_LIMIT) -> bytes:
        """The plaintext of a chunk, whose hash is keyed by the secret of its kind."""
        identity = chunk_id(hashed)
        require(identity in self.places, f"chunk {identity.hex()} is in no index")
        place = self.places[identity]
        with named(self.pack_path(place.pack)):
            sealed = self._sealed_chunk(identity, place)
        with named(f"{self.pack_path(place.pack)}, chunk {identity.hex()}"):
            try:
                body = AESGCM(chunk_key(hashed)).decrypt(sealed[:12], sealed[12:], b"holdfast v1 chunk" + identity)
            except (InvalidTag, ValueError) as error:
                raise Refused("it is damaged") from error
            plain = self._decode_chunk(body, place, depth)
            require(blake3(plain, key=key).digest() == hashed, "its hash is wrong")
        return plain

    def _decode_chunk(self, body: bytes, place: Place, depth: int) -> bytes:
        require(len(body) >= 5, "it is cut short")
        encoding, length = struct.unpack_from("<BI", body)
        require(length <= PLAIN_LIMIT, "it is too long")
        require((encoding in DELTAS) == (place.base is not None), "its encoding does not fit its record")
        if encoding == RAW:
            require(len(body) - 5 == length, "its length is wrong")
            return body[5:]
        if encoding == ZSTD:
            return decompress(body[5:], length, None)
        require(encoding in DELTAS, f"its encoding {encoding} is unknown")
        require(depth > 0, "it is too deep a delta")
        base = body[5:37]
        require(chunk_id(base) == place.base, "its base is not the one in its record")
        before = self.chunk(base, self.keys.data_secret, depth - 1)
        return patched(body[37:], length, before) if encoding == PATCH else decompress(body[37:], length, before)

    def _sealed_chunk(self, identity: bytes, place: Place) -> bytes:
        path = self.pack_path(place.pack)
        if place.pack not in self.packs:
            self.packs[place.pack] = read_pack(self.read(path), place.pack, self.keys.index_key)
        require(self.packs[place.pack].get(identity) == place, "the index and the pack's footer differ")
        with open(self.target.root / path, "rb") as pack:
            return os.pread(pack.fileno(), place.length, place.offset)


def check_shredded(target: Target, kit: Kit, generation: int, verify_keys: list[bytes], root: str) -> None:
    """A domain that the keyring does not know was shredded, and what is left of it is garbage: or the keyring is an old one."""
    for name in target.names(f"{root}/heads"):
        path = f"{root}/heads/{name}"
        with named(path):
            envelope = Envelope.parse(target.read(path), HEAD)
            envelope.check_signature(verify_keys, kit.repository, path)
            needed = decode(envelope.clear, HEAD_CLEAR).keyring
            require(needed <= generation, f"it needs generation {needed} of the keyring, and {generation} is here")
    print(f"reader.py: passed over: {root}: no keyring of now knows it, so it was shredded", file=sys.stderr)


class Backup:
    """One backup of a domain: its manifest, its entries, their bytes."""

    def __init__(self, domain: Domain, backup: bytes) -> None:
        self.domain, self.id, self.record = domain, backup, domain.state.records[backup]
        self.root = f"{domain.root}/backups/{backup.hex()}"
        self.used: set[bytes] = set()
        key = self._data_key()
        path = f"{self.root}/manifest"
        with named(path):
            _, plain = self._open(path, MANIFEST, BACKUP_CLEAR, key)
            self.manifest = decode(plain, MANIFEST_SEALED)
            self._check_manifest()
        self._check_component()

    def _open(self, path: str, kind: int, shape: Check, key: bytes | None) -> tuple[Any, bytes]:
        clear, plain = self.domain.open(path, kind, shape, key)
        require(clear.backup == self.id, "it is of another backup")
        return clear, plain

    def _data_key(self) -> bytes:
        _, generation = self.domain.state.backups[self.id]
        path = f"{self.root}/keys.{generation}"
        with named(path):
            clear, _ = self._open(path, KEYS, KEYS_CLEAR, None)
            require(clear.generation == generation, "it is of another generation")
            for slot in clear.slots:
                key = unwrap(slot, dict(self.domain.keys.organization_keys), self.id, self.domain.kit)
                if key is not None:
                    return secret(key)
            raise Refused("none of its slots opens with the keyring or the kit")

    def _check_manifest(self) -> None:
        manifest, keys, record = self.manifest, self.domain.keys, self.record
        require((manifest.backup, manifest.domain) == (self.id, keys.id), "it is of another backup")
        require(
            manifest.secrets == (keys.data_secret, keys.list_secret, keys.table_secret),
            "its secrets are not the domain's",
        )
        require(manifest.index_key == keys.index_key, "its index key is not the domain's")
        for fact in REPEATED:
            require(getattr(manifest, fact) == getattr(record, fact), f"its {fact} is not that of the head's record")
        indexes, _ = self.domain.state.backups[self.id]
        for index in indexes:
            require(f"{self.domain.root}/indexes/{index.hex()}" in self.domain.state.objects, "an index of it is gone")

    def _check_component(self) -> None:
        component = self.manifest.component
        if component == blake3(b"").digest():
            return
        path = f"plugins/{component.hex()}"
        with named(path):
            require(blake3(self.domain.read(path)).digest() == component, "it is not named by its digest")

    def entries(self) -> Iterator[SimpleNamespace]:
        """The table's records in their order, checked against the manifest's totals."""
        level, root, size = self.manifest.table
        previous, count, logical = b"", 0, 0
        for chunk in self._chunks(level, root, size, 0, 0, self.domain.keys.table_secret):
            start = 0
            while start < len(chunk):
                entry, start = decode_first(chunk, start, ENTRY)
                path = entry.path.encode()
                require(previous < path, "the entries are not sorted by their paths")
                previous, count, logical = path, count + 1, logical + (entry.size or 0)
                yield entry
        require(
            count == self.manifest.entries,
            f"the table holds {count} entries, the manifest tells of {self.manifest.entries}",
        )
        require(
            logical == self.manifest.logical_bytes, f"{logical} bytes are in entries, not {self.manifest.logical_bytes}"
        )

    def content(self, entry: SimpleNamespace) -> Iterator[bytes]:
        """The bytes of a file, chunk after chunk, each proved before it is handed out."""
        if entry.inline is not None:
            require(len(entry.inline) == entry.size, "its inline content has another size")
            yield entry.inline
            return
        chunk_size = entry.chunk_size or 0
        if entry.page_size:
            require(chunk_size > 0 and chunk_size % entry.page_size == 0, "its chunks are not whole pages")
        key = self.domain.keys.data_secret
        yield from self._chunks(entry.level, entry.root, entry.size, entry.page_size, chunk_size, key)

    def _chunks(self, level: int, root: bytes, size: int, page: int, chunk_size: int, key: bytes) -> Iterator[bytes]:
        """The chunks of a tree, whose sizes must be what the tree says and must add up."""
        require(level <= LEVEL_LIMIT and (size == 0) == (not root), "its tree does not fit its size")
        total = 0
        for hashed, expected in self._leaves(level, root, sized=page == 0):
            chunk = self._chunk(hashed, key)
            wanted = min(chunk_size, size - total) if expected is None else expected
            require(chunk and len(chunk) == wanted, "a chunk's size is not what the tree says")
            total += len(chunk)
            yield chunk
        require(total == size, f"its chunks are {total} bytes, not {size}")

    def _leaves(self, level: int, items: bytes, sized: bool, full: bool = False) -> Iterator[tuple[bytes, int | None]]:
        """The hashes at the foot of a tree, with the plain bytes below each where the class tells."""
        width = 40 if sized else 32
        require(len(items) % width == 0, "a list of chunks is cut short")
        require(not full or sized or len(items) == LIST_ITEMS * width, "a list of chunks within a tree is not full")
        for start in range(0, len(items), width):
            hashed = items[start : start + 32]
            below = struct.unpack_from("<Q", items, start + 32)[0] if sized else None
            if level == 0:
                yield hashed, below
                continue
            total = 0
            inner = full or start + width < len(items)
            for leaf in self._leaves(level - 1, self._chunk(hashed, self.domain.keys.list_secret), sized, inner):
                total += leaf[1] or 0
                yield leaf
            require(not sized or total == below, "a list of chunks does not add up")

    def _chunk(self, hashed: bytes, key: bytes) -> bytes:
        identity: bytes | None = chunk_id(hashed)
        plain = self.domain.chunk(hashed, key)
        while identity is not None:
            self.used.add(identity)
            identity = self.domain.places[identity].base
        return plain

    def check_refs(self) -> None:
        """Refuses unless the refs name every chunk that was read. Call when all entries were."""
        missing = self.used - self._held(self.id)
        require(not missing, f"{self.root}/refs: {len(missing)} chunks of the backup are not in them")

    def _held(self, backup: bytes) -> set[bytes]:
        root = f"{self.domain.root}/backups/{backup.hex()}/refs."
        parts = [path for path in self.domain.state.objects if path.startswith(root)]
        require(
            set(parts) == {f"{root}{number}" for number in range(len(parts))} and parts, f"{root}: a part is missing"
        )
        held: set[bytes] = set()
        dropped: set[bytes] = set()
        parents = set()
        for path in parts:
            with named(path):
                clear, plain = self.domain.open(path, REFS, BACKUP_CLEAR, self.domain.keys.index_key)
                require(clear.backup == backup, "it is of another backup")
                header, end = read_header(plain, REFS_HEADER)
                ids = split(plain[end:], 32)
                kept = header.added + header.adopted
                require(len(plain) == end + 32 * (kept + header.dropped), "its counts do not fit")
                for run in (ids[: header.added], ids[header.added : kept], ids[kept:]):
                    require(run == sorted(set(run)), "its ids are not sorted")
                held |= set(ids[:kept])
                dropped |= set(ids[kept:])
                parents.add(header.parent)
        for parent in parents - {None}:
            held |= self._held(parent) - dropped
        return held


# --- Listing and extracting -------------------------------------------------------------------------------------------


class Repository:
    """A repository at a target, opened with a recovery kit."""

    def __init__(self, target: Target, kit: Kit) -> None:
        with named("repository.json"):
            try:
                facts = json.loads(target.read("repository.json"))
            except ValueError as error:
                raise Refused(f"it is not JSON: {error}") from error
            require(type(facts) is dict and facts.get("magic") == "holdfast repository", "it is something else")
            require(facts.get("format") == 1, "its format is not 1")
            require(facts.get("id") == kit.repository.hex(), "it is not the repository that the kit pins")
            written = f'{{"magic":"holdfast repository","format":1,"id":"{kit.repository.hex()}"}}'
            require(target.read("repository.json") == written.encode(), "it has other bytes than were written")
        self.keyring, verify_keys = read_keyring(target, kit)
        known = {keys.id.hex() for keys in self.keyring.domains}
        for name in sorted(set(target.names("domains")) - known):
            check_shredded(target, kit, self.keyring.generation, verify_keys, f"domains/{name}")
        self.domains = [Domain(target, kit, self.keyring, verify_keys, keys) for keys in self.keyring.domains]

    def backups(self) -> Iterator[tuple[Domain, SimpleNamespace]]:
        for domain in self.domains:
            for record in sorted(domain.state.records.values(), key=lambda record: (full_name(record), record.created)):
                yield domain, record

    def find(self, wanted: str) -> Backup:
        """The one backup of an id, a full name, or a name that only one has."""
        found = [
            (domain, record)
            for domain, record in self.backups()
            if wanted in (record.backup.hex(), full_name(record), record.name)
        ]
        require(found, f"there is no backup {wanted!r}; `list` shows those that there are")
        require(len(found) == 1, f"{len(found)} backups are named {wanted!r}; give the id that `list` shows")
        domain, record = found[0]
        domain.load_indexes()
        return Backup(domain, record.backup)


def full_name(record: SimpleNamespace) -> str:
    return "/".join((record.organization, record.project, record.instance, record.name))


def time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def printable(words: str) -> str:
    """Words of others, harmless for a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in words)


def show(repository: Repository) -> None:
    for domain in repository.domains:
        if domain.newest:
            head, digested = domain.newest
            name = f"domain {domain.keys.id.hex()} ({printable(domain.keys.organization or 'system')})"
            print(f"{name}: head {head.sequence} of {time(head.written)}, digest {digested.hex()}", file=sys.stderr)
    print("ID", "BACKUP", "CREATED", "ENGINE", "METHOD", "TYPE", "ENTRIES", "BYTES", sep="\t")
    for _, record in repository.backups():
        facts = (record.engine, record.method, record.type, str(record.entries), str(record.logical_bytes))
        words = (full_name(record), time(record.created), *facts)
        print(record.backup.hex(), *map(printable, words), sep="\t")
        for loss in record.losses:
            print(f"{printable(full_name(record))}: lost: {printable(loss)}", file=sys.stderr)


class Tree:
    """A new directory that becomes the output directory at the end, or is removed."""

    def __init__(self, out: Path) -> None:
        require(not out.is_symlink() and (not out.exists() or out.is_dir()), f"{out} is not a directory")
        require(not out.exists() or not any(out.iterdir()), f"{out} is not empty")
        self.out = out
        self.root = os.fsencode(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.absolute().parent))
        self.kinds: dict[str, int] = {}
        self.last_steps: list[Callable[[], None]] = []

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, *_: object) -> None:
        # Nothing is left of it once it is the output directory.
        shutil.rmtree(self.root, ignore_errors=True)

    def finish(self) -> None:
        """Makes it the output directory."""
        # From the last to the first: a directory gets its time and mode after all that is in it.
        for step in reversed(self.last_steps):
            step()
        os.rename(self.root, self.out)

    def add(self, entry: SimpleNamespace, content: Iterator[bytes]) -> None:
        """Makes what an entry describes, in directories that we made ourselves."""
        parts = entry.path.split("/")
        require(len(entry.path.encode()) <= PATH_LIMIT and "\0" not in entry.path, "it is no path")
        require(not {"", ".", ".."} & set(parts), "it is no relative path")
        for depth in range(1, len(parts)):
            above = "/".join(parts[:depth])
            if above not in self.kinds:
                os.mkdir(self._place(above), 0o700)
                self.kinds[above] = DIRECTORY
            require(self.kinds[above] == DIRECTORY, f"it lies below {above!r}, which is no directory")
        place = self._place(entry.path)
        self.kinds[entry.path] = entry.kind
        if entry.kind == FILE:
            with open(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
                file.writelines(content)
            self._mark(place, entry)
        elif entry.kind == DIRECTORY:
            os.mkdir(place, 0o700)
            self.last_steps.append(lambda: self._mark(place, entry))
        else:
            # Links are made when every file is written, so nothing is ever written through one.
            self.last_steps.append(lambda: os.symlink(entry.link.encode(), place))

    def _place(self, path: str) -> bytes:
        return self.root + b"/" + path.encode()

    def _mark(self, place: bytes, entry: SimpleNamespace) -> None:
        os.chmod(place, entry.mode & 0o777)
        os.utime(place, (entry.modified, entry.modified))


def extract(backup: Backup, out: Path) -> None:
    for loss in backup.record.losses:
        print(f"known to be lost: {printable(loss)}", file=sys.stderr)
    with Tree(out) as tree:
        for entry in backup.entries():
            with named(f"entry {printable(entry.path)!r}"):
                check_entry(entry)
                tree.add(entry, backup.content(entry))
        backup.check_refs()
        tree.finish()
    totals = f"{backup.manifest.entries} entries, {backup.manifest.logical_bytes} bytes"
    print(f"extracted {printable(full_name(backup.record))} ({backup.id.hex()}): {totals}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Lists and extracts the backups of a Holdfast repository, without Holdfast.",
        epilog="Exit codes: 0 done, 1 refused or failed (the reason is on standard error), 2 wrong usage.",
    )
    parser.add_argument(
        "target", metavar="TARGET-DIR", type=Path, help="a local copy of a target, with repository.json in it"
    )
    parser.add_argument("--identity", metavar="KIT", type=Path, required=True, help="the recovery kit")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="list all backups, after checking every head")
    command = commands.add_parser("extract", help="write all entries of a backup, after checking every byte")
    command.add_argument("backup", metavar="BACKUP", help="its id, its full name, or its name where only one has it")
    command.add_argument("out", metavar="OUT-DIR", type=Path, help="an empty directory, or one that does not exist")
    return parser.parse_args()


def main() -> int:
    given = arguments()
    try:
        repository = Repository(Target(given.target), Kit.load(given.identity))
        if given.command == "list":
            show(repository)
        else:
            extract(repository.find(given.backup), given.out)
    except (Refused, OSError, OverflowError, ValueError) as error:
        print(f"reader.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
