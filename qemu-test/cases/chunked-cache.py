#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Metadata chunks are read once for all mounts and all tasks, and memory reclaim frees them.
#
# timeout: 120
import glob
import os

import mountapi
from case import CASE_DIR, check, counters, drop_caches, in_threads
from chunked import Node, Store

BLOCKS, FILES, THREADS = 40, 60, 8
store = Store(f"{CASE_DIR}/store")
directories = {b"dir-%02d" % number: Node("dir", 0o755, entries={
                   b"%03d-%d-" % (file, number) + b"x" * 200: Node("file") for file in range(FILES)})
               for number in range(BLOCKS)}
root = Node("dir", 0o755, entries=directories)
blocks = [[root]] + [[directory, *(directory.entries[name] for name in sorted(directory.entries))]
                     for directory in directories.values()]
rootfs = store.add_image(blocks)
total = sum(os.path.getsize(path) for path in glob.glob(f"{store.path}/blobs/sha256/*"))


def visit(directory):
    """Looks at every inode; returns the number of bytes that the mount has read for that."""
    before = counters(directory)["bytes_read"]
    seen = sum(bool(os.lstat(os.path.join(path, name))) for path, _, names in os.walk(directory)
               for name in names)
    check(seen == BLOCKS * FILES, f"{seen} files, should be {BLOCKS * FILES}")
    return counters(directory)["bytes_read"] - before


mounts = [f"{CASE_DIR}/first", f"{CASE_DIR}/second"]
for mnt in mounts:
    os.mkdir(mnt)
    mountapi.mount(store.path, mnt, f"rootfs={rootfs}")
first, second = mounts

# Of several tasks that need a chunk, one reads it.
in_threads(*THREADS * [lambda: visit(first)])
read = counters(first)["bytes_read"]
check(total // 2 < read < 2 * total, f"{read} bytes read of {total}, by {THREADS} threads")

# Another mount finds the chunks in memory.
read = visit(second)
check(read < total // 10, f"{read} bytes read of {total}, though another mount has the chunks")

# Nobody uses them any more.
mountapi.umount(first)
drop_caches(2)
read = visit(second)
check(read > total // 2, f"{read} bytes read of {total}, after memory reclaim")
mountapi.umount(second)
