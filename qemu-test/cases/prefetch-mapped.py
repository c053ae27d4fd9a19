#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# A program that is mapped is prefetched: afterwards all of it can be read while the disk hangs. A file that
# is mapped without the permission to execute it is not, a fault brings in little around its page, and a short
# read inside a file nothing. The table of the chunk index is read when the store is opened.
#
# timeout: 120
import mmap
import os

import devmapper
import mountapi
from case import (PAGE, build_image, check, drop_caches, ends_well, equal, eventually, in_memory,
                  mount_image, seeded_random, start, unmount_image, write_file)

random = seeded_random()
contents = {"program": random.randbytes(1_500_007), "large": random.randbytes(9 << 20)}
os.mkdir("src")
for name, content in contents.items():
    write_file(f"src/{name}", content)

with devmapper.filled("store") as disk:
    source = build_image("src", "--compress=0")


def is_whole(program):
    equal(program[:] == contents["program"], True, "the program")


def mapped(file, protection):
    return mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=protection)


for options in ("ro", "ro,verify=digest"):
    # The table is read at once.
    drop_caches()
    mnt = mount_image(source, options=options)
    [table] = [name for name in os.listdir("store/.puzzlefs/chunks") if name != "catalogue"]
    with open(f"store/.puzzlefs/chunks/{table}", "rb") as file:
        pages = os.fstat(file.fileno()).st_size // PAGE
        eventually(lambda: in_memory(file.fileno()) == pages, "not all of the table is read")
    for name in contents:
        os.stat(f"{mnt}/{name}")
    drop_caches(1)

    with open(f"{mnt}/program", "rb", buffering=0) as file:
        file.read(PAGE)
        before = disk.idle()[1]
        with mapped(file, mmap.PROT_READ) as program:
            check(disk.idle()[1] == before, f"{options}: the disk is read for a file that is mapped")
        with mapped(file, mmap.PROT_READ | mmap.PROT_EXEC) as program:
            eventually(lambda: disk.reads()[1] - before > len(contents["program"]) * 3 // 4,
                       f"{options}: a program is not prefetched when it is mapped")
            disk.idle()
            with disk.stopped():
                ends_well(start(is_whole, program), f"{options}: a reader of a program that was prefetched")
        # It is in memory now.
        before = disk.idle()[1]
        with mapped(file, mmap.PROT_READ | mmap.PROT_EXEC) as program:
            check(disk.idle()[1] == before, f"{options}: a program in memory is read again")

    with open(f"{mnt}/large", "rb", buffering=0) as file:
        before = in_memory(file.fileno())
        with mapped(file, mmap.PROT_READ) as large:
            equal(large[4 << 20], contents["large"][4 << 20], "a byte")
            # A quarter of the readahead, and the rest of two chunks.
            most = ((128 << 10) + (0 if options == "ro" else 256 << 10)) // PAGE
            pages = in_memory(file.fileno()) - before
            check(pages <= most, f"{options}: {pages} pages for a byte")
        # Short reads inside a file cause no others.
        drop_caches(1)
        file.read(PAGE)
        before = disk.idle()[1]
        if options == "ro":
            for _ in range(200):
                os.pread(file.fileno(), PAGE, random.randrange(1, len(contents["large"]) // PAGE) * PAGE)
            # A page of the file can be on two pages of the disk.
            read = disk.idle()[1] - before
            check(read <= 200 * 2 * PAGE + (1 << 20), f"{read} bytes for 200 pages")
        # Not more than 2 MiB of a large program.
        drop_caches(1)
        before = disk.idle()[1]
        with mapped(file, mmap.PROT_READ | mmap.PROT_EXEC) as large:
            eventually(lambda: disk.reads()[1] > before, f"{options}: a large program is not prefetched")
            read = disk.idle()[1] - before
            check(read <= 3 << 20, f"{options}: {read} bytes are prefetched")
    unmount_image()

mountapi.umount("store")
disk.remove()
