#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Compressed blobs of as many frames as there may be, of a byte each: what the kernel keeps to find a
# frame is 3 MiB for each blob that is open, is told to memory reclaim, and is given back. So is one
# with a checksum of each, whose table is larger than all else that is read at once.
#
# For format 3 alone. Chunks of format 4 are single frames, without tables.
#
# timeout: 60
import glob
import os

import mountapi
from case import CASE_DIR, check, drop_caches, equal, eventually, meminfo, metric
from metadata import Chunk, Inode, Store
from seekable import compress, of_frames, xxh64

FRAMES = 1 << 17
BLOBS = 12
CHECKED = BLOBS
TABLE = 24 * FRAMES
# Others come and go in the meantime.
SLACK = 4 << 20

store = Store(f"{CASE_DIR}/store")
chunks = []
for number in range(BLOBS):
    byte = bytes([number])
    blob = of_frames([compress(byte)] * FRAMES, [(len(compress(byte)), 1, None)] * FRAMES)
    chunks.append(Chunk(store.add(blob), FRAMES, compressed=True))
byte = bytes([CHECKED])
entry = (len(compress(byte)), 1, xxh64(byte) & 0xFFFFFFFF)
blob = of_frames([compress(byte)] * FRAMES, [entry] * FRAMES, checksums=True)
chunks.append(Chunk(store.add(blob), FRAMES, compressed=True))
entries = [(b"%d" % number, 2 + number) for number in range(BLOBS + 1)]
files = [Inode(2 + number, chunks=[chunk]) for number, chunk in enumerate(chunks)]
rootfs = store.add_image([Inode(1, "dir", 0o755, entries=sorted(entries)), *files])
os.mkdir("mnt")
mountapi.mount(store.path, "mnt", f"rootfs={rootfs}")


def told():
    """How many objects memory reclaim is told of, in open blobs; None if the kernel does not say."""
    found = glob.glob("/sys/kernel/debug/shrinker/puzzlefs-open-blobs-*/count")
    if not found:
        return None
    with open(found[0]) as file:
        return sum(int(line.split()[1]) for line in file if len(line.split()) > 1)


def used():
    """What the kernel has allocated for itself, of pages that follow each other or do not."""
    now = meminfo()
    return now["SUnreclaim"] + now["VmallocUsed"]


drop_caches()
before = used()
for number in range(BLOBS):
    with open(f"mnt/{number}", "rb") as file:
        file.seek(FRAMES - 4096)
        equal(file.read(), bytes([number]) * 4096, f"the end of file {number}")
grown = used() - before
metric("bytes_of_a_table", grown // BLOBS)
check(BLOBS * TABLE - SLACK <= grown <= 2 * BLOBS * TABLE + SLACK, f"{BLOBS} tables are {grown} bytes")
pages = told()
check(pages is None or pages >= BLOBS * TABLE // 4096,
      f"memory reclaim is told of {pages} pages of {grown} bytes")
drop_caches(2)
eventually(lambda: used() - before <= SLACK, "the tables are still there")
for number in (0, CHECKED):
    with open(f"mnt/{number}", "rb") as file:
        equal(file.read(), bytes([number]) * FRAMES, f"file {number}")
mountapi.umount("mnt")
