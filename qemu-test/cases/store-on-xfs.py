#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# A store on XFS, or on overlayfs on XFS, where a read of a file takes its lock: a blob is read, and
# mapped by FIEMAP, into memory mapped from the file that it serves, while other processes change its
# attributes. No process waits for itself, and all bytes are right.
#
# formats: 3 4
# timeout: 120
import os

import ownpages
from case import (CASE_DIR, build_image, drop_caches, equal, mount_image, run, seeded_random, unmount_image,
                  write_file)

contents = seeded_random().randbytes(ownpages.LEN // 2).hex().encode()
os.mkdir("src")
write_file("src/file", contents)
run("truncate", "-s", "320M", "disk.img")
run("mkfs.xfs", "-q", "disk.img")
for directory in "disk", "empty", "merged":
    os.mkdir(directory)
run("mount", "-o", "loop", "disk.img", "disk")
for directory in "disk/upper", "disk/work":
    os.mkdir(directory)
run("mount", "-t", "overlay", "overlay", "-o", "lowerdir=empty,upperdir=disk/upper,workdir=disk/work",
    "merged")
for root in "disk", "merged":
    for level in 0, 3:
        store = f"{CASE_DIR}/{root}/store{level}"
        mnt = mount_image(build_image("src", f"--compress={level}", store=store))
        blob = max((entry.path for entry in os.scandir(f"{store}/blobs/sha256")), key=os.path.getsize)
        works = [ownpages.reads] * (level == 0) + [ownpages.maps]
        with open(blob, "rb") as file:
            stored = file.read()
        ownpages.try_all(f"{mnt}/file", blob, stored, works)
        drop_caches()
        with open(f"{mnt}/file", "rb") as file:
            equal(file.read(), contents, "the file")
        unmount_image()
run("umount", "merged")
run("umount", "disk")
