# SPDX-License-Identifier: MIT OR Apache-2.0
"""Encodes images of format 4, valid ones and others, from Python objects.

It knows the encoding from Documentation/image-format-4.md alone. All chunks are raw and loose. An image
is a list of blocks, and a block is a list of nodes; entries refer to nodes.
"""
import hashlib
import os
import stat
import struct

TYPES = {"fifo": stat.S_IFIFO, "chr": stat.S_IFCHR, "dir": stat.S_IFDIR, "blk": stat.S_IFBLK,
         "file": stat.S_IFREG, "link": stat.S_IFLNK, "sock": stat.S_IFSOCK}
HOLE = 2**32 - 1
MAX_INLINE = 1024


class Node:
    """An inode. `entries` maps names to nodes, `extents` is a list of (offset, content or None, offset in
    the content), `xattrs` maps names to values. `long` puts the list into list blocks of so many elements
    each. `fields` replaces fields of the encoded inode."""

    def __init__(self, kind, mode=0o644, *, uid=0, gid=0, mtime=(0, 0), links=1, size=0, device=(0, 0),
                 entries=None, extents=(), target=b"", xattrs=None, long=0, **fields):
        self.kind, self.mode, self.uid, self.gid, self.mtime = kind, mode, uid, gid, mtime
        self.links, self.size, self.device, self.target = links, size, device, target
        self.entries, self.extents, self.xattrs = dict(entries or {}), list(extents), dict(xattrs or {})
        self.long, self.fields, self.parent = long, fields, None

    def type(self):
        return TYPES[self.kind] >> 12


def message(kind, data, lists):
    """A message: the words of its root struct, and its lists. A list is (words of an element, elements),
    or bytes. An empty list is a null pointer."""
    words = [struct.pack("<HH", 4, kind) + data[0]] + list(data[1:])
    pointers_at = 1 + len(words)
    pointers, body = [], b""
    for number, elements in enumerate(lists):
        at = pointers_at + len(lists) + len(body) // 8
        distance = at - (pointers_at + number) - 1
        if isinstance(elements, bytes):
            if not elements:
                pointers.append(0)
                continue
            pointers.append(distance << 2 | 1 | 2 << 32 | len(elements) << 35)
            body += elements + bytes(-len(elements) % 8)
        else:
            size, items = elements
            if not items:
                pointers.append(0)
                continue
            pointers.append(distance << 2 | 1 | 7 << 32 | size * len(items) << 35)
            body += struct.pack("<Q", len(items) << 2 | size << 32) + b"".join(items)
    root = struct.pack("<Q", len(words) << 32 | len(lists) << 48)
    segment = root + b"".join(words) + b"".join(struct.pack("<Q", p) for p in pointers) + body
    return struct.pack("<II", 0, len(segment) // 8) + segment


def differences(content):
    """The stored form of the message of a block or a list block: some fields of its inodes, entries and
    extents are differences to predictions."""
    content = bytearray(content)
    is_block = content[18] == 3

    def elements(number):
        """The places of the elements of a list."""
        at = 24 + 8 * number
        pointer, = struct.unpack_from("<Q", content, at)
        if not pointer:
            return []
        tag_at = at + 8 + 8 * (pointer >> 2 & 2**30 - 1)
        tag, = struct.unpack_from("<Q", content, tag_at)
        return [tag_at + 8 + index * 8 * (tag >> 32 & 0xffff) for index in range((tag & 2**32 - 1) >> 2)]

    def store(at, form, prediction):
        value, = struct.unpack_from(form, content, at)
        struct.pack_into(form, content, at, value - prediction & 2**(8 * struct.calcsize(form)) - 1)
        return value

    entries, extents, chunks = [elements(number + is_block) for number in range(3)]
    files, ends = [], {}
    for at in elements(0) if is_block else []:
        mode, long = struct.unpack_from("<HH", content, at)
        size, first, count = struct.unpack_from("<QII", content, at + 32)
        name = "parts" if long & 1 and mode >> 12 in (4, 8) else mode >> 12
        if name in ("parts", 4, 8, 10):
            store(at + 40, "<I", ends.get(name, 0))
            ends[name] = first + count
        if name == 8:
            files.append((extents[:count], size))
            extents = extents[count:]
    chunk_before = end = 0
    for places, size in files if is_block else [(extents, 0)]:
        prediction = start = 0
        for index, at in enumerate(places):
            offset = store(at, "<Q", prediction)
            if index:
                end = offset - start
            chunk = store(at + 8, "<I", chunk_before)
            start = offset - store(at + 12, "<I", end if chunk == chunk_before else 0)
            length = struct.unpack_from("<I", content, chunks[chunk] + 36)[0] if chunk < len(chunks) else 0
            prediction, chunk_before = start + length, chunk
        if places:
            end = size - start
    name_end = slot = distance = 0
    for at in entries:
        name_end = store(at, "<I", name_end) + content[at + 4]
        slot, distance = store(at + 6, "<H", slot), store(at + 8, "<I", distance)
    return bytes(content)


class Store:
    """A store with loose chunks."""

    def __init__(self, path):
        self.path = path
        os.makedirs(f"{path}/blobs/sha256")
        with open(f"{path}/oci-layout", "w", encoding="ascii") as layout:
            layout.write('{"imageLayoutVersion":"1.0.0"}')
        with open(f"{path}/index.json", "w", encoding="ascii") as index:
            index.write('{"schemaVersion":2,"manifests":[]}')

    def blob(self, digest):
        return f"{self.path}/blobs/sha256/{digest.hex()}"

    def add(self, content):
        """Stores a raw chunk, and returns the reference to it."""
        digest = hashlib.sha256(content).digest()
        with open(self.blob(digest), "wb") as file:
            file.write(content)
        return digest + struct.pack("<II", len(content), len(content))

    def add_image(self, blocks, *, level=0, change=lambda number, content: content):
        """Stores an image, and returns the digest of its root. `change` can replace the content of the
        block of a number, which has values instead of differences."""
        places = {id(node): (number, slot) for number, block in enumerate(blocks)
                  for slot, node in enumerate(block)}
        for block in blocks:
            for node in block:
                for child in node.entries.values():
                    child.parent = child.parent or node
        children = []
        for number, block in enumerate(blocks):
            content = differences(change(number, Block(self, places, number).encode(block)))
            children.append(self.add(content) + struct.pack("<II", len(block), 1))
        if level:
            lists = [children[at:at + 2] for at in range(0, len(children), 2)]
            sizes = [[struct.unpack_from("<II", child, 40) for child in part] for part in lists]
            children = [self.add(message(2, [bytes(4)], [(6, part)]))
                        + struct.pack("<II", *(sum(column) for column in zip(*size)))
                        for part, size in zip(lists, sizes)]
        count = sum(len(block) for block in blocks)
        size = sum(node.size for block in blocks for node in block if node.kind == "file")
        root = message(1, [struct.pack("<I", level), struct.pack("<Q", count), struct.pack("<Q", size)],
                       [(6, children)])
        return self.add(root)[:32].hex()


class Block:
    """A block that is being encoded."""

    def __init__(self, store, places, number):
        self.store, self.places, self.number = store, places, number
        self.lists = {name: [] for name in ("inodes", "entries", "extents", "chunks", "parts", "sets",
                                            "attributes")}
        self.pool, self.sets = b"", {}

    def string(self, text):
        self.pool += text
        return len(self.pool) - len(text), len(text)

    def chunk(self, reference):
        if reference not in self.lists["chunks"]:
            self.lists["chunks"].append(reference)
        return self.lists["chunks"].index(reference)

    def entry(self, name, node):
        block, slot = self.places[id(node)]
        return struct.pack("<IBBHii", *self.string(name), node.type(), slot, block - self.number, 0)

    def extent(self, extent):
        offset, content, within = extent
        chunk = HOLE if content is None else self.chunk(self.store.add(content))
        return struct.pack("<QII", offset, chunk, within)

    def elements(self, node):
        if node.kind == "dir":
            return "entries", 4, [(name, node.entries[name]) for name in sorted(node.entries)]
        return "extents", 8, node.extents

    def range(self, node):
        """The range of the inode's list, which this adds."""
        if node.kind == "link":
            return self.string(node.target)
        if node.kind not in ("dir", "file"):
            return 0, 0
        name, of, elements = self.elements(node)
        if node.long:
            parts = [self.part(name, of, elements[at:at + node.long])
                     for at in range(0, len(elements), node.long)]
            self.lists["parts"] += parts
            return len(self.lists["parts"]) - len(parts), len(parts)
        encode = self.extent if name == "extents" else lambda entry: self.entry(*entry)
        self.lists[name] += [encode(element) for element in elements]
        return len(self.lists[name]) - len(elements), len(elements)

    def part(self, name, of, elements):
        block = Block(self.store, self.places, self.number)
        encode = block.extent if name == "extents" else lambda entry: block.entry(*entry)
        block.lists[name] = [encode(element) for element in elements]
        content = message(4, [struct.pack("<BBH", of, 0, 0)],
                          [(2, block.lists["entries"]), (2, block.lists["extents"]),
                           (5, block.lists["chunks"]), (3, []), block.pool])
        chunk = self.chunk(self.store.add(differences(content)))
        first, string = (0, self.string(elements[0][0])) if of == 4 else (elements[0][0], (0, 0))
        return struct.pack("<QIIIBxxx", first, chunk, len(elements), *string)

    def set(self, xattrs):
        key = tuple(sorted(xattrs.items()))
        if not key:
            return 0
        if key not in self.sets:
            attributes = []
            for name, value in key:
                at = self.string(value)[0] if len(value) <= MAX_INLINE else self.chunk(self.store.add(value))
                attributes.append(struct.pack("<IBxxxII", *self.string(name), len(value), at))
            self.lists["sets"].append(struct.pack("<II", len(self.lists["attributes"]), len(attributes)))
            self.lists["attributes"] += attributes
            self.sets[key] = len(self.sets) + 1
        return self.sets[key]

    def inode(self, node):
        parent = (0, 0)
        if node.kind == "dir":
            block, slot = self.places[id(node.parent or node)]
            parent = (block - self.number, slot)
        size = node.size
        if node.kind in ("chr", "blk"):
            size = node.device[0] << 20 | node.device[1]
        fields = {"mode": TYPES[node.kind] | node.mode, "long": int(bool(node.long)), "links": node.links,
                  "uid": node.uid, "gid": node.gid, "seconds": node.mtime[0], "nanoseconds": node.mtime[1],
                  "set": self.set(node.xattrs), "size": size, "range": self.range(node), "parent": parent}
        fields.update(node.fields)
        return struct.pack("<HHIIIqIIQIIiHH", fields["mode"], fields["long"], fields["links"], fields["uid"],
                           fields["gid"], fields["seconds"], fields["nanoseconds"], fields["set"],
                           fields["size"], *fields["range"], *fields["parent"], 0)

    def encode(self, nodes):
        self.lists["inodes"] = [self.inode(node) for node in nodes]
        sizes = {"inodes": 7, "entries": 2, "extents": 2, "chunks": 5, "parts": 3, "sets": 1, "attributes": 2}
        return message(3, [bytes(4)], [(size, self.lists[name]) for name, size in sizes.items()]
                       + [self.pool])
