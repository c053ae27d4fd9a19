#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# A store keeps at most 1,024 blobs open, whoever reads and through however many mounts; memory
# pressure closes them, and so does the last unmount.
#
# timeout: 90
import os

import mountapi
from case import (CASE_DIR, check, drop_caches, equal, eventually, in_threads, metric, seeded_random,
                  slab_objects)
from metadata import Chunk, Inode, Store

MOST = 1024
BLOBS = 1500
random = seeded_random()

# Two files of 1,500 blobs each, all different, 100 bytes a blob.
store = Store(f"{CASE_DIR}/store")
contents = {name: [random.randbytes(100) for _ in range(BLOBS)] for name in ("a", "b")}
inodes = [Inode(1, "dir", 0o755, entries=[(b"a", 2), (b"b", 3)])]
for number, parts in enumerate(contents.values(), 2):
    inodes.append(Inode(number, chunks=[Chunk(store.add(part), 100) for part in parts]))
one = store.add_image(inodes)
two = store.add_image([Inode(1, "dir", 0o700, entries=[(b"b", 3)]), inodes[2]])
contents = {name: b"".join(parts) for name, parts in contents.items()}


def open_files():
    """Backing files, which file-nr does not count."""
    return slab_objects("bfilp")


def counted_files():
    with open("/proc/sys/fs/file-nr") as file:
        return int(file.read().split()[0])


def read(root, name):
    with open(f"{root}/{name}", "rb") as file:
        equal(file.read() == contents[name], True, f"{root}/{name}")


drop_caches()
before, counted = open_files(), counted_files()
# Others come and go in the meantime.
SLACK = 40
for root, rootfs in (("one", one), ("two", two)):
    os.mkdir(root)
    mountapi.mount(store.path, root, f"rootfs={rootfs}")

read("one", "a")
count = open_files() - before
metric("open_blobs_after_one_file", count)
check(100 < count <= MOST + SLACK, f"{count} blobs open after a file of {BLOBS}")
in_threads(*[lambda r=r, n=n: read(r, n) for r, n in (("one", "a"), ("one", "b"), ("two", "b"))])
count = open_files() - before
check(100 < count <= MOST + SLACK, f"{count} blobs open after two mounts of the store have been read")

# file-nr counts in batches per processor.
check(counted_files() - counted < 100,
      f"{counted_files() - counted} of {count} open blobs count against file-max")

# Under pressure they are closed, and what was closed is opened again.
drop_caches(2)
eventually(lambda: open_files() - before <= SLACK, f"{open_files() - before} blobs open after drop_caches")
drop_caches(1)
read("one", "b")
check(open_files() - before > 100, "no blob is kept open after they were closed")
drop_caches(1)
in_threads(lambda: read("one", "a"), lambda: read("two", "b"), lambda: [drop_caches(2) for _ in range(20)])

# The first mount goes: the store is still in use. The last one goes: nothing is.
mountapi.umount("one")
drop_caches(1)
read("two", "b")
mountapi.umount("two")
eventually(lambda: open_files() - before <= SLACK,
           f"{open_files() - before} blobs open after the last unmount")
