#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Eight threads come at the same moment for files of one compressed blob that nobody has open.
#
# For format 3 alone. It is about the seek table of a blob, which format 4 does not have.
#
# timeout: 120
# formats: 3
import os
import threading
import time

from case import (build_image, check, counters, equal, in_threads, metric, mount_image, seeded_random,
                  write_file)

SECONDS, THREADS = 15, 8
words = [word.encode() for word in "chunk blob frame seek table inode extent folio".split()]
random = seeded_random()
os.mkdir("src")
files = {f"{number}": b" ".join(random.choices(words, k=500)) for number in range(THREADS)}
for name, contents in files.items():
    write_file(f"src/{name}", contents)
mnt = mount_image(build_image("src", "--compress"))
together = threading.Barrier(THREADS)
deadline = time.monotonic() + SECONDS
over = threading.Event()
rounds = 0


def close_all():
    """Drops pages, dentries and inodes, and with them the open blobs."""
    global rounds
    rounds += 1
    with open("/proc/sys/vm/drop_caches", "w") as file:
        file.write("3")
    if time.monotonic() >= deadline:
        over.set()


def read(number):
    try:
        while True:
            # One of them prepares what all wait for.
            if together.wait() == 0:
                close_all()
            together.wait()
            if over.is_set():
                return
            with open(f"{mnt}/{number}", "rb", buffering=0) as file:
                equal(file.read() == files[str(number)], True, f"file {number}")
    except BaseException:
        together.abort()
        raise


# Quiet: each drop would be a line in the kernel's log.
with open("/proc/sys/vm/drop_caches", "w") as file:
    file.write("4")
in_threads(*[lambda number=number: read(number) for number in range(THREADS)])
after = counters(mnt)
metric("first_readers.rounds", rounds)
metric("first_readers.blobs_opened", after["blobs_opened"])
check(after["blobs_opened"] >= rounds // 2,
      f"{rounds} rounds, in which {after['blobs_opened']} blobs were opened")
equal(after["read_errors"], 0, "errors")
