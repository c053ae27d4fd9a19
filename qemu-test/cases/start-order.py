#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# The mount option prefetch: the ranges of the image's start-up order come to memory by themselves. The mount
# is never busy because of that, and a filesystem below it only until the process has ended.
#
# timeout: 120
import os
import subprocess

import lib
from case import (CASE_DIR, PAGE, build_image, check, drop_caches, equal, eventually, in_memory, is_mounted,
                  run, unmount_image, write_file)

MIB = 1 << 20
mnt = f"{CASE_DIR}/mnt"
tree = f"{CASE_DIR}/tree"
os.mkdir(tree)
for name, size in (("first", 4 * MIB), ("second", 3 * MIB), ("other", MIB)):
    write_file(f"{tree}/{name}", os.urandom(size))
write_file(f"{CASE_DIR}/order", f"/second\n{MIB} {MIB} /first\n/none\n0 {PAGE} /other\n".encode())


def readers():
    """The processes that read ahead for mounts."""
    found = []
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{process}/cmdline", "rb") as line:
                if b"--prefetch-mount" in line.read():
                    found.append(process)
        except OSError:
            continue
    return found


def no_readers():
    return not readers()


def resident(name):
    """The pages of a file that are in memory."""
    with open(f"{mnt}/{name}", "rb", buffering=0) as file:
        return in_memory(file.fileno())


def mount(options="prefetch"):
    lib.mount_image(image, mnt, options)


image = build_image(tree, "--order", f"{CASE_DIR}/order")

# Without the option, nothing comes to memory.
mount("ro")
drop_caches()
for name in ("first", "second", "other"):
    equal(resident(name), 0, f"pages of {name} in memory")
unmount_image()
drop_caches()


def ranges_are_read():
    eventually(lambda: resident("second") == 3 * MIB // PAGE, "not all of 'second' is in memory")
    eventually(lambda: resident("first") >= MIB // PAGE, "the range of 'first' is not in memory")
    eventually(lambda: resident("other") >= 1, "the page of 'other' is not in memory")
    eventually(no_readers, "the process does not end by itself")
    unmount_image()
    drop_caches()


# With it, the ranges do, from a process that ends by itself.
mount()
ranges_are_read()
run("puzzlefs", "mount", "-o", "prefetch,nodev", image, mnt)
ranges_are_read()
run("puzzlefs", "mount", "-w", "-o", "prefetch", image, mnt)
ranges_are_read()
with open(f"{CASE_DIR}/fstab", "w") as table:
    print(f"{image} {mnt} puzzlefs noauto,prefetch 0 0", file=table)
run("mount", "-T", f"{CASE_DIR}/fstab", mnt)
ranges_are_read()

# A mount can be unmounted at once, whatever the process is at, and so can the filesystem of the store then.
disk, directory = f"{CASE_DIR}/disk", f"{CASE_DIR}/below"
os.mkdir(directory)
with open(disk, "wb") as file:
    file.truncate(64 * MIB)
run("mkfs.ext4", "-q", disk)
run("mount", "-o", "loop", disk, directory)
run("puzzlefs", "copy", "-q", image, f"{directory}/store:image")
image = f"{directory}/store:image"
for options in (["mount", "-t", "puzzlefs", "-o", "prefetch"], ["puzzlefs", "mount", "-w", "-o", "prefetch"]):
    for _ in range(5):
        drop_caches()
        subprocess.run([*options, image, mnt], check=True)
        check(is_mounted(mnt), "nothing is mounted")
        subprocess.run(["umount", mnt], check=True)
eventually(no_readers, "a process does not end with its mount")
# The kernel can release a filesystem a moment after the process.
eventually(lambda: subprocess.run(["umount", directory]).returncode == 0, "the store's filesystem is busy")

# Without an order, or with one that no reader accepts, the image is mounted, and a message says why.
image = build_image(tree, "--parent=none")
said = subprocess.run(["mount", "-t", "puzzlefs", "-o", "prefetch", image, mnt], check=True,
                      stderr=subprocess.PIPE, text=True).stderr
check("prefetch: the image has no start-up order" in said, said)
equal(no_readers(), True, "no process reads ahead")
unmount_image()
