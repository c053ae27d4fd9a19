# SPDX-License-Identifier: MIT OR Apache-2.0
"""Metadata blobs, read and written without any code of the project's own: a few lines of
Cap'n Proto, by its encoding's specification, and the layout of the structs of version 3.

Reading serves to find out which blobs a file is made of; writing, to make images that our
builder never would: plain version 3, chunks of one byte, malformed ones.
"""

import hashlib
import json
import os
import struct
from dataclasses import dataclass, field


# ---------------------------------------------------------------- reading

class _Struct:
    def __init__(self, words, at, data_words, pointers):
        self.words, self.at, self.data, self.pointers = words, at, data_words, pointers

    def bits(self, shape, byte):
        """A field of the data section; zero where the struct is too old to have it."""
        if byte + struct.calcsize(shape) > self.data * 8:
            return 0
        return struct.unpack_from("<" + shape, self.words, self.at * 8 + byte)[0]

    def _pointer(self, number):
        if number >= self.pointers:
            return 0, 0
        at = self.at + self.data + number
        return at, struct.unpack_from("<Q", self.words, at * 8)[0]

    def struct(self, number):
        at, pointer = self._pointer(number)
        if not pointer:
            return _Struct(self.words, 0, 0, 0)
        return _Struct(self.words, at + 1 + _offset(pointer), pointer >> 32 & 0xFFFF, pointer >> 48)

    def list(self, number):
        at, pointer = self._pointer(number)
        if not pointer:
            return []
        assert pointer & 3 == 1 and pointer >> 32 & 7 == 7, "not a list of structs"
        at += 1 + _offset(pointer)
        tag = struct.unpack_from("<Q", self.words, at * 8)[0]
        data, pointers = tag >> 32 & 0xFFFF, tag >> 48
        size = data + pointers
        return [_Struct(self.words, at + 1 + i * size, data, pointers) for i in range(tag >> 2 & 0x3FFFFFFF)]

    def bytes(self, number):
        at, pointer = self._pointer(number)
        if not pointer:
            return b""
        assert pointer & 3 == 1 and pointer >> 32 & 7 == 2, "not a list of bytes"
        start = (at + 1 + _offset(pointer)) * 8
        return bytes(self.words[start:start + (pointer >> 35)])


def _offset(pointer):
    low = pointer & 0xFFFFFFFF
    assert low & 3 < 2, "a far pointer: the image has several segments, which this reader does not know"
    return (low - (1 << 32) if low & 0x80000000 else low) >> 2


@dataclass
class Extent:
    """A piece of a file."""
    start: int
    length: int
    blob: str
    offset: int


class Metadata:
    """The topmost layer of a metadata blob."""

    DIR, FILE = 3, 5

    def __init__(self, contents):
        segments = struct.unpack_from("<I", contents)[0] + 1
        assert segments == 1, f"{segments} segments"
        words = memoryview(contents)[8:]
        root = _Struct(words, 0, 0, 1).struct(0)
        self.data_size = root.bits("Q", 8)
        self.inodes = {i.bits("Q", 0): i for i in root.list(0)[0].list(0)}

    def find(self, path):
        """The inode number of a path."""
        ino = 1
        for name in os.fsencode(path).split(b"/"):
            if name:
                entries = self.inodes[ino].struct(0).list(0)
                ino = next(e.bits("Q", 0) for e in entries if e.bytes(0) == name)
        return ino

    def extents(self, path):
        """What a regular file is made of."""
        inode = self.inodes[self.find(path)]
        assert inode.bits("H", 8) == self.FILE, f"{path} is not a regular file"
        start, extents = 0, []
        for chunk in inode.list(0):
            blob = chunk.struct(0)
            extents.append(Extent(start, chunk.bits("Q", 0), blob.bytes(0).hex(), blob.bits("Q", 0)))
            start += extents[-1].length
        return extents


def rootfs_of(source):
    """The digest of the metadata blob or the root of <store>:<tag>, from the layout's JSON."""
    store, tag = source.rsplit(":", 1)
    with open(f"{store}/index.json") as file:
        manifests = json.load(file)["manifests"]
    name = "org.opencontainers.image.ref.name"
    manifest = next(m for m in manifests if m.get("annotations", {}).get(name) == tag)
    with open(blob_path(store, manifest["digest"].split(":")[1])) as file:
        manifest = json.load(file)
    root = manifest.get("annotations", {}).get("io.puzzlefs.root")
    return root or manifest["layers"][0]["digest"].split(":")[1]


def blob_path(store, digest):
    return f"{store}/blobs/sha256/{digest}"


def load(source):
    """The metadata of <store>:<tag>."""
    store = source.rsplit(":", 1)[0]
    with open(blob_path(store, rootfs_of(source)), "rb") as file:
        return Metadata(file.read())


# ---------------------------------------------------------------- writing

@dataclass
class Chunk:
    """A chunk: where it is, and how long."""
    blob: bytes
    length: int
    offset: int = 0
    compressed: bool = False


@dataclass
class Inode:
    """An inode. What is None is left to its default on the wire."""
    ino: int
    kind: str = "file"
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    chunks: list = field(default_factory=list)
    entries: list = field(default_factory=list)
    look_below: bool = False
    target: bytes = None
    xattrs: list = field(default_factory=list)
    device: tuple = (0, 0)
    mtime: tuple = None
    size: int = None
    nlink: int = None
    discriminant: int = None


KINDS = ["unknown", "fifo", "chr", "dir", "blk", "file", "lnk", "sock", "wht"]


class _Arena:
    def __init__(self):
        self.buffer = bytearray(8)

    def allocate(self, words):
        at = len(self.buffer) // 8
        self.buffer += bytes(words * 8)
        return at

    def put(self, shape, at, byte, value):
        struct.pack_into("<" + shape, self.buffer, at * 8 + byte, value)

    def struct_at(self, pointer, data, pointers):
        at = self.allocate(data + pointers)
        self.put("Q", pointer, 0, (at - pointer - 1 << 2 & 0xFFFFFFFF) | data << 32 | pointers << 48)
        return at

    def list_at(self, pointer, count, data, pointers):
        size = data + pointers
        at = self.allocate(1 + count * size)
        self.put("Q", pointer, 0, (at - pointer - 1 << 2 & 0xFFFFFFFF) | 1 | 7 << 32 | count * size << 35)
        self.put("Q", at, 0, count << 2 | data << 32 | pointers << 48)
        return [at + 1 + i * size for i in range(count)]

    def bytes_at(self, pointer, value):
        at = self.allocate((len(value) + 7) // 8)
        self.put("Q", pointer, 0, (at - pointer - 1 << 2 & 0xFFFFFFFF) | 1 | 2 << 32 | len(value) << 35)
        self.buffer[at * 8:at * 8 + len(value)] = value


def encode(inodes, **options):
    """A metadata blob of one layer."""
    return encode_layers([inodes], **options)


def encode_layers(layers, version=3, data_size=None):
    """A metadata blob of several layers, the topmost first. Plain version 3 unless an extension
    is used: its structs then have the size that the published schema gives them."""
    arena = _Arena()
    extended = any(i.mtime or i.size is not None or i.nlink is not None for layer in layers for i in layer)
    root = arena.struct_at(0, 2 if data_size is not None else 1, 2)
    arena.put("Q", root, 0, version)
    if data_size is not None:
        arena.put("Q", root, 8, data_size)
    pointers = root + (2 if data_size is not None else 1)
    data = 6 if extended else 3
    for layer, inodes in zip(arena.list_at(pointers, len(layers), 0, 1), layers):
        for at, inode in zip(arena.list_at(layer, len(inodes), data, 2), inodes):
            _encode_inode(arena, at, data, inode)
    body = bytes(arena.buffer)
    return struct.pack("<II", 0, len(body) // 8) + body


def _encode_inode(arena, at, data, inode):
    kind = KINDS.index(inode.kind)
    arena.put("Q", at, 0, inode.ino)
    arena.put("H", at, 8, kind if inode.discriminant is None else inode.discriminant)
    arena.put("H", at, 10, inode.mode)
    arena.put("I", at, 12, inode.uid)
    arena.put("I", at, 16, inode.gid)
    if inode.mtime:
        arena.put("I", at, 20, inode.mtime[1])
        arena.put("q", at, 24, inode.mtime[0])
    if inode.size is not None:
        arena.put("Q", at, 32, inode.size)
    if inode.nlink is not None:
        arena.put("I", at, 40, inode.nlink)
    body, additional = at + data, at + data + 1
    if inode.kind == "file":
        for to, chunk in zip(arena.list_at(body, len(inode.chunks), 1, 1), inode.chunks):
            arena.put("Q", to, 0, chunk.length)
            blob = arena.struct_at(to + 1, 2, 1)
            arena.put("Q", blob, 0, chunk.offset)
            arena.put("B", blob, 8, chunk.compressed)
            arena.bytes_at(blob + 2, chunk.blob)
    elif inode.kind == "dir":
        directory = arena.struct_at(body, 1, 1)
        arena.put("B", directory, 0, inode.look_below)
        for to, (name, ino) in zip(arena.list_at(directory + 1, len(inode.entries), 1, 1), inode.entries):
            arena.put("Q", to, 0, ino)
            arena.bytes_at(to + 1, name)
    elif inode.kind in ("chr", "blk"):
        device = arena.struct_at(body, 2, 0)
        arena.put("Q", device, 0, inode.device[0])
        arena.put("Q", device, 8, inode.device[1])
    if inode.target is not None or inode.xattrs:
        extra = arena.struct_at(additional, 0, 2)
        if inode.xattrs:
            for to, (key, value) in zip(arena.list_at(extra, len(inode.xattrs), 0, 2), inode.xattrs):
                arena.bytes_at(to, key)
                arena.bytes_at(to + 1, value)
        if inode.target is not None:
            arena.bytes_at(extra + 1, inode.target)


class Store:
    """The directory of a layout that is written by hand: just the blobs, as the kernel needs."""

    def __init__(self, path):
        self.path = path
        os.makedirs(f"{path}/blobs/sha256", exist_ok=True)

    def add(self, contents):
        """A blob; returns its digest, in bytes."""
        digest = hashlib.sha256(contents)
        with open(blob_path(self.path, digest.hexdigest()), "wb") as file:
            file.write(contents)
        return digest.digest()

    def add_image(self, inodes, **options):
        """An image of these inodes, numbers ascending; returns its rootfs= in hex."""
        return self.add_layers([inodes], **options)

    def add_layers(self, layers, **options):
        """An image of these layers, the topmost first; returns its rootfs= in hex."""
        return self.add(encode_layers(layers, **options)).hex()
