#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Packs are rewritten, replaced and removed while the files of an image of format 4 are read: every read gives
# the right bytes, and nothing is logged.
#
# timeout: 300
# rounds: 40
import os
import random
import shutil
import threading

import mountapi
import packs
from case import CASE_DIR, check, drop_caches, equal, eventually, rounds, seeded_random

draw = seeded_random()
content = packs.Content(draw)
content.add_samples()
store = packs.Store(f"{CASE_DIR}/store", packs.zstd)
root = content.add_image(store)
chunks, store.pending = store.pending, {}
mnt = f"{CASE_DIR}/mnt"
os.mkdir(mnt)


def repack():
    """The chunks are in new packs, and some are loose; what held them is removed."""
    old = set(os.listdir(f"{store.path}/blobs/sha256"))
    parts = [[] for _ in range(draw.randrange(1, 4))]
    loose = []
    for stored in draw.sample(list(chunks.values()), len(chunks)):
        draw.choice([*parts, loose] if draw.randrange(8) == 0 else parts).append(stored)
    new = [store.add_pack(draw.choice((0, 3, 12)), part) for part in parts if part]
    for stored in loose:
        store.add_loose(stored)
    kept = {digest.hex() for digest in new}
    kept |= {packs.digest_of(stored).hex() for stored in loose}
    store.write_index(*new)
    for name in old - kept:
        os.remove(f"{store.path}/blobs/sha256/{name}")


repack()
mountapi.mount(store.path, mnt, f"rootfs={root},verify=digest")
failures, reads, stop = [], [0], threading.Event()


def read(seed):
    own = random.Random(seed)
    while not stop.is_set() and not failures:
        name = own.choice(list(content.files))
        expected = content.files[name][0]
        at = own.randrange(len(expected) + 1)
        try:
            fd = os.open(f"{mnt}/{name}", os.O_RDONLY)
            got = os.pread(fd, 200_000, at)
            os.close(fd)
        except OSError as error:
            failures.append(f"{name} at {at}: {error}")
            return
        if got != expected[at:at + len(got)] or (not got and at < len(expected)):
            failures.append(f"{name} at {at}: other bytes")
        reads[0] += 1


threads = [threading.Thread(target=read, args=(draw.getrandbits(32),)) for number in range(4)]
for thread in threads:
    thread.start()
for _ in range(rounds()):
    before = reads[0]
    repack()
    drop_caches()
    eventually(lambda: failures or reads[0] >= before + 20, "there are no reads")
stop.set()
for thread in threads:
    thread.join()
check(not failures, failures[:1])
print(reads[0], "reads")


def expect_contents(what):
    """All files can be read, and nothing of them or of open packs was in memory."""
    drop_caches()
    for name, (expected, _) in content.files.items():
        with open(f"{mnt}/{name}", "rb") as file:
            equal(file.read() == expected, True, f"{name} {what}")


# The readers may have had a pack open that the last round has removed. Now the mount reads the newest index.
expect_contents("after the last round")
# Without the index, the mount goes on with the places that it knows, and with loose chunks.
shutil.rmtree(f"{store.path}/.puzzlefs")
expect_contents("without an index")
mountapi.umount(mnt)
