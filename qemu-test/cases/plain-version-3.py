#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# An image written by hand, as the published version 3 has it: no times, sizes and link counts,
# entries out of order, chunks of a byte and of megabytes, in the middle of blobs and overlapping;
# and one with the extensions. Read right all the same.
#
# For format 3 alone. It is about version 3 alone.
#
# timeout: 90
import os
import stat

import mountapi
from case import CASE_DIR, PAGE, drop_caches, equal, refused, seeded_random
from metadata import Chunk, Inode, Store

random = seeded_random()
store = Store(f"{CASE_DIR}/store")
mnt = f"{CASE_DIR}/mnt"
os.mkdir(mnt)

blobs = [random.randbytes(size) for size in (1, 10, 4096, 5000, 100_000, 2_000_000)]
names = [store.add(blob) for blob in blobs]


def pieces(lengths):
    """Chunks of these lengths, anywhere in any blob; and what they are put together."""
    chunks, contents = [], []
    for length in lengths:
        number = random.choice([n for n, blob in enumerate(blobs) if len(blob) >= length])
        offset = random.randrange(len(blobs[number]) - length + 1)
        chunks.append(Chunk(names[number], length, offset))
        contents.append(blobs[number][offset:offset + length])
    return chunks, b"".join(contents)


files = {
    b"empty": pieces([]),
    b"one": pieces([1]),
    # A page of 4,096 chunks; chunks of a page and of nearly one; all sorts; a chunk of megabytes
    # that begins in a page.
    b"bytes": pieces([1] * (PAGE + 7)),
    b"pages": pieces([PAGE] * 20),
    b"nearly": pieces([PAGE - 1] * 40 + [PAGE + 1] * 40),
    b"sorts": pieces([random.choice((1, 2, 3, 100, 511, 4095, 4096, 4097, 30_000)) for _ in range(1000)]),
    b"large": pieces([3, 1_900_000, 5, 1_999_999]),
    b"same": ([Chunk(names[3], 5000)] * 100, blobs[3] * 100),
}


def image(order, **extensions):
    """The files, with numbers from 10, and some of other kinds; entries in this order."""
    inodes = [Inode(n, chunks=chunks, uid=n, gid=70_000, mode=0o640, **extensions)
              for n, (chunks, _) in enumerate(files.values(), 10)]
    for inode, (_, contents) in zip(inodes, files.values()):
        inode.size = len(contents) if extensions else None
    entries = [(name, n) for n, name in enumerate(files, 10)]
    entries += [(b"link", 100), (b"fifo", 101), (b"null", 102), (b"sub", 103), (b"sock", 104), (b"disk", 105),
                (b"same-link", 17)]
    entries = order(entries)
    others = [Inode(100, "lnk", 0o777, target=b"one", **extensions), Inode(101, "fifo", **extensions),
              Inode(102, "chr", device=(1, 3), **extensions),
              Inode(103, "dir", 0o1777, entries=[(b"below", 11)], **extensions),
              Inode(104, "sock", **extensions), Inode(105, "blk", device=(4095, 1048575), **extensions)]
    root = Inode(1, "dir", 0o755, entries=entries, xattrs=[(b"user.x", b"y")], **extensions)
    return store.add_image([root, *inodes, *others])


def shuffled(entries):
    return random.sample(entries, len(entries))


for what, order, extensions, mtime, nlink in (
        ("unordered", shuffled, {}, 0, 1), ("in reverse", lambda e: sorted(e, reverse=True), {}, 0, 1),
        ("in order", sorted, {}, 0, 1),
        ("extended", sorted, {"mtime": (-77, 5), "nlink": 3}, -77 * 10**9 + 5, 3)):
    mountapi.mount(store.path, mnt, f"rootfs={image(order, **extensions)}")
    root = os.fsencode(mnt)
    expected = {*files, b"link", b"fifo", b"null", b"sub", b"sock", b"disk", b"same-link"}
    equal(sorted(os.listdir(root)), sorted(expected), f"{what}: names")
    for number, (name, (_, contents)) in enumerate(files.items(), 10):
        found = os.stat(root + b"/" + name)
        equal((found.st_ino, found.st_size, found.st_mode, found.st_uid, found.st_gid, found.st_mtime_ns,
               found.st_nlink),
              (number, len(contents), stat.S_IFREG | 0o640, number, 70_000, mtime, nlink),
              f"{what}: stat of {name}")
        with open(root + b"/" + name, "rb", buffering=0) as file:
            equal(file.read() == contents, True, f"{what}: {name}")
            drop_caches(1)
            for _ in range(20 if contents else 0):
                at, length = random.randrange(len(contents)), random.randrange(1, 20_000)
                equal(os.pread(file.fileno(), length, at) == contents[at:at + length], True,
                      f"{what}: {length} of {name} at {at}")
    equal(os.readlink(f"{mnt}/link"), "one", f"{what}: the link")
    equal(os.stat(f"{mnt}/null").st_rdev, os.makedev(1, 3), f"{what}: the device")
    equal(os.stat(f"{mnt}/disk").st_rdev, os.makedev(4095, 1048575), f"{what}: the disk")
    equal([stat.S_IFMT(os.lstat(f"{mnt}/{n}").st_mode) for n in ("fifo", "sock", "sub")],
          [stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFDIR], f"{what}: kinds")
    equal(os.getxattr(mnt, "user.x"), b"y", f"{what}: the attribute")
    with open(f"{mnt}/sub/below", "rb") as file:
        equal(file.read(), files[b"one"][1], f"{what}: below")
    for missing in ("", "on", "onee", "zzz", "!"):
        with refused(2, f"{what}: {missing!r}"):
            os.stat(f"{mnt}/sub/{missing}x")
    mountapi.umount(mnt)
