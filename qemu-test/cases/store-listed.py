#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# A process lists the store's directory of blobs into memory mapped from a file whose blob is in it,
# while others create files there. The process has the directory's lock, and waits for the page: a
# lookup that waited for the lock behind the others would never end. The blobs of an open file are
# open, so that neither this process nor a reader of the file waits.
#
# formats: 3 4
# timeout: 60
import os

from case import (CASE_DIR, PAGE, build_image, check, end, equal, metric, mount_image, seeded_random, start,
                  turns, write_file)
from listing import list_into_map, make_files

TURNS = 40
MAKERS = 3
READS = 20
STUCK = 2  # seconds

contents = seeded_random().randbytes(PAGE)
os.mkdir("src")
write_file("src/file", contents)
mnt = mount_image(build_image("src"))
blobs = f"{CASE_DIR}/store/blobs/sha256"


def list_without_error():
    turn = list_into_map(blobs, f"{mnt}/file", 0)
    return lambda: equal(turn(), 0, "the listing's errno")


makers = [start(make_files, blobs) for _ in range(MAKERS)]
child, count = turns(list_without_error, TURNS, STUCK)
end(child, "the process that lists")
check(count >= TURNS, f"the process that lists goes on after {count} turns")
for _ in range(READS):
    write_file("/proc/sys/vm/drop_caches", b"3")
    with open(f"{mnt}/file", "rb") as file:
        check(file.read() == contents, "the file reads right")
for maker in makers:
    end(maker, "a process that creates files")
metric("turns", count)
