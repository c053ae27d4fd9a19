#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Eight threads mount, read and unmount images of one store at once, some of which do not exist or
# are damaged, while caches are dropped: all that is good is right, and nothing remains.
#
# formats: 3 4
# timeout: 90
# klog-allow: puzzlefs:
import errno
import os
import threading
import time

import metadata
import mountapi
from case import (CASE_DIR, build_image, check, drop_caches, equal, eventually, in_threads, metric,
                  seeded_random, slab_objects, write_file)

SECONDS = 8
THREADS = 8
random = seeded_random()
store = f"{CASE_DIR}/store"
contents, images = [], []
for number in range(3):
    os.mkdir(f"src{number}")
    contents.append(random.randbytes(150_000 + number))
    write_file(f"src{number}/file", contents[number])
    images.append(metadata.rootfs_of(build_image(f"src{number}", tag=str(number))))
damaged = "0" * 63 + "1"
write_file(metadata.blob_path(store, damaged), b"not what its name says")
stop = threading.Event()
cycles = [0] * THREADS


def mount_and_read(thread):
    directory = f"{CASE_DIR}/mnt{thread}"
    os.mkdir(directory)
    try:
        while not stop.is_set():
            number = cycles[thread] % 3
            mountapi.mount(store, directory, f"rootfs={images[number]}")
            with open(f"{directory}/file", "rb") as file:
                check(file.read() == contents[number], f"thread {thread}: image {number}")
            mountapi.umount(directory)
            for rootfs, wanted in ((damaged, errno.EBADMSG), ("f" * 64, errno.ENOENT)):
                try:
                    mountapi.mount(store, directory, f"rootfs={rootfs}")
                    check(False, f"thread {thread}: {rootfs} is mounted")
                except OSError as error:
                    equal(error.errno, wanted, f"thread {thread}: mount of {rootfs}")
            cycles[thread] += 1
    finally:
        stop.set()


def disturb():
    deadline = time.monotonic() + SECONDS
    while (time.monotonic() < deadline or min(cycles) == 0) and not stop.is_set():
        drop_caches(2)
        time.sleep(0.1)  # pace
    stop.set()


in_threads(*[lambda t=thread: mount_and_read(t) for thread in range(THREADS)], disturb)
metric("mount_races", sum(cycles))
with open("/proc/self/mounts") as mounts:
    check("puzzlefs" not in mounts.read(), "something is left mounted")
eventually(lambda: slab_objects() == 0, "inodes remain")
