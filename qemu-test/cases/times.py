#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Times of modification: to the nanosecond, before 1970, after 2038, on all kinds of files. Reading
# changes none.
#
# formats: 3 4
# timeout: 40
import os

from case import build_image, drop_caches, equal, mount_image, write_file

SECOND = 10**9
times = [0, 1, -1, 999_999_999, -999_999_999, SECOND, -SECOND, 1_234_567_890 * SECOND + 123_456_789,
         # 1906; the last second that 32 bits hold, the next one, and its nanoseconds; 2100; 2400.
         -2_000_000_000 * SECOND + 1, (2**31 - 1) * SECOND, 2**31 * SECOND, 2**31 * SECOND + 7,
         -(2**31) * SECOND, 4_102_444_800 * SECOND + 500, 13_569_465_600 * SECOND + 999_999_999]

os.mkdir("src")
wanted = {}
for number, ns in enumerate(times):
    for kind in ("file", "directory", "symlink", "fifo"):
        path = f"src/{kind}-{number}"
        if kind == "file":
            write_file(path, b"x")
        elif kind == "directory":
            os.mkdir(path)
        elif kind == "symlink":
            os.symlink("file-0", path)
        else:
            os.mkfifo(path)
        os.utime(path, ns=(ns, ns), follow_symlinks=False)
        # What the source's filesystem made of it is what counts.
        wanted[os.path.basename(path)] = os.lstat(path).st_mtime_ns
equal(len(set(wanted.values())), len(times), "times that the source's filesystem can tell apart")
os.utime("src", ns=(5, 42 * SECOND + 42))

mnt = mount_image(build_image("src"), options="ro,strictatime")
for _ in range(2):
    for name, ns in wanted.items():
        stat = os.lstat(f"{mnt}/{name}")
        equal(stat.st_mtime_ns, ns, f"mtime of {name}")
        # The image holds no others.
        equal((stat.st_atime_ns, stat.st_ctime_ns), (ns, ns), f"atime and ctime of {name}")
    equal(os.stat(mnt).st_mtime_ns, 42 * SECOND + 42, "mtime of the root")
    # Reading, listing and following must not move the time of access.
    for number in range(len(times)):
        with open(f"{mnt}/file-{number}", "rb") as file:
            equal(file.read(), b"x", "contents")
        os.listdir(f"{mnt}/directory-{number}")
        os.readlink(f"{mnt}/symlink-{number}")
    drop_caches()
