#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# The store's filesystem is frozen, made full, made read-only and unmounted lazily under an image: all
# that was not in memory is read right, and the disk is free when the image is unmounted.
#
# formats: 3 4
# timeout: 60
import os

from case import (CASE_DIR, build_image, check, drop_caches, equal, eventually, mount_image, run,
                  seeded_random, sha256, write_file)

random = seeded_random()
os.mkdir("src")
for number in range(8):
    write_file(f"src/{number}", random.randbytes(300_000 + number))
wanted = {name: sha256(f"src/{name}") for name in os.listdir("src")}
run("truncate", "-s", "64M", "disk.img")
run("mkfs.ext4", "-q", "disk.img")
os.mkdir("disk")
device = run("losetup", "--show", "-f", "disk.img").strip()
run("mount", device, "disk")
mnt = mount_image(build_image("src", store=f"{CASE_DIR}/disk/store"))


def whole(what):
    """Everything is looked up and read anew. (A frozen filesystem would have sync wait for ever.)"""
    write_file("/proc/sys/vm/drop_caches", b"3")
    equal({name: sha256(f"{mnt}/{name}") for name in os.listdir(mnt)}, wanted, what)


os.sync()
run("fsfreeze", "--freeze", "disk")
try:
    whole("frozen")
finally:
    run("fsfreeze", "--unfreeze", "disk")
try:
    with open("disk/filler", "wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 20))
except OSError:
    pass
check(os.statvfs("disk").f_bavail == 0, "the disk is not full")
whole("full")
run("mount", "-o", "remount,ro", "disk")
whole("read-only")
run("umount", "--lazy", "disk")
check(not os.path.exists("disk/store"), "the store is still there")
whole("unmounted lazily")
with open(f"{mnt}/3", "rb") as file:
    run("umount", "--lazy", mnt)
    drop_caches(1)
    equal(len(file.read()), 300_003, "a file of an image that is unmounted, too")


def released():
    """Nobody holds the disk any more: it could be made anew."""
    try:
        os.close(os.open(device, os.O_RDWR | os.O_EXCL))
    except OSError:
        return False
    return True


eventually(released, "the disk is still in use")
run("losetup", "--detach", device)
