# SPDX-License-Identifier: MIT OR Apache-2.0
"""Reads of a page that is in more blobs than can be open at once, while others make files among them."""

import errno
import hashlib
import os
import sys

import mountapi
import chunked
from case import FORMAT, PAGE, check, end, equal, metric, seeded_random, start, turns, write_file
from listing import make_files
from metadata import Chunk, Inode, Store

MAKERS = 3
BLOBS = 16  # twice as many as the cache of open blobs has room for
SHARDS = 128  # in which it keeps them, by the first byte of the digest
TURNS = 20
STUCK = 30  # seconds

random = seeded_random()


def alike():
    """Contents of a blob whose digest begins like the others'."""
    while True:
        contents = random.randbytes(PAGE // BLOBS)
        if hashlib.sha256(contents).digest()[0] % SHARDS == 0:
            return contents


def try_reads(path):
    parts = [alike() for _ in range(BLOBS)]
    if FORMAT == 3:
        store = Store(path)
        chunks = [Chunk(store.add(part), len(part)) for part in parts]
        rootfs = store.add_image([Inode(1, "dir", 0o755, entries=[(b"file", 2)]), Inode(2, chunks=chunks)])
    else:
        # Loose chunks, each a blob.
        store = chunked.Store(path)
        extents = [(number * len(part), part, 0) for number, part in enumerate(parts)]
        file = chunked.Node("file", size=PAGE, extents=extents)
        rootfs = store.add_image([[chunked.Node("dir", 0o755, links=2, entries={b"file": file}), file]])
    os.mkdir("mnt")
    mountapi.mount(store.path, "mnt", f"rootfs={rootfs}")
    counter, refused = os.pipe()

    def read():
        write_file("/proc/sys/vm/drop_caches", b"1")
        try:
            with open("mnt/file", "rb") as file:
                check(file.read() == b"".join(parts), "the file reads right")
        except OSError as error:
            equal(error.errno, errno.EDEADLK, "the errno of a read")
            os.write(refused, b".")

    read()
    makers = [start(make_files, f"{store.path}/blobs/sha256") for _ in range(MAKERS)]
    child, count = turns(lambda: read, TURNS, STUCK)
    end(child, "the reader")
    for maker in makers:
        end(maker, "a process that creates files")
    check(count >= TURNS, f"the reader goes on after {count} turns")
    os.close(refused)
    metric("reads_refused", len(os.read(counter, 1000)))
    read()
    mountapi.umount("mnt")


if __name__ == "__main__":
    try_reads(sys.argv[1])
