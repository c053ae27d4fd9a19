#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Compressed blobs, written by zstd(1) and by hand: frames of all sizes, seek tables with and
# without checksums, chunks anywhere in them, read as they are and with verify=digest; and each
# fault of a frame or a table is an I/O error that names the blob.
#
# For format 3 alone. Format 4 has no seek tables; chunked-read and chunked-damage read its frames.
#
# timeout: 180
# klog-allow: puzzlefs: 
# kernels: every
import os
import struct

import mountapi
from case import CASE_DIR, drop_caches, equal, refused, seeded_random
from metadata import Chunk, Inode, Store
from seekable import compress, seekable, xxh64

random = seeded_random()
store = Store(f"{CASE_DIR}/store")
mnt = f"{CASE_DIR}/mnt"
os.mkdir(mnt)

equal(xxh64(b""), 0xEF46DB3751D8E999, "XXH64 of nothing")
equal(xxh64(b"Nobody inspects the spammish repetition"), 0xFBCEA83C8A378BF1, "XXH64 of a sentence")


def contents(size):
    """Half of it compresses well, half not at all."""
    text = b"".join(b"line %d of a text\n" % random.randrange(1000) for _ in range(size // 36))
    return (text + random.randbytes(size))[:size]


def split(data, size):
    return [data[at:at + size] for at in range(0, len(data), size)]


blobs = []
for size, frame, checksums in ((250_000, 4096, False), (250_000, 65536, True), (900_000, 1 << 20, False),
                               (1, 4096, True), (100_001, 9999, True), (300_000, 131072, False)):
    data = contents(size)
    blobs.append((data, store.add(seekable(split(data, frame), checksums))))
data = contents(50_000)
# An empty frame between others says nothing.
blobs.append((data, store.add(seekable([data[:20_000], b"", data[20_000:]]))))

files = {b"whole-%d" % n: [(n, 0, len(data))] for n, (data, _) in enumerate(blobs)}
files[b"pieces"] = []
for _ in range(150):
    number = random.randrange(len(blobs))
    length = random.choice((1, 100, 4096, 4097, 20_000))
    data = blobs[number][0]
    length = min(length, len(data))
    files[b"pieces"].append((number, random.randrange(len(data) - length + 1), length))


def mount(entries, options=""):
    inodes = [Inode(n, chunks=chunks) for n, (_, chunks) in enumerate(entries, 10)]
    names = sorted((name, n) for n, (name, _) in enumerate(entries, 10))
    rootfs = store.add_image([Inode(1, "dir", 0o755, entries=names), *inodes])
    mountapi.mount(store.path, mnt, f"rootfs={rootfs}{options}")


good = [(name, [Chunk(blobs[n][1], length, at, True) for n, at, length in parts])
        for name, parts in files.items()]
for options in ("", ",verify=digest"):
    mount(good, options)
    for name, parts in files.items():
        expected = b"".join(blobs[n][0][at:at + length] for n, at, length in parts)
        with open(os.fsencode(mnt) + b"/" + name, "rb", buffering=0) as file:
            equal(file.readall() == expected, True, f"{name}{options}")
            for _ in range(12):
                drop_caches(1)
                at, length = random.randrange(len(expected)), random.randrange(1, 30_000)
                equal(os.pread(file.fileno(), length, at) == expected[at:at + length], True,
                      f"{length} of {name} at {at}{options}")
    mountapi.umount(mnt)

# Each fault in a blob of three frames, of which the second is hurt.
data = contents(30_000)
three = split(data, 10_000)


def second(change):
    return lambda entries: [entries[0], change(*entries[1]), entries[2]]


def flipped(blob, at):
    return blob[:at] + bytes([blob[at] ^ 0x55]) + blob[at + 1:]


plain = seekable(three)
first = len(compress(three[0]))
faults = {
    b"frame-damaged": flipped(plain, first + 30),
    b"frame-magic": flipped(plain, first),
    b"size-larger": seekable(three, table=second(lambda c, d, x: (c, d + 1, x))),
    b"size-smaller": seekable(three, table=second(lambda c, d, x: (c, d - 1, x))),
    b"checksum": seekable(three, True, second(lambda c, d, x: (c, d, x ^ 1))),
    b"table-sum": seekable(three, table=second(lambda c, d, x: (c + 1, d, x))),
    b"table-huge": seekable(three, table=second(lambda c, d, x: (c, 1 << 30, x))),
    b"table-count": plain[:-9] + struct.pack("<IBI", 1 << 31, 0, 0x8F92EAB1),
    b"table-reserved": plain[:-5] + b"\x04" + plain[-4:],
    b"no-table": b"".join(map(compress, three)),
    b"truncated": plain[:-1],
    b"empty": b"",
    b"short": seekable(three[:2]),
}
names = {name: store.add(blob) for name, blob in faults.items()}
bad = [(name, [Chunk(digest, 30_000, 0, True)]) for name, digest in names.items()]
for options in ("", ",verify=digest"):
    mount(bad + [good[0]], options)
    for name in faults:
        with open(os.fsencode(mnt) + b"/" + name, "rb", buffering=0) as file:
            with refused(5, f"{name}{options}: the second frame"):
                os.pread(file.fileno(), 4096, 16_384)
    with open(f"{mnt}/whole-0", "rb", buffering=0) as file:
        equal(file.readall() == blobs[0][0], True, "a good file beside bad ones")
    mountapi.umount(mnt)

# What changes after the mount is seen by verify=digest, and by a checksum.
victim = blobs[1][1].hex()
path = f"{store.path}/blobs/sha256/{victim}"
mount(good, ",verify=digest")
with open(path, "r+b", buffering=0) as blob:
    before = os.pread(blob.fileno(), 1, 100)
    os.pwrite(blob.fileno(), bytes([before[0] ^ 1]), 100)
    with open(f"{mnt}/whole-1", "rb", buffering=0) as file:
        with refused(5, "a blob that was changed"):
            os.pread(file.fileno(), 4096, 200_000)
        os.pwrite(blob.fileno(), before, 100)
        equal(os.pread(file.fileno(), 4096, 200_000) == blobs[1][0][200_000:204_096], True, "put right again")
mountapi.umount(mnt)
