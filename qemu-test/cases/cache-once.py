#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# What is read of an image is in the page cache once: next to nothing of the blobs stays behind
# there, be they raw, compressed or verified.
#
# needs: sample
# timeout: 180
import ctypes
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from case import CASE_DIR, check, drop_caches, mount_image  # noqa: E402

SYS_CACHESTAT = 451
PAGE = os.sysconf("SC_PAGESIZE")
libc = ctypes.CDLL(None, use_errno=True)


def cached(path):
    """Bytes of a file that are in the page cache."""
    everything, answer = (ctypes.c_uint64 * 2)(0, 0), (ctypes.c_uint64 * 5)()
    fd = os.open(path, os.O_RDONLY | os.O_NOATIME)
    try:
        if libc.syscall(SYS_CACHESTAT, fd, everything, answer, 0):
            raise OSError(ctypes.get_errno(), path)
    finally:
        os.close(fd)
    return answer[0] * PAGE


def files(directory):
    for path, _, names in os.walk(directory):
        for name in names:
            name = os.path.join(path, name)
            if os.path.isfile(name) and not os.path.islink(name):
                yield name


source = mount_image("/payload/store:debian", f"{CASE_DIR}/source")
for store, *options in ("raw",), ("compressed", "-z"):
    subprocess.run(["puzzlefs", "build", "-q", *options, f"{source}/usr/lib", f"{CASE_DIR}/{store}:lib"], check=True)
subprocess.run(["umount", source], check=True)
for store, verify in ("raw", "none"), ("compressed", "none"), ("compressed", "digest"):
    os.sync()
    drop_caches()
    mnt = mount_image(f"{CASE_DIR}/{store}:lib", f"{CASE_DIR}/{store}-{verify}", f"ro,verify={verify}")
    for name in files(mnt):
        with open(name, "rb") as file:
            while file.read(1 << 20):
                pass
    once = sum(map(cached, files(mnt)))
    twice = sum(map(cached, files(f"{store}/blobs")))
    print(f"{store}, verify={verify}: {once >> 20} MiB of files, {twice >> 20} MiB of blobs in the page cache")
    check(once > 50 << 20, f"{store}, {verify}: only {once} bytes of the files are cached")
    check(twice < once // 50, f"{store}, {verify}: {twice} bytes of the blobs are cached, too")
    subprocess.run(["umount", mnt], check=True)
