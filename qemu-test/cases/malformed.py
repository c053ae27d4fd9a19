#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Metadata with the right digest and the wrong contents: what is wrong with the image as a whole
# stops the mount, what is wrong with an inode costs that inode, EUCLEAN, and no other.
#
# For format 3 alone: chunked-malformed does this for format 4.
#
# timeout: 90
# klog-allow: puzzlefs:
import errno
import os
import stat

import mountapi
from bad_metadata import bad_images, mode, outcome, read, root, whole_blobs
from case import CASE_DIR, Differences, check, is_mounted, name_of, refused, seeded_random
from metadata import Inode, Store

random = seeded_random()
store = Store(f"{CASE_DIR}/store")
mnt = f"{CASE_DIR}/mnt"
os.mkdir(mnt)
blob = store.add(b"x" * 1000)

# As a whole: no mount.
for what, contents in whole_blobs(blob, random).items():
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

# One inode: what is done with it fails with EUCLEAN. (A whiteout hides its entry.)
others = {"a whiteout": "ENOENT"}
differences = Differences()
for what, inodes, use in bad_images(blob):
    mountapi.mount(store.path, mnt, f"rootfs={store.add_image(inodes)}")
    for attempt in ("first", "second"):
        differences.compare(outcome(use, f"{mnt}/bad"), others.get(what, "EUCLEAN"),
                            f"{what}, the {attempt} time")
    differences.compare(outcome(read, f"{mnt}/good"), b"x" * 1000, f"{what}: another file")
    mountapi.umount(mnt)

# A circle of directories is no circle in memory, and is left again.
inodes = [root([(b"down", 2)]), Inode(2, "dir", 0o755, entries=[(b"again", 2), (b"top", 1)])]
mountapi.mount(store.path, mnt, f"rootfs={store.add_image(inodes)}")
for path, wanted in {"down": stat.S_IFDIR | 0o755, "down/again": "ELOOP", "down/again/again": "ELOOP",
                     "down/top": "ELOOP"}.items():
    differences.compare(outcome(mode, f"{mnt}/{path}"), wanted, f"a circle of directories: {path}")
differences.compare(sorted(os.listdir(f"{mnt}/down")), ["again", "top"], "a circle of directories: its names")
mountapi.umount(mnt)
differences.end()
