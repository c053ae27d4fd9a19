#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Mounts of one image have its metadata in memory once; yet each that wants its blob to have an
# fs-verity digest is told if it has not.
#
# For format 3 alone: chunked-cache does this for format 4.
#
# timeout: 120
# klog-allow: puzzlefs: metadata blob [0-9a-f]+: it has not the fs-verity digest
import errno
import os
import stat

import mountapi
from case import CASE_DIR, check, drain_free_pages, drop_caches, equal, eventually, meminfo, refused
from metadata import Inode, Store

ENTRIES, MOUNTS = 50_000, 40
store = Store(f"{CASE_DIR}/store")
rootfs = store.add_image([Inode(1, "dir", 0o755,
                                entries=[(b"%06d" % number, 2) for number in range(ENTRIES)]),
                          Inode(2, "fifo")])
size = os.path.getsize(f"{store.path}/blobs/sha256/{rootfs}")
others = [f"{CASE_DIR}/{number}" for number in range(MOUNTS)]
first, last = f"{CASE_DIR}/first", f"{CASE_DIR}/last"
for directory in (*others, first, last):
    os.mkdir(directory)


def mount(directory, options=""):
    mountapi.mount(store.path, directory, f"rootfs={rootfs}{options}")


def in_use():
    """Memory in use, in bytes, but for what is cached of files."""
    drop_caches()
    drain_free_pages()
    info = meminfo()
    return info["MemTotal"] - info["MemFree"] - info["Cached"] - info["Buffers"]


mount(first)
before = in_use()
for directory in others:
    mount(directory)
taken = in_use() - before
check(taken < MOUNTS * size // 4, f"{MOUNTS} more mounts of {size} bytes of metadata took {taken} bytes")

with refused(errno.EBADMSG, "a mount that wants an fs-verity digest, beside others that do not"):
    mount(last, f",rootfs_verity={'0' * 64}")
mount(last)

# The metadata stays for as long as one of them does, whichever.
for directory in (first, *others):
    check(stat.S_ISFIFO(os.stat(f"{directory}/{ENTRIES - 1:06d}").st_mode), directory)
    mountapi.umount(directory)
equal(len(os.listdir(last)), ENTRIES, "entries in the mount that is left")
mountapi.umount(last)
# The kernel frees a superblock, and what it keeps of it, after a while.
eventually(lambda: before - in_use() > size // 2, "the last unmount does not give the metadata back")
