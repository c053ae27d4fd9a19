#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Eight threads read at once, the same files and others, by calls and by maps, while caches are
# dropped under them and paths are looked up anew.
#
# formats: 3 4
# timeout: 120
import mmap
import os
import random
import threading
import time

from case import build_image, check, equal, in_threads, metric, mount_image, seeded_random, write_file

SECONDS = 10
THREADS = 8
seeds = seeded_random()
files = {}
os.makedirs("src/directory")
for number, size in enumerate((4_000_000, 1_234_567, 300_001, 65_536, 65_535, 4097, 4096, 50, 1)):
    name = f"directory/{number}-{size}"
    files[name] = seeds.randbytes(size)
    write_file(f"src/{name}", files[name])
names = list(files)

mnt = mount_image(build_image("src"))
stop = threading.Event()
reads = [0] * THREADS


def read(thread):
    rng = random.Random(seeds.random() + thread)
    # Half of the threads stay with the first file.
    mine = names[:1] if thread % 2 else names
    while not stop.is_set():
        name = rng.choice(mine)
        contents = files[name]
        fd = os.open(f"{mnt}/{name}", os.O_RDONLY)
        try:
            check(os.fstat(fd).st_size == len(contents), f"size of {name}")
            for _ in range(20):
                at = rng.randrange(len(contents))
                length = rng.choice((1, 100, 5000, 150_000))
                if rng.random() < 0.3:
                    with mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ) as view:
                        got = view[at:at + length]
                else:
                    got = os.pread(fd, length, at)
                if got != contents[at:at + length]:
                    check(False, f"{name}: {length} bytes at {at} differ")
                reads[thread] += 1
        finally:
            os.close(fd)


def disturb():
    """Drops pages, dentries and inodes, in turn."""
    deadline = time.monotonic() + SECONDS
    what = 1
    try:
        while (time.monotonic() < deadline or min(reads) == 0) and not stop.is_set():
            with open("/proc/sys/vm/drop_caches", "w") as file:
                file.write(str(what))
            what = what % 3 + 1
            time.sleep(0.05)  # pace
    finally:
        stop.set()


def guarded(function, *arguments):
    def run():
        try:
            function(*arguments)
        except BaseException:
            stop.set()
            raise
    return run


# Quiet: each drop would be a line in the kernel's log.
with open("/proc/sys/vm/drop_caches", "w") as file:
    file.write("4")
in_threads(*[guarded(read, thread) for thread in range(THREADS)], disturb)
metric("concurrent_reads", sum(reads))
# Everything once more, in peace.
for name, contents in files.items():
    with open(f"{mnt}/{name}", "rb") as file:
        equal(file.read() == contents, True, f"{name}, in the end")
