#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# An image whose chunks are all missing is read while a fetcher brings them: by many readers at once, by maps,
# without waiting, and by readahead. Each chunk is requested once, and every byte is right.
#
# timeout: 240
# klog-allow: puzzlefs: image
import errno
import mmap
import os

import fetching
import packs
from case import CASE_DIR, check, counters, drop_caches, equal, eventually, in_threads, readahead, refused, \
    seeded_random
import mountapi

random = seeded_random()
content = packs.Content(random)
content.add_samples()
mnt = f"{CASE_DIR}/mnt"
os.mkdir(mnt)
# In preadv2(2).
RWF_NOWAIT = 8


def read_all(names):
    for name in names:
        expected = content.files[name][0]
        with open(f"{mnt}/{name}", "rb") as file:
            check(file.read() == expected, f"{name} differs")


def read_at_random():
    for _ in range(60):
        name = random.choice(sorted(content.files))
        expected = content.files[name][0]
        at, length = random.randrange(len(expected) + 1), random.randrange(1, 70_000)
        fd = os.open(f"{mnt}/{name}", os.O_RDONLY)
        check(os.pread(fd, length, at) == expected[at:at + length], f"{name}: {length} bytes at {at}")
        os.close(fd)


def read_by_map(name):
    expected = content.files[name][0]
    with open(f"{mnt}/{name}", "rb") as file, \
            mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ) as view:
        for at in random.sample(range(len(expected)), 20):
            check(view[at] == expected[at], f"{name}: byte {at} of the map")


def lazy(name, encode=packs.zstd):
    """A lazy store, and its fetcher."""
    store = fetching.LazyStore(name, content, encode)
    return store, store.start_fetcher()


# Many readers of everything. Each chunk is requested once, those of metadata as well.
for name, encode in ("zstd", packs.zstd), ("raw", packs.raw):
    store, fetcher = lazy(name, encode)
    store.mount(mnt)
    check(",verify=digest,fetch=wait,fetch_timeout=60" in open("/proc/self/mounts").read(), "the options")
    equal(sorted(os.listdir(mnt)), sorted(content.files), "the directory")
    names = sorted(content.files)
    in_threads(*(lambda: read_all(random.sample(names, len(names))) for _ in range(12)),
               read_at_random, read_at_random,
               lambda: read_by_map("big"), lambda: read_by_map("chunk"))
    requested = store.requested()
    equal(sorted(requested), sorted(store.chunks), f"{name}: the chunks that were requested")
    counted = counters(mnt)
    equal((counted["read_errors"], counted["verification_failures"]), (0, 0), f"{name}: errors")
    check(counted["fetches_awaited"] > 0, f"{name}: nothing was waited for")
    # All is local, and the fetcher is not needed.
    store.stop_fetcher(fetcher)
    drop_caches()
    read_all(names)
    equal(store.requested(), requested, f"{name}: requests for chunks that are there")
    mountapi.umount(mnt)

# The stored length is given, except of a root. A request has a flag if a reader waits.
store, fetcher = lazy("lengths")
store.mount(mnt)
read_all(["big"])
for line in store.logged():
    if line != "attached":
        digest, length, _ = line.split()
        wanted = 0 if digest == store.root else len(store.chunks[bytes.fromhex(digest)])
        equal(int(length), wanted, f"the length of {digest}")
check(any(line.endswith(" 1") for line in store.logged()), "no reader waits")
store.stop_fetcher(fetcher)
mountapi.umount(mnt)

# A read that does not wait starts the request.
store, fetcher = lazy("nowait")
store.mount(mnt)
os.stat(f"{mnt}/chunk")
fd = os.open(f"{mnt}/chunk", os.O_RDONLY)
buffer = bytearray(4096)
with refused(errno.EAGAIN, "a read that must not wait for a fetcher"):
    os.preadv(fd, [buffer], 0, RWF_NOWAIT)


def is_read():
    try:
        return os.preadv(fd, [buffer], 0, RWF_NOWAIT) == len(buffer)
    except BlockingIOError:
        return False


eventually(is_read, "the chunk was not fetched for a read that does not wait")
check(buffer == content.files["chunk"][0][:4096], "the bytes of a read that does not wait")
os.close(fd)

# So does readahead(2), of everything that it covers.
before = set(store.requested())
fd = os.open(f"{mnt}/big", os.O_RDONLY)
readahead(fd, 0, 400_000)
eventually(lambda: len(set(store.requested()) - before) >= 4, "readahead(2) requests nothing")
os.close(fd)
read_all(["big"])

# Populated maps.
populate = getattr(mmap, "MAP_POPULATE", 0x8000)
with open(f"{mnt}/long", "rb") as file, \
        mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE | populate, mmap.PROT_READ) as view:
    check(view[:] == content.files["long"][0], "a populated map")
store.stop_fetcher(fetcher)
mountapi.umount(mnt)
