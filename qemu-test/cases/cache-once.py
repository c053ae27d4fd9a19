#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# The bytes that are read of an image are in the page cache once: next to nothing of the blobs stays behind
# there, be they raw, compressed or verified. With fs-verity it is less than half.
#
# needs: sample
# timeout: 180
import ctypes
import glob
import os
import subprocess

from case import CASE_DIR, build_image, check, drop_caches, mount_image

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


# A part of the sample is enough: in the store that it has, raw and compressed.
PART = "usr/lib/python3*"
source = mount_image("/payload/store:debian", f"{CASE_DIR}/source")
part, = (path for path in glob.glob(f"{source}/{PART}") if path != f"{source}/usr/lib/python3")
raw = build_image(part, "--compress=0", store=f"{CASE_DIR}/raw")
compressed = build_image(part, "--compress", store=f"{CASE_DIR}/compressed")
inside = os.path.relpath(part, source)
subprocess.run(["umount", source], check=True)
for image, inside, verify in (("/payload/store:debian", inside, "none"),
                              (raw, ".", "none"),
                              (compressed, ".", "none"),
                              (compressed, ".", "digest"),
                              (raw, ".", "fsverity"),
                              (compressed, ".", "fsverity")):
    store = image.rpartition(":")[0]
    if verify == "fsverity":
        for blob in files(f"{store}/blobs"):
            subprocess.run(["fsverity", "enable", blob], check=True)
    os.sync()
    drop_caches()
    what = f"{os.path.basename(store)}, verify={verify}"
    mnt = mount_image(image, f"{CASE_DIR}/mnt", f"ro,verify={verify}")
    for name in files(f"{mnt}/{inside}"):
        with open(name, "rb") as file:
            while file.read(1 << 20):
                pass
    once = sum(map(cached, files(f"{mnt}/{inside}")))
    twice = sum(map(cached, files(f"{store}/blobs")))
    print(f"{what}: {once >> 10} KiB of files, {twice >> 10} KiB of blobs in the page cache")
    check(once > 20 << 20, f"{what}: only {once} bytes of the files are cached")
    # With fs-verity, pages that the lower filesystem has read ahead can stay. Without care all do.
    share = 2 if verify == "fsverity" else 50
    check(twice < once // share, f"{what}: {twice} bytes of the blobs are cached, too")
    subprocess.run(["umount", mnt], check=True)
