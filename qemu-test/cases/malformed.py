#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Metadata with the right digest and the wrong contents: what is wrong with the image as a whole
# stops the mount, what is wrong with an inode costs that inode, EUCLEAN, and no other.
#
# timeout: 90
# klog-allow: puzzlefs:
import errno
import os
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import mountapi  # noqa: E402
from case import CASE_DIR, check, equal, is_mounted, name_of, refused, seeded_random  # noqa: E402
from metadata import Chunk, Inode, Store, encode  # noqa: E402

random = seeded_random()
store = Store(f"{CASE_DIR}/store")
mnt = f"{CASE_DIR}/mnt"
os.mkdir(mnt)
blob = store.add(b"x" * 1000)
good = Inode(2, chunks=[Chunk(blob, 1000)])


def root(entries, **other):
    return Inode(1, "dir", 0o755, entries=entries, **other)


# As a whole: no mount.
fine = encode([root([(b"good", 2)]), good])
for what, contents in {
    "an empty blob": b"",
    "three bytes": b"abc",
    "noise": random.randbytes(10_000),
    "text": b"{" * 4096,
    "half of a good one": fine[:len(fine) // 16 * 8],
    "a root pointer out of bounds": fine[:8] + b"\xff" * 8 + fine[16:],
    "no root": fine[:8] + bytes(8) + fine[16:],
    "a table of 2^32 segments": b"\xff" * 4 + fine[4:],
    "a segment longer than the blob": fine[:4] + struct.pack("<I", 1 << 28) + fine[8:],
    "manifest version 2": encode([root([(b"good", 2)]), good], version=2),
    "manifest version 0": encode([root([(b"good", 2)]), good], version=0),
    "no inodes": encode([]),
    "no root directory": encode([good]),
    "a root that is a file": encode([Inode(1, chunks=[])]),
    "a root that is a link": encode([Inode(1, "lnk", target=b"/")]),
    "a root that is a whiteout": encode([Inode(1, "wht")]),
}.items():
    rootfs = store.add(contents).hex()
    try:
        mountapi.mount(store.path, mnt, f"rootfs={rootfs}")
        check(False, f"{what}: mounted")
    except OSError as error:
        check(error.errno == errno.EUCLEAN, f"{what}: {name_of(error.errno)}, should be EUCLEAN")
    check(not is_mounted(mnt), f"{what}: left mounted")
    with mountapi.Context() as context:
        context.set("source", store.path)
        context.set("rootfs", rootfs)
        with refused(errno.EUCLEAN, f"{what}, by fsconfig(2)"):
            context.create()
        said = context.log()
        check(said and rootfs in said[0], f"{what}: the context's log has {said}")


def read(path):
    with open(path, "rb") as file:
        return file.read()


def attributes(path):
    return {key: os.getxattr(path, key, follow_symlinks=False) for key in os.listxattr(path, follow_symlinks=False)}


# One inode: what is done with it, which must fail.
huge = 1 << 63
bad_inodes = {
    "a chunk without length": (Inode(3, chunks=[Chunk(blob, 0)]), read),
    "lengths beyond 2^64": (Inode(3, chunks=[Chunk(blob, huge), Chunk(blob, huge)]), read),
    "a length of 2^64 - 1": (Inode(3, chunks=[Chunk(blob, (1 << 64) - 1)]), read),
    "a range of a blob beyond 2^64": (Inode(3, chunks=[Chunk(blob, 4096, (1 << 64) - 10)]), read),
    "a digest of 31 bytes": (Inode(3, chunks=[Chunk(blob[:31], 1000)]), read),
    "a digest of 33 bytes": (Inode(3, chunks=[Chunk(blob + b"x", 1000)]), read),
    "no digest": (Inode(3, chunks=[Chunk(b"", 1000)]), read),
    "a size that is not the sum": (Inode(3, chunks=[Chunk(blob, 1000)], size=1001, nlink=1), read),
    "a link without a target": (Inode(3, "lnk"), os.readlink),
    "a link with an empty target": (Inode(3, "lnk", target=b""), os.readlink),
    "a link with a NUL": (Inode(3, "lnk", target=b"a\0b"), os.readlink),
    "a link of 4,096 bytes": (Inode(3, "lnk", target=b"t" * 4096), os.readlink),
    "nanoseconds of a second": (Inode(3, chunks=[], mtime=(0, 10**9), nlink=1), os.lstat),
    "an unknown kind": (Inode(3, "unknown"), os.lstat),
    "a kind from the future": (Inode(3, "fifo", discriminant=99), os.lstat),
    "a whiteout": (Inode(3, "wht"), os.lstat),
    "no inode": (None, os.lstat),
    "a device with too large a major": (Inode(3, "chr", device=(4096, 0)), os.lstat),
    "a device with too large a minor": (Inode(3, "blk", device=(0, 1 << 20)), os.lstat),
    "mode bits beyond the twelve": (Inode(3, "fifo", mode=0o10644), os.lstat),
    "an empty name": (Inode(3, "dir", entries=[(b"", 2)]), os.listdir),
    "a name with a slash": (Inode(3, "dir", entries=[(b"a/b", 2)]), os.listdir),
    "a name with a NUL": (Inode(3, "dir", entries=[(b"a\0", 2)]), os.listdir),
    "a name .": (Inode(3, "dir", entries=[(b".", 1)]), os.listdir),
    "a name ..": (Inode(3, "dir", entries=[(b"..", 1)]), os.listdir),
    "a name of 256 bytes": (Inode(3, "dir", entries=[(b"n" * 256, 2)]), os.listdir),
    "a name twice": (Inode(3, "dir", entries=[(b"a", 2), (b"a", 2)]), os.listdir),
    "a name twice, apart": (Inode(3, "dir", entries=[(b"a", 2), (b"b", 2), (b"a", 2)]), os.listdir),
    "an attribute without a name": (Inode(3, chunks=[], xattrs=[(b"", b"1")]), attributes),
    "an attribute with a NUL in its name": (Inode(3, chunks=[], xattrs=[(b"user.a\0b", b"1")]), attributes),
    "an attribute with a long name": (Inode(3, chunks=[], xattrs=[(b"user." + b"n" * 251, b"1")]), attributes),
}
# A whiteout hides its entry; that is how it is meant. Bits that nobody defined may be ignored.
# What is found when a page is filled, a reader of the page learns of as EIO.
lenient = {"a whiteout": (errno.ENOENT, errno.EUCLEAN), "no inode": (errno.ENOENT, errno.EUCLEAN)}
lenient |= {what: (errno.EIO, errno.EUCLEAN) for what, (_, use) in bad_inodes.items() if use is read}
ignorable = {"mode bits beyond the twelve"}
for what, (inode, use) in bad_inodes.items():
    inodes = [root([(b"bad", 3), (b"good", 2)]), good] + ([inode] if inode else [])
    mountapi.mount(store.path, mnt, f"rootfs={store.add_image(inodes)}")
    for _ in range(2):
        try:
            got = use(f"{mnt}/bad")
            check(what in ignorable, f"{what}: taken, as {str(got)[:100]!r}")
        except OSError as error:
            check(error.errno in lenient.get(what, (errno.EUCLEAN,)), f"{what}: {name_of(error.errno)}, should be EUCLEAN")
    equal(read(f"{mnt}/good"), b"x" * 1000, f"{what}: another file")
    mountapi.umount(mnt)

# A circle of directories is no circle in memory, and is left again.
inodes = [root([(b"down", 2)]), Inode(2, "dir", 0o755, entries=[(b"again", 2), (b"top", 1)])]
rootfs = store.add_image(inodes)
try:
    mountapi.mount(store.path, mnt, f"rootfs={rootfs}")
    for path in ("down", "down/again", "down/again/again", "down/top"):
        try:
            os.stat(f"{mnt}/{path}")
        except OSError as error:
            check(error.errno in (errno.EUCLEAN, errno.ELOOP), f"{path}: {error}")
    mountapi.umount(mnt)
except OSError as error:
    equal(error.errno, errno.EUCLEAN, "a circle of directories")
