#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# A sparse file of 5 GB with islands of data: its size, the islands, the shores, and zeros at
# random in between.
#
# formats: 3 4
# timeout: 180
import os

from case import build_image, check, equal, mount_image, seeded_random

SIZE = 5 * 10**9
random = seeded_random()

# Islands at the start, across 4 GiB, not aligned to anything, and one that is the last byte.
islands = [(0, 5000), (1 << 20, 4096), (123_456_789, 100_001), ((1 << 32) - 33_333, 66_666),
           (4_444_444_444, 1), (SIZE - 1, 1)]
data = {at: random.randbytes(length - 1) + b"!" for at, length in islands}
os.mkdir("src")
with open("src/sparse", "wb") as file:
    file.truncate(SIZE)
    for at, _ in islands:
        file.seek(at)
        file.write(data[at])

mnt = mount_image(build_image("src"))
path = f"{mnt}/sparse"
equal(os.stat(path).st_size, SIZE, "size")
fd = os.open(path, os.O_RDONLY)
source = os.open("src/sparse", os.O_RDONLY)


def compare(at, length):
    wanted = os.pread(source, length, at)
    got = os.pread(fd, length, at)
    if got != wanted:
        wrong = next((i for i, (a, b) in enumerate(zip(got, wanted)) if a != b), len(got))
        equal(len(got), len(wanted), f"length of the read at {at}")
        check(False, f"byte {at + wrong} differs")


for at, length in islands:
    equal(os.pread(fd, length, at), data[at], f"the island at {at}")
    start = max(0, at - 70_000)
    compare(start, at + length + 70_000 - start)
for _ in range(60):
    compare(random.randrange(SIZE), random.randrange(1, 200_000))
# One stretch by readahead.
at = random.randrange(SIZE // 2)
for _ in range(32):
    compare(at, 1 << 20)
    at += 1 << 20
equal(os.lseek(fd, 0, os.SEEK_END), SIZE, "the end")
os.close(fd)
os.close(source)
