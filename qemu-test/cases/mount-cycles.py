#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# 200 times: mount, read, unmount. No inode, no open file, no memory and no reference to the module
# or to the store's filesystem remains.
#
# formats: 3 4
# timeout: 120
import os

import metadata
import mountapi
from case import (CASE_DIR, build_image, check, drop_caches, equal, eventually, meminfo, metric, run,
                  seeded_random, shrink_slabs, slab_objects, write_file)

CYCLES = 200
random = seeded_random()

# The store on a filesystem of its own: it can only be unmounted if nothing holds a file of it.
os.makedirs("src/directory/below")
contents = {f"directory/{n}": random.randbytes(n * 20_000) for n in range(10)}
for name, data in contents.items():
    write_file(f"src/{name}", data)
os.mkdir("disk")
run("truncate", "-s", "64M", "disk.img")
run("mkfs.ext4", "-q", "disk.img")
run("mount", "-o", "loop", "disk.img", "disk")
source = build_image("src", store=f"{CASE_DIR}/disk/store")
store, rootfs = f"{CASE_DIR}/disk/store", metadata.rootfs_of(source)
mnt = f"{CASE_DIR}/mnt"
os.mkdir(mnt)


def figures():
    """What must not grow: references to the module, its inodes, open files, free memory."""
    with open("/sys/module/puzzlefs/refcnt") as file:
        references = int(file.read())
    shrink_slabs()
    # Blobs are backing files, which file-nr does not count.
    with open("/proc/sys/fs/file-nr") as file:
        files = int(file.read().split()[0]) + slab_objects("bfilp")
    return references, slab_objects(), files, meminfo()


def cycle(number, lazily=False):
    mountapi.mount(store, mnt, f"rootfs={rootfs}")
    name = f"directory/{number % 10}"
    with open(f"{mnt}/{name}", "rb") as file:
        check(file.read() == contents[name], f"cycle {number}: {name}")
        if lazily:
            mountapi.umount(mnt, mountapi.MNT_DETACH)
            check(os.pread(file.fileno(), 100, 0) == contents[name][:100],
                  "a file of a mount that is detached")
    if not lazily:
        os.listdir(f"{mnt}/directory/below")
        mountapi.umount(mnt)


for number in range(20):
    cycle(number)
drop_caches()
eventually(lambda: slab_objects() == 0, "inodes remain after the first mounts")
before = figures()
for number in range(CYCLES):
    cycle(number, lazily=number % 20 == 7)
eventually(lambda: slab_objects() == 0, f"inodes remain after {CYCLES} mounts")
drop_caches()
after = figures()
equal(after[0], before[0], "references to the module")
# file-nr counts in batches per processor.
check(after[2] - before[2] < 50, f"open files: {before[2]}, then {after[2]}")
slab = (after[3]["SUnreclaim"] - before[3]["SUnreclaim"]) >> 10
vmalloc = (after[3]["VmallocUsed"] - before[3]["VmallocUsed"]) >> 10
metric("mount_cycles_slab_kib", slab)
metric("mount_cycles_vmalloc_kib", vmalloc)
# A page a mount would be 800 kB.
check(slab < 600 and vmalloc < 400, f"memory grew: {slab} KiB of slab, {vmalloc} KiB of vmalloc")
run("umount", "disk")
