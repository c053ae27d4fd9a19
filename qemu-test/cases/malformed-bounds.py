#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Images that claim to be far more than they are: the memory of a mount is bounded by the size of the
# metadata blob; mounts and walks end, also where directories are in themselves, in each other and in
# two places.
#
# For format 3 alone: chunked-malformed does this for format 4.
#
# timeout: 90
# klog-allow: puzzlefs:
import os
import struct
import time

import mountapi
from case import CASE_DIR, Differences, check, drop_caches, equal, meminfo, metric, name_of
from metadata import Chunk, Inode, Store, encode, encode_layers
from walker import Walk

U32 = 0xFFFFFFFF
ENDLESS = (1 << 29) - 1
store = Store(f"{CASE_DIR}/store")
mnt = f"{CASE_DIR}/mnt"
os.mkdir(mnt)
data = store.add(b"data" * 1000)


class Words:
    """A message of one segment, written by hand. A place is a word's number."""

    def __init__(self):
        self.words = [0]

    def grow(self, count):
        self.words += [0] * count
        return len(self.words) - count

    def point(self, at, to, kind, sizes):
        """A pointer at a place to another: to a struct (kind 0) or to a list (1)."""
        self.words[at] = (to - at - 1 << 2 & U32) | kind | sizes << 32

    def structs(self, at, count, data, pointers):
        """A list of structs; returns where the first one is."""
        tag = self.grow(1 + count * (data + pointers))
        self.words[tag] = count << 2 | data << 32 | pointers << 48
        self.point(at, tag, 1, 7 | count * (data + pointers) << 3)
        return tag + 1

    def bytes(self):
        return struct.pack(f"<II{len(self.words)}Q", 0, len(self.words), *self.words)


def image(layers=1):
    """The root, with a list of that many layers; returns the words and where the layers are."""
    words = Words()
    root = words.grow(3)
    words.point(0, root, 0, 1 | 2 << 16)
    words.words[root] = 3
    return words, words.structs(root + 1, layers, 0, 1)


def inodes(words, layer, count, first=1):
    """A layer of empty directories; returns where their inodes are."""
    at = words.structs(layer, count, 3, 2)
    for number in range(count):
        words.words[at + number * 5] = first + number
        words.words[at + number * 5 + 1] = 3 | 0o755 << 16
    return at


def endless_inodes():
    words, layer = image()
    tag = words.grow(1)
    words.words[tag] = ENDLESS << 2
    words.point(layer, tag, 1, 7)
    return words.bytes()


def endless_entries():
    words, layer = image()
    inode = inodes(words, layer, 1)
    directory = words.grow(2)
    words.point(inode + 3, directory, 0, 1 | 1 << 16)
    tag = words.grow(1)
    words.words[tag] = ENDLESS << 2
    words.point(directory + 1, tag, 1, 7)
    return words.bytes()


def endless_layers():
    words = Words()
    root = words.grow(3)
    words.point(0, root, 0, 1 | 2 << 16)
    words.words[root] = 3
    tag = words.grow(1)
    words.words[tag] = ENDLESS << 2
    words.point(root + 1, tag, 1, 7)
    return words.bytes()


def one_list_in_all_layers():
    """256 layers, each of them the same 20,000 inodes, whose directories are merged of all."""
    words, layers = image(256)
    at = inodes(words, layers, 20_000)
    for layer in range(1, 256):
        words.point(layers + layer, at - 1, 1, 7 | 20_000 * 5 << 3)
    return shared_entries(words, at, 1, 1)


def one_list_in_all_directories():
    """50 directories that have the same 1,000 entries, not in order."""
    words, layer = image()
    at = inodes(words, layer, 50)
    return shared_entries(words, at, 50, 1000)


def shared_entries(words, inode, directories, count):
    directory = words.grow(2)
    words.words[directory] = 1
    for number in range(directories):
        words.point(inode + number * 5 + 3, directory, 0, 1 | 1 << 16)
    entries = words.structs(directory + 1, count, 1, 1)
    for number in range(count):
        words.words[entries + number * 2] = 2 + number % 40
        name = words.grow(1)
        words.words[name] = int.from_bytes(b"%07d" % (count - number), "little")
        words.point(entries + number * 2 + 1, name, 1, 2 | 7 << 3)
    return words.bytes()


def far_pointers():
    """A message of two segments whose roots are far pointers to each other."""
    far = [2 | 1 << 32, 2]
    return struct.pack("<IIII", 1, 1, 1, 0) + struct.pack("<QQ", *far)


def far_pointers_doubled():
    far = [2 | 4 | 1 << 32, 2 | 4 | 1 << 32]
    return struct.pack("<IIII", 1, 1, 2, 0) + struct.pack("<QQQ", *far, far[0])


def pointer_to_itself():
    words = Words()
    words.words[0] = U32 - 3 | 1 << 48
    return words.bytes()


def many_segments():
    return struct.pack("<I", 511) + struct.pack("<I", 0) * 512 + bytes(4)


def deep():
    """A chain of 4,000 directories."""
    chain = [Inode(n, "dir", 0o755, entries=[(b"d", n + 1)]) for n in range(1, 4000)]
    return encode([*chain, Inode(4000, "dir", 0o755)])


def directory(number, *entries):
    return Inode(number, "dir", 0o755, entries=[*entries])


def many_chunks():
    """20,000 chunks of 2^48 bytes, all of one blob of 4,000."""
    return encode([directory(1, (b"file", 2)), Inode(2, chunks=[Chunk(data, 1 << 48)] * 20_000)])


def largest_file():
    return encode([directory(1, (b"file", 2)), Inode(2, chunks=[Chunk(data, (1 << 63) - 1)])])


refused = {"2^29 inodes": endless_inodes, "2^29 layers": endless_layers,
           "far pointers in a circle": far_pointers,
           "far pointers in a circle, doubled": far_pointers_doubled,
           "a pointer to itself": pointer_to_itself, "512 empty segments": many_segments}
# How many entries a walk comes to, and its errors; or why there is no mount. A walk goes no deeper than
# twelve directories, and to no more than 400 entries.
mounted = {
    "2^29 entries": (endless_entries, "EUCLEAN"),
    "one list in 256 layers": (one_list_in_all_layers, 1, {}),
    "one list in 50 directories": (one_list_in_all_directories, 400, {"ELOOP": 164}),
    "4,000 directories in each other": (deep, 13, {}),
    "20,000 chunks beyond the end of their blob": (many_chunks, 1, {"EIO": 3}),
    "a file of 2^63 - 1 bytes": (largest_file, 1, {"EIO": 3}),
    "the root in itself": (lambda: encode([directory(1, (b"a", 1))]), 1, {"ELOOP": 1}),
    "a directory that is its own parent": (lambda: encode([directory(1, (b"a", 2)), directory(2, (b"a", 2))]),
                                           2, {"ELOOP": 1}),
    "directories in a circle": (lambda: encode([directory(1, (b"a", 2)), directory(2, (b"b", 3)),
                                                directory(3, (b"c", 2))]),
                                3, {"ELOOP": 1}),
    "a directory in two places": (lambda: encode([directory(1, (b"a", 2), (b"b", 2)), directory(2, (b"c", 3)),
                                                  Inode(3, "fifo")]), 4, {}),
    "inodes that are not in order": (lambda: encode([Inode(3, "fifo"), directory(1, (b"a", 3), (b"b", 4)),
                                                     Inode(4, "fifo")]), 2, {}),
    "entries of no inode": (lambda: encode([directory(1, (b"a", 9), (b"b", 0), (b"c", (1 << 64) - 1))]), 0,
                            {"EUCLEAN": 1}),
    "a circle through layers": (lambda: encode_layers([[Inode(1, "dir", entries=[(b"a", 2)],
                                                              look_below=True)],
                                                       [directory(1, (b"a", 1)), directory(2, (b"a", 1))]]),
                                2, {"ELOOP": 1}),
}


def memory():
    """Bytes that are in use, for whatever cannot be given back."""
    fields = meminfo()
    # Not MemAvailable, which leaves out half of a page cache that is small.
    return fields["MemTotal"] - sum(fields[name] for name in (
        "MemFree", "Active(file)", "Inactive(file)", "SReclaimable"))


def mount(what, blob):
    """Mounts a blob, within what its size allows, or says why not."""
    rootfs = store.add(blob).hex()
    # The blob is held in memory. A store has workspaces and the like, whatever the image is.
    most = 2 * len(blob) + (16 << 20)
    # The kernel holds pages for others meanwhile, too; but not time and again.
    for attempt in range(3):
        if attempt and number == 0:
            mountapi.umount(mnt)
        drop_caches()
        before, began = memory(), time.monotonic()
        number = 0
        try:
            mountapi.mount(store.path, mnt, f"rootfs={rootfs}")
        except OSError as error:
            number = error.errno
        took, grew = time.monotonic() - began, memory() - before
        if grew < most:
            break
    print(f"{what}: a blob of {len(blob)} bytes, mount in {took:.2f} s, memory grew by {grew >> 10} KiB")
    check(grew < most, f"{what}: the mount took {grew >> 20} MiB")
    return number, took


slowest = 0
for what, make in refused.items():
    number, took = mount(what, make())
    equal(name_of(number), "EUCLEAN", what)
    slowest = max(slowest, took)
differences = Differences()
for what, (make, *wanted) in mounted.items():
    number, took = mount(what, make())
    slowest = max(slowest, took)
    if number:
        differences.compare([name_of(number)], wanted, f"{what}: the mount")
        continue
    try:
        if make is largest_file:
            equal(os.stat(f"{mnt}/file").st_blocks, 1 << 54, "its blocks")
        walk = Walk(mnt)
    finally:
        mountapi.umount(mnt)
    found = [walk.entries, {name_of(number): count for number, count in walk.errors.items()}]
    print(f"{what}: {walk.calls} calls, {found}")
    differences.compare(found, wanted, f"{what}: entries and errors")
differences.end()
metric("malformed.slowest_mount", round(slowest, 2))
