#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# A data blob whose place is taken by a FIFO, a directory, a symbolic link to the blob, a socket or
# a device: EIO, without a wait and without a wakeup, for the pages that need it; right when it is
# back.
#
# For format 3 alone: packs-replaced does this to packs.
#
# timeout: 90
# formats: 3
# klog-allow: puzzlefs: image
import os
import socket

import damage
from case import CASE_DIR, check, drop_caches, mount_image, unmount_image

image = damage.Image()
chunk = image.a_chunk_in_the_middle()
path = image.blob(chunk)
lost = {"big": [(chunk.start, chunk.start + chunk.length)]}


def bind_socket(at):
    # A socket's path has 107 bytes at the most.
    socket.socket(socket.AF_UNIX).bind("s")
    os.rename("s", at)


replacements = {
    "a FIFO": os.mkfifo,
    "a directory": os.mkdir,
    "a symbolic link to the blob": lambda at: os.symlink(f"{CASE_DIR}/kept", at),
    "a symbolic link within the directory": lambda at: os.symlink("kept", at),
    "a dangling symbolic link": lambda at: os.symlink("nonesuch", at),
    "a socket": bind_socket,
    "the null device": lambda at: os.mknod(at, 0o20666, os.makedev(1, 3)),
    "the zero device": lambda at: os.mknod(at, 0o20666, os.makedev(1, 5)),
    "a disk": lambda at: os.mknod(at, 0o60666, os.stat("/dev/vda").st_rdev),
}
for what, make in replacements.items():
    unmount_image()
    os.rename(path, "kept")
    if what == "a symbolic link within the directory":
        os.link("kept", f"{os.path.dirname(path)}/kept")
    make(path)
    mount_image(image.source)
    image.expect_lost(lost)
    said = damage.kernel_log()
    check(said and chunk.blob in said[-1], f"{what}: the kernel's log ends with {said[-1:]}")
    if os.path.isdir(path) and not os.path.islink(path):
        os.rmdir(path)
    os.rename("kept", path)
    drop_caches(2)
    image.expect_lost({}, names=())
