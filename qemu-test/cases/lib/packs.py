# SPDX-License-Identifier: MIT OR Apache-2.0
"""Packs and the chunk index of image format 4, written and read by the specification alone."""

import hashlib
import os
import struct
import subprocess
import tempfile
from dataclasses import dataclass

import chunked
from metadata import Extent
from seekable import xxh64

PAGE = 4096
RECORDS = 85


def raw(content):
    """The stored bytes of a raw chunk."""
    return content


def zstd(content):
    """The stored bytes of a chunk: compressed, if zstd makes it smaller."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        stored = subprocess.run(["zstd", "-q", "--no-check", "-c", file.name],
                                stdout=subprocess.PIPE, check=True).stdout
    return stored if len(stored) < len(content) else content


def digest_of(stored):
    """The digest of a chunk or a pack."""
    return hashlib.sha256(stored).digest()


@dataclass
class Place:
    """The place of a chunk in a pack."""
    digest: bytes
    offset: int
    length: int
    pack: bytes


def pack_of(chunks, alignment=0):
    """The bytes of a pack of these stored chunks."""
    body, index = b"", b""
    for stored in chunks:
        body += bytes(-len(body) % (1 << alignment)) + stored
        index += digest_of(stored) + struct.pack("<I", len(stored))
    return body + index + b"PZFSPACK" + struct.pack("<HBBI", 1, alignment, 0, len(chunks))


def places_in(path):
    """The places of the chunks of a pack, by its own index."""
    with open(path, "rb") as file:
        data = file.read()
    assert data[-16:-8] == b"PZFSPACK", path
    version, alignment, zero, count = struct.unpack("<HBBI", data[-8:])
    assert (version, zero) == (1, 0), (version, zero)
    pack, offset, places = bytes.fromhex(os.path.basename(path)), 0, []
    index = data[-16 - 36 * count:-16]
    for at in range(0, len(index), 36):
        length, = struct.unpack_from("<I", index, at + 32)
        offset += -offset % (1 << alignment)
        places.append(Place(index[at:at + 32], offset, length, pack))
        offset += length
    assert offset == len(data) - 16 - len(index), path
    return places


def extents_of(store, contents):
    """The extents of a file without equal chunks, in the order of the file. All of its chunks are raw and in
    packs."""
    found = []
    for name in os.listdir(f"{store}/blobs/sha256"):
        path = f"{store}/blobs/sha256/{name}"
        with open(path, "rb") as file:
            data = file.read()
        if data[-16:-8] != b"PZFSPACK":
            continue
        for place in places_in(path):
            start = contents.find(data[place.offset:place.offset + place.length])
            if start >= 0:
                found.append(Extent(start, place.length, name, place.offset))
    return sorted(found, key=lambda extent: extent.start)


def table_of(places, packs, pages=1):
    """The pages of a table, at least so many."""
    pages = max(pages, -(-len(places) // 64))
    while True:
        homes, continued = [[] for _ in range(pages + 1)], [False] * pages + [True]
        for place in sorted(places, key=lambda place: place.digest):
            home = home_of(place.digest, pages)
            if len(homes[home]) >= RECORDS:
                continued[home], home = True, home + 1
            homes[home].append(place)
        if not homes.pop() and all(len(home) <= RECORDS for home in homes):
            return [page_of(home, more, packs) for home, more in zip(homes, continued)]
        pages += 1


def home_of(digest, pages):
    """The number of the page in which a digest is looked up first."""
    return int.from_bytes(digest[:8], "big") * pages >> 64


def page_of(places, is_continued, packs):
    rest = struct.pack("<HB5x", len(places), is_continued)
    for place in sorted(places, key=lambda place: place.digest):
        rest += place.digest + struct.pack("<QII", place.offset, place.length, packs.index(place.pack))
    rest = rest.ljust(PAGE - 8, b"\0")
    return struct.pack("<Q", xxh64(rest)) + rest


def catalogue_of(packs, tables):
    """The bytes of a catalogue. `tables` are (number, pages, records), the newest first."""
    rest = struct.pack("<II", len(packs), len(tables)) + b"".join(packs)
    rest += b"".join(struct.pack("<QII", *table) for table in tables)
    return b"PZFSCATA" + struct.pack("<IIQ", 1, 0, xxh64(rest)) + rest


def replace(path, data):
    """Makes a file by rename."""
    with open(f"{path}.new", "wb") as file:
        file.write(data)
    os.rename(f"{path}.new", path)


class Store(chunked.Store):
    """A store whose chunks are packed. `encode` returns the stored bytes of a chunk."""

    def __init__(self, path, encode=raw):
        super().__init__(path)
        self.encode = encode
        # By digest: those that are not in a pack yet, in the order in which they were made.
        self.pending = {}
        self.index = f"{path}/.puzzlefs/chunks"
        self.tables = 0
        os.makedirs(self.index)

    def add(self, content):
        stored = self.encode(content)
        digest = digest_of(stored)
        self.pending[digest] = stored
        return digest + struct.pack("<II", len(stored), len(content))

    def add_pack(self, alignment=0, chunks=None):
        """Stores a pack of the chunks that are in none, or of these; returns its digest."""
        if chunks is None:
            chunks, self.pending = list(self.pending.values()), {}
        data = pack_of(chunks, alignment)
        digest = digest_of(data)
        replace(self.blob(digest), data)
        return digest

    def table(self, number):
        """The path of a table."""
        return f"{self.index}/{number:016x}"

    def write_index(self, *packs, pages=1):
        """Replaces the index by one of these packs: a table for each, that of the last pack the newest. A
        table has at least so many pages."""
        old = [name for name in os.listdir(self.index) if name != "catalogue"]
        tables = []
        for pack in packs:
            self.tables += 1
            places = list({place.digest: place for place in places_in(self.blob(pack))}.values())
            table = table_of(places, packs, pages)
            replace(self.table(self.tables), b"".join(table))
            tables.append((self.tables, len(table), len(places)))
        replace(f"{self.index}/catalogue", catalogue_of(packs, tables[::-1]))
        for name in old:
            os.remove(f"{self.index}/{name}")

    def add_loose(self, stored):
        """Stores a loose chunk."""
        replace(self.blob(digest_of(stored)), stored)


class Content:
    """The contents of files, and the nodes of chunks that they are made of."""

    def __init__(self, random):
        self.random = random
        self.files = {}

    def data(self, size):
        """Noise and text, in any mixture."""
        parts, left = [], size
        while left > 0:
            length = min(left, self.random.randrange(1, 100_000))
            text = lambda n: (b"Some text.\n" * (n // 11 + 1))[:n]
            make = self.random.choice((self.random.randbytes, text))
            parts.append(make(length))
            left -= length
        return b"".join(parts)

    def add(self, name, chunks, long=0):
        """A file of these chunks: contents, (content, offset, length), or lengths of holes."""
        at, extents, content = 0, [], b""
        for chunk in chunks:
            if isinstance(chunk, int):
                extents.append((at, None, 0))
                content += bytes(chunk)
            else:
                whole, offset, length = chunk if isinstance(chunk, tuple) else (chunk, 0, len(chunk))
                extents.append((at, whole, offset))
                content += whole[offset:offset + length]
            at = len(content)
        self.files[name] = (content, chunked.Node("file", size=at, extents=extents, long=long))

    def add_samples(self):
        """Files of every kind: of many chunks, with holes, and small ones that share a chunk."""
        self.add("empty", [])
        self.add("byte", [b"x"])
        self.add("chunk", [self.data(1 << 20)])
        self.add("big", [self.data(self.random.randrange(30_000, 130_000)) for _ in range(24)])
        self.add("holes", [4096, self.data(100_000), 1_000_003, self.data(4096), 1])
        self.add("hole", [3 << 20])
        bundle = self.data(120_000)
        cuts = sorted(self.random.sample(range(1, len(bundle)), 30))
        for number, (start, end) in enumerate(zip([0, *cuts], [*cuts, len(bundle)])):
            self.add(f"small-{number}", [(bundle, start, end - start)])
        self.add("overlapping", [(bundle, 1000, 50_000), (bundle, 40_000, 80_000), 10, (bundle, 0, 1)])
        self.add("long", [self.data(20_000) for _ in range(90)], long=20)

    def add_image(self, store):
        """Adds the image to a store; returns the digest of its root."""
        entries = {os.fsencode(name): node for name, (_, node) in self.files.items()}
        root = chunked.Node("dir", 0o755, links=2, entries=entries)
        return store.add_image([[root, *entries.values()]])
