#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# As store-listed, but the blob is not open: the file has more blobs than are opened with it. The
# process that lists gets EFAULT after a limited time, and can be killed before. Others go on.
#
# formats: 3 4
# timeout: 180
# klog-allow: puzzlefs: image .*EDEADLK
import errno
import os
import time

import mountapi
import chunked
from case import (CASE_DIR, FORMAT, PAGE, check, end, equal, fail, metric, seeded_random, start, turns,
                  write_file)
from listing import list_into_map, make_files
from metadata import Chunk, Inode, Store

MAKERS = 3
BLOBS = 8  # more than are opened with a file
STUCK = 2  # seconds
LIMIT = 2 * 10  # seconds: a listing touches the page twice
SLACK = 10

random = seeded_random()
parts = [random.randbytes(PAGE) for _ in range(BLOBS)]
if FORMAT == 3:
    store = Store(f"{CASE_DIR}/store")
    rootfs = store.add_image([Inode(1, "dir", 0o755, entries=[(b"file", 2)]),
                              Inode(2, chunks=[Chunk(store.add(part), PAGE) for part in parts])])
else:
    # Loose chunks, each a blob.
    store = chunked.Store(f"{CASE_DIR}/store")
    extents = [(number * PAGE, part, 0) for number, part in enumerate(parts)]
    file = chunked.Node("file", size=BLOBS * PAGE, extents=extents)
    rootfs = store.add_image([[chunked.Node("dir", 0o755, links=2, entries={b"file": file}), file]])
os.mkdir("mnt")
mountapi.mount(store.path, "mnt", f"rootfs={rootfs}")
blobs = f"{store.path}/blobs/sha256"


def list_last():
    return list_into_map(blobs, "mnt/file", BLOBS - 1)


def list_until_refused(report):
    """Lists until a listing fails, and says how long that one took."""
    turn = list_last()
    while True:
        began = time.monotonic()
        error = turn()
        if error:
            equal(error, errno.EFAULT, "the listing's errno")
            os.write(report, f"{time.monotonic() - began}\n".encode())
            return


def read():
    with open("mnt/file", "rb") as file:
        check(file.read() == b"".join(parts), "the file reads right")


makers = [start(make_files, blobs) for _ in range(MAKERS)]
reader, writer = os.pipe()
child = start(list_until_refused, writer)
os.close(writer)
with os.fdopen(reader) as report:
    took = float(report.readline() or fail("no listing failed"))
equal(os.waitpid(child, 0)[1], 0, "the status of the process that lists")
check(took < LIMIT + SLACK, f"the listing that fails takes {took:.1f} s")
metric("store_listed_refused_seconds", round(took, 1))
read()

child, _ = turns(list_last, 1000, STUCK)
end(child, "the process that lists")
began = time.monotonic()
write_file("/proc/sys/vm/drop_caches", b"3")
read()
check(time.monotonic() - began < SLACK, "a reader goes on")
for maker in makers:
    end(maker, "a process that creates files")
mountapi.umount("mnt")
