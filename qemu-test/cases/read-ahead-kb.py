#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# read_ahead_kb of a mount, in /sys/class/bdi under the number that stat(2) gives, decides how far is
# read ahead: by read(2), splice(2) and page faults, also after posix_fadvise(2), for files that share
# their pages with others as for those that do not, and for each mount by itself.
#
# timeout: 60
import ctypes
import os

from case import (CASE_DIR, PAGE, build_image, check, drop_caches, equal, eventually, in_memory, map_of,
                  mount_image, seeded_random, write_file)

SIZE = 12 << 20
# Enough for the kernel to have come to its largest windows.
READ = 4 << 20

os.mkdir("src")
write_file("src/file", seeded_random().randbytes(SIZE))
# Chunks of the largest size, so that a chunk is no reason to read less or more.
source = build_image("src")
mounts = {"shared": mount_image(source, f"{CASE_DIR}/shared"),
          "noshare": mount_image(source, f"{CASE_DIR}/noshare", "ro,noshare")}
# Another mount of the same pages keeps its own.
other = mount_image(source, f"{CASE_DIR}/other")


def knob(mnt):
    number = os.stat(mnt).st_dev
    return f"/sys/class/bdi/{os.major(number)}:{os.minor(number)}/read_ahead_kb"


def get(mnt):
    with open(knob(mnt)) as file:
        return int(file.read())


def by_read(fd):
    """Reads a stretch by small reads."""
    for at in range(0, READ, PAGE):
        equal(len(os.pread(fd, PAGE, at)), PAGE, f"a page at {at}")
    return READ


def by_splice(fd):
    reader, writer = os.pipe()
    for at in range(0, READ, PAGE):
        equal(os.splice(fd, writer, PAGE, offset_src=at), PAGE, f"a page at {at}")
        os.read(reader, PAGE)
    os.close(reader)
    os.close(writer)
    return READ


def by_fault(fd):
    """Touches one page in the middle: the kernel reads around it."""
    with map_of(fd, 0, SIZE) as address:
        ctypes.string_at(address + SIZE // 2, 1)
    return 0


def ahead(mnt, access, advice=None):
    """Kilobytes in memory beyond those that were asked for."""
    drop_caches(1)
    fd = os.open(f"{mnt}/file", os.O_RDONLY)
    try:
        if advice is not None:
            os.posix_fadvise(fd, 0, 0, advice)
        asked = access(fd)
        # A worker may still be about to fill some; they are there already, but count once they are read.
        last, count = -1, 0

        def settled():
            nonlocal last, count
            now = in_memory(fd)
            count = count + 1 if now == last else 0
            last = now
            return count > 5
        eventually(settled, "readahead does not end", seconds=20)
        return last * PAGE - asked >> 10
    finally:
        os.close(fd)


for kind, mnt in mounts.items():
    equal(get(mnt), 512, f"read_ahead_kb of a new mount, {kind}")
equal(len({os.stat(mnt).st_dev for mnt in (*mounts.values(), other)}), 3, "devices")

for kind, mnt in mounts.items():
    for kilobytes in (16, 2048, 128):
        write_file(knob(mnt), str(kilobytes).encode())
        for access in (by_read, by_splice, by_fault):
            found = ahead(mnt, access)
            print(f"{kind}, {kilobytes} KiB: {access.__name__} has {found} KiB ahead")
            # A fault brings in a quarter, but not less than 128 KiB or the whole.
            window = min(kilobytes, max(128, kilobytes // 4)) if access is by_fault else kilobytes
            # Two windows at the most: the one that is read, and the next; and half a window at the least.
            check(window // 2 <= found <= 2 * window,
                  f"{kind}: with {kilobytes} KiB, {access.__name__} has {found} KiB ahead")
    write_file(knob(mnt), b"16")
    found = ahead(mnt, by_read, os.POSIX_FADV_SEQUENTIAL)
    print(f"{kind}, 16 KiB: {found} KiB ahead after FADV_SEQUENTIAL")
    check(16 <= found <= 64, f"{kind}: with 16 KiB, doubled, {found} KiB ahead")
    found = ahead(mnt, by_read, os.POSIX_FADV_NORMAL)
    check(8 <= found <= 32, f"{kind}: with 16 KiB, {found} KiB ahead after FADV_NORMAL")

equal(get(other), 512, "read_ahead_kb of the other mount")
found = ahead(other, by_read)
check(256 <= found <= 1024, f"the other mount: with 512 KiB, {found} KiB ahead")
