#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Mounters that are killed while they mount a large image, or unmount it: there is a whole mount or
# none, the next one succeeds, and nothing is logged as if the image were bad.
#
# For format 3 alone. A mount of format 4 reads nothing but the root.
#
# timeout: 60
import os
import signal
import time

import mountapi
from case import CASE_DIR, check, drop_caches, equal, metric, seeded_random, start
from metadata import Inode, Store

ROUNDS = 60
random = seeded_random()
mnt = f"{CASE_DIR}/mnt"
os.mkdir(mnt)
store = Store(f"{CASE_DIR}/store")
# 6 MB of attributes: to read and to hash them takes a while.
values = [(b"user.%d" % number, random.randbytes(60_000)) for number in range(100)]
rootfs = store.add_image([Inode(1, "dir", 0o755, entries=[(b"file", 2)]), Inode(2, xattrs=values)])


def mount_and_unmount():
    while True:
        mountapi.mount(store.path, mnt, f"rootfs={rootfs}")
        mountapi.umount(mnt)


def look(what):
    equal(os.listdir(mnt), ["file"], what)
    equal(os.getxattr(f"{mnt}/file", "user.42") == values[42][1], True, what)
    mountapi.umount(mnt)


mounted = 0
for number in range(ROUNDS):
    if number % 4 == 0:
        drop_caches()
    child = start(mount_and_unmount)
    time.sleep(random.uniform(0, 0.1))
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    check(os.WIFSIGNALED(status),
          f"round {number}: the mounter ended with {os.waitstatus_to_exitcode(status)}")
    if os.path.ismount(mnt):
        mounted += 1
        look(f"round {number}: what a killed mounter left")
    check(not os.path.ismount(mnt), f"round {number}: mounted twice")
mountapi.mount(store.path, mnt, f"rootfs={rootfs}")
look("the image, in the end")
metric("killed_mounters.left_mounted", mounted)
