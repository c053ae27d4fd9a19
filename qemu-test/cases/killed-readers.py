#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Readers that are killed in the middle of a read, while others wait for the same pages: what they
# leave half done is done again, right, for the next one; nothing is logged as if a blob were bad.
#
# formats: 3 4
# timeout: 60
import mmap
import os
import signal
import time

from case import build_image, check, drop_caches, equal, metric, mount_image, seeded_random, start, write_file

SECONDS = 8
random = seeded_random()
contents = random.randbytes(3_000_000)
os.mkdir("src")
write_file("src/file", contents)
mnt = mount_image(build_image("src"))
fd = os.open(f"{mnt}/file", os.O_RDONLY)


def read_over_and_over(by_map):
    while True:
        if by_map:
            with mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ) as view:
                same = view[:] == contents
        else:
            same = os.pread(fd, len(contents), 0) == contents
        check(same, "the file as the child reads it")


def complaints():
    return os.popen("dmesg --nopager").read().count("puzzlefs: image")


before = complaints()
started, rounds = time.monotonic(), 0
with open("/proc/sys/vm/drop_caches", "w") as file:
    file.write("4")
while time.monotonic() - started < SECONDS or rounds <= 10:
    rounds += 1
    drop_caches(1)
    children = [start(read_over_and_over, by_map) for by_map in (False, False, True)]
    time.sleep(random.uniform(0, 0.03))
    for child in children:
        os.kill(child, signal.SIGKILL)
    # At once, while they die.
    at = random.randrange(len(contents))
    got = os.pread(fd, 500_000, at)
    check(got == contents[at:at + len(got)] and got, f"round {rounds}: what is read at {at}")
    for child in children:
        status = os.waitpid(child, 0)[1]
        check(os.WIFSIGNALED(status),
              f"round {rounds}: a reader ended with {os.waitstatus_to_exitcode(status)}")
    check(os.pread(fd, len(contents), 0) == contents, f"round {rounds}: the file")
metric("killed_readers_rounds", rounds)
equal(complaints(), before, "lines about bad blobs in the kernel's log")
os.close(fd)
