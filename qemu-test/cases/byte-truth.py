#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# What is read is what was built, by whichever call: reads at random, of images raw and compressed,
# not verified and verified in both ways, with caches dropped at random. The seed brings a failure
# back.
#
# needs: programs
# formats: 3 4
# timeout: 120
# rounds: 30000
import ctypes
import mmap
import os
import time

import truth
from case import PAGE, check, drop_caches, equal, metric, rounds, seeded_random
from iouring import ENTRIES, READ, Ring

LONGEST = 300_000
# Python's part, which is slow.
RING_ROUNDS = max(1, rounds() // 200)
random = seeded_random()
seed = random.getrandbits(32)
images = truth.Truth(random)

# Three threads on two processors; then one, to which signals come all the time.
begin = time.monotonic()
operations = refused = 0
for share, options in ((rounds() * 3 // 4, ("--threads", 3)), (rounds() // 4, ("--signals",))):
    done = truth.finish(truth.start(images.command("--seed", seed, "--operations", share, "--drop",
                                                   *options)))
    equal(done[0], share, "operations")
    operations, refused = operations + done[0], refused + done[1]
    # O_DIRECT and copy_file_range always are, RWF_NOWAIT may be.
    check(share // 10 < done[1] < share // 3, f"{done[1]} of {share} refused")

# io_uring: as many reads at once as the ring takes, all of one range, the pieces of it.
ring = Ring()
memory = mmap.mmap(-1, LONGEST)
address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
files = [(f"{mnt}/{name}", os.open(f"{mnt}/{name}", os.O_RDONLY), data)
         for mnt in images.mounts for name, data in images.contents.items()]
for number in range(RING_ROUNDS):
    name, fd, data = random.choice(files)
    if random.random() < 0.01:
        drop_caches(random.randrange(1, 4))
    elif random.random() < 0.1:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    at = random.choice((random.randrange(len(data)), random.randrange(len(data)) & -PAGE,
                        max(0, len(data) - 5000)))
    length = min(len(data) - at, random.choice((1, 17, PAGE, PAGE + 1, 20_000, random.randrange(1, LONGEST))))
    piece = -(-length // ENTRIES)
    requests = [(READ, fd, address + start, min(piece, length - start), at + start, 0)
                for start in range(0, length, piece)]
    what = f"operation {number} of io_uring: {length} at {at} of {name}"
    for result, request in zip(ring.submit(requests), requests):
        equal(result, request[3], what)
    equal(memory[:length] == data[at:at + length], True, what)
for _, fd, _ in files:
    os.close(fd)
took = time.monotonic() - begin
metric("byte_truth.operations", operations + RING_ROUNDS)
metric("byte_truth.refused", refused)
metric("byte_truth.seconds", round(took, 1))
