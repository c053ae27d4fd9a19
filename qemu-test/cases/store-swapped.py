#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# A store, or a directory in it, whose place another or a symbolic link takes: while an image is
# mounted, what is read stays that of the store that was mounted; while images are mounted, each mount
# is of the image that was asked for, or fails.
#
# formats: 3 4
# timeout: 90
# klog-allow: puzzlefs:
import errno
import itertools
import os
import shutil
import time
import threading

import mountapi
from case import (CASE_DIR, FORMAT, build_image, check, drop_caches, equal, in_threads, metric, name_of,
                  seeded_random, write_file)
from metadata import rootfs_of

MOUNTS = 150
random = seeded_random()
mnt = f"{CASE_DIR}/mnt"
os.mkdir(mnt)
os.mkdir("src")
# One chunk.
contents = random.randbytes(60_000)
write_file("src/file", contents)
rootfs = rootfs_of(build_image("src", store=f"{CASE_DIR}/good"))
# The default in format 3.
options = f"rootfs={rootfs},verify=none"

# One that has blobs of the same names, with other contents, and the same metadata.
good, evil = f"{CASE_DIR}/good", f"{CASE_DIR}/evil"
os.makedirs(f"{evil}/blobs/sha256")
for name in os.listdir(f"{good}/blobs/sha256"):
    with open(f"{good}/blobs/sha256/{name}", "rb") as file:
        blob = file.read()
    write_file(f"{evil}/blobs/sha256/{name}", blob.replace(contents, b"e" * len(contents)))
if FORMAT == 4:
    shutil.copytree(f"{good}/.puzzlefs", f"{evil}/.puzzlefs")


def displace(path, by):
    """Another directory, or a symbolic link to it, takes the place of one; returns how to undo it."""
    os.rename(path, f"{CASE_DIR}/displaced")
    if by == "link":
        os.symlink(path.replace(good, evil), path)
    else:
        os.rename(path.replace(good, evil), path)

    def undo():
        if by == "link":
            os.unlink(path)
        else:
            os.rename(path, path.replace(good, evil))
        os.rename(f"{CASE_DIR}/displaced", path)
    return undo


for part in ("", "/blobs", "/blobs/sha256"):
    for by in ("link", "directory"):
        what = f"{part or 'the store'} replaced by a {by}"
        mountapi.mount(good, mnt, options)
        undo = displace(f"{good}{part}", by)
        drop_caches()
        with open(f"{mnt}/file", "rb") as file:
            equal(file.read() == contents, True, f"{what}, while it is mounted")
        # A mount now is of what is there now; of the two directories in a store none may be a link.
        other = f"{CASE_DIR}/other"
        os.makedirs(other, exist_ok=True)
        try:
            mountapi.mount(good, other, options)
        except OSError as error:
            check(part and by == "link" and error.errno in (errno.ELOOP, errno.ENOTDIR),
                  f"{what}: {name_of(error.errno)}")
        else:
            check(not part or by != "link", f"{what}: it is mounted")
            with open(f"{other}/file", "rb") as file:
                equal(file.read(), b"e" * len(contents), f"{what}, as it is mounted now")
            mountapi.umount(other)
        with open(f"{mnt}/file", "rb") as file:
            equal(file.read() == contents, True, f"{what}, beside another mount")
        undo()
        mountapi.umount(mnt)

# While one thread swaps, another mounts, by a path that is resolved between two calls too.
stop = threading.Event()
outcomes = {}


def swap():
    while not stop.is_set():
        for part in ("", "/blobs", "/blobs/sha256"):
            displace(f"{good}{part}", random.choice(("link", "directory")))()


def is_enough():
    """Mounts have succeeded before a swap and beside one."""
    return outcomes.get("good", 0) > 10 and len(outcomes) > 1


def mount_often():
    # How many mounts meet a swap depends on the machine: more are made until enough of both have been seen.
    deadline = time.monotonic() + 60
    try:
        for number in itertools.count():
            if number >= MOUNTS and (is_enough() or time.monotonic() > deadline):
                break
            try:
                if number % 2:
                    mountapi.mount(good, mnt, options)
                else:
                    with mountapi.Context() as context:
                        context.set("source", good)
                        context.set("rootfs", rootfs)
                        context.set("verify", "none")
                        context.create()
                        context.attach(mnt)
            except OSError as error:
                check(error.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR),
                      f"mount {number}: {name_of(error.errno)}")
                outcomes[error.errno] = outcomes.get(error.errno, 0) + 1
                continue
            with open(f"{mnt}/file", "rb") as file:
                got = file.read()
            check(got in (contents, b"e" * len(contents)), f"mount {number}: bytes of two stores")
            kind = "good" if got == contents else "evil"
            outcomes[kind] = outcomes.get(kind, 0) + 1
            mountapi.umount(mnt)
    finally:
        stop.set()


in_threads(swap, mount_often)
print(outcomes)
metric("store_swapped.mounts", sum(outcomes.values()))
check(is_enough(), f"nothing was swapped in time: {outcomes}")
