# SPDX-License-Identifier: MIT OR Apache-2.0
"""Metadata with the right digest and the wrong contents: of whole blobs, and of one inode."""

import os
import struct

from case import name_of
from metadata import Chunk, Inode, encode


def root(entries, **other):
    return Inode(1, "dir", 0o755, entries=entries, **other)


def good_inode(blob):
    """The file `good`; `blob` is the digest of 1,000 bytes."""
    return Inode(2, chunks=[Chunk(blob, 1000)])


def whole_blobs(blob, random):
    """Metadata blobs that nothing can be made of."""
    good = good_inode(blob)
    fine = encode([root([(b"good", 2)]), good])
    return {
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
    }


def read(path):
    with open(path, "rb") as file:
        return file.read()


def attributes(path):
    return {key: os.getxattr(path, key, follow_symlinks=False)
            for key in os.listxattr(path, follow_symlinks=False)}


def mode(path):
    return os.lstat(path).st_mode


def outcome(use, path):
    """What a call returns, or the name of the errno that it fails with."""
    try:
        return use(path)
    except OSError as error:
        return name_of(error.errno)


def bad_images(blob):
    """Images with a file `good` and something else, `bad`: what is wrong with it, the image's inodes, and
    the call that finds the fault."""
    for what, (inode, use) in _bad_inodes(blob).items():
        inodes = [root([(b"bad", 3), (b"good", 2)]), good_inode(blob)]
        yield what, inodes + ([inode] if inode else []), use


def _bad_inodes(blob):
    huge = 1 << 63
    return {
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
        "an attribute with a NUL in its name": (Inode(3, chunks=[], xattrs=[(b"user.a\0b", b"1")]),
                                                attributes),
        "an attribute with a long name": (Inode(3, chunks=[], xattrs=[(b"user." + b"n" * 251, b"1")]),
                                          attributes),
    }
