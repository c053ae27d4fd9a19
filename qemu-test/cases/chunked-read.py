#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Files of images of format 4: packs and loose chunks, raw and compressed, verified in each way. Every byte is
# right, in whatever order it is read.
#
# timeout: 300
# klog-allow: puzzlefs: image
import errno
import mmap
import os

import mountapi
import packs
from case import CASE_DIR, check, counters, drop_caches, equal, refused, run, seeded_random

random = seeded_random()
content = packs.Content(random)
content.add_samples()
mnt = f"{CASE_DIR}/mnt"
os.mkdir(mnt)


def make_store(name, encode, alignment):
    """A store with an image in two packs, or of loose chunks; returns it and the root."""
    store = packs.Store(f"{CASE_DIR}/{name}", encode)
    root = content.add_image(store)
    if alignment is None:
        for stored in store.pending.values():
            store.add_loose(stored)
        return store, root
    chunks = list(store.pending.values())
    random.shuffle(chunks)
    first, second = chunks[:len(chunks) // 2], chunks[len(chunks) // 2:]
    store.write_index(*(store.add_pack(alignment, part) for part in (first, second)))
    return store, root


def make_crowded_store():
    """A store whose index has a table with more records of one home page than the page has room for. They
    continue in the next page."""
    store = packs.Store(f"{CASE_DIR}/crowded", packs.zstd)
    root = content.add_image(store)
    chunks, store.pending = store.pending, {}
    crowd = [stored for digest, stored in chunks.items() if 16 <= digest[0] < 128][:40]
    others = [stored for stored in chunks.values() if stored not in crowd]
    fillers = []
    while len(fillers) < packs.RECORDS:
        filler = random.randbytes(20)
        if packs.digest_of(filler)[0] < 16:
            fillers.append(filler)
    crowded = store.add_pack(chunks=fillers + crowd)
    store.write_index(store.add_pack(chunks=others), crowded)
    table = store.table(store.tables)
    with open(table, "rb") as file:
        first = file.read(packs.PAGE)
    found = os.path.getsize(table), first[8], first[10]
    equal(found, (2 * packs.PAGE, packs.RECORDS, 1), "the crowded page")
    return store, root


def read_all():
    for name, (expected, _) in content.files.items():
        with open(f"{mnt}/{name}", "rb") as file:
            check(file.read() == expected, f"{name} differs")


def read_at_random():
    for name, (expected, _) in content.files.items():
        fd = os.open(f"{mnt}/{name}", os.O_RDONLY)
        for _ in range(40):
            at, length = random.randrange(len(expected) + 1), random.randrange(1, 70_000)
            check(os.pread(fd, length, at) == expected[at:at + length], f"{name}: {length} bytes at {at}")
            if random.randrange(8) == 0:
                drop_caches(1)
        os.close(fd)


def read_by_map():
    for name, (expected, _) in content.files.items():
        if not expected:
            continue
        with open(f"{mnt}/{name}", "rb") as file, \
                mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ) as view:
            for at in random.sample(range(len(expected)), min(20, len(expected))):
                check(view[at] == expected[at], f"{name}: byte {at} of the map")


stores = {
    "raw": make_store("raw", packs.raw, 0),
    "aligned": make_store("aligned", packs.raw, 12),
    "zstd": make_store("zstd", packs.zstd, 0),
    "loose": make_store("loose", packs.zstd, None),
    "crowded": make_crowded_store(),
}
for name, (store, root) in stores.items():
    for verify in ("none", "digest", "fsverity"):
        if verify == "fsverity":
            # Without it, the mount reads metadata, which is verified by its digests, and no data.
            mountapi.mount(store.path, mnt, f"rootfs={root},verify={verify}")
            with refused(errno.EIO, f"{name}: a read of a file without fs-verity"):
                read_all()
            mountapi.umount(mnt)
            for blob in os.listdir(f"{store.path}/blobs/sha256"):
                run("fsverity", "enable", f"{store.path}/blobs/sha256/{blob}")
        drop_caches()
        mountapi.mount(store.path, mnt, f"rootfs={root},verify={verify}")
        equal(sorted(os.listdir(mnt)), sorted(content.files), f"{name}, {verify}: the directory")
        for read in (read_all, read_at_random, read_by_map):
            drop_caches(1)
            read()
        counted = counters(mnt)
        equal((counted["read_errors"], counted["verification_failures"]), (0, 0), f"{name}, {verify}: errors")
        print(name, verify, counted)
        mountapi.umount(mnt)
