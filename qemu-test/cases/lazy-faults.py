#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Fetchers that fail, give wrong data, die or never answer, and readers that are killed: a read gives the
# right bytes or an error, and nothing else is delayed.
#
# timeout: 240
# rounds: 8
# klog-allow: puzzlefs: (image|fetch)
import errno
import mmap
import os
import signal
import subprocess
import time

import fetching
import mountapi
import packs
from case import CASE_DIR, as_user, check, drop_caches, end, ends_well, equal, eventually, in_system_call, \
    is_mounted, refused, rounds, seeded_random, start

PREAD64 = 17
random = seeded_random()
content = packs.Content(random)
for number in range(40):
    content.add(f"file-{number}", [content.data(random.randrange(1, 60_000))])
mnt, other = f"{CASE_DIR}/mnt", f"{CASE_DIR}/other"
os.mkdir(mnt)
os.mkdir(other)


def read(name):
    fd = os.open(f"{mnt}/{name}", os.O_RDONLY)
    try:
        return os.pread(fd, 1 << 20, 0)
    finally:
        os.close(fd)


def read_right(name):
    check(read(name) == content.files[name][0], f"{name} differs")


def refused_read(name):
    with refused(errno.EIO, f"a read of {name}"):
        read(name)


def mounted(name, options="fetch=wait"):
    """A mounted image whose metadata is in its store, and the store. No fetcher is attached."""
    store = fetching.LazyStore(name, content)
    data = {packs.digest_of(store.store.encode(contents)) for contents, _ in content.files.values()}
    for digest in store.chunks:
        if digest not in data:
            store.bring(digest)
    store.mount(mnt, options)
    return store


def chunk_of(store, name):
    return packs.digest_of(store.store.encode(content.files[name][0]))


# A mount without the option does not wait.
store = mounted("plain", "verify=digest")
with refused(errno.EIO, "a read of a missing chunk"):
    read("file-0")
fetcher = store.start_fetcher()
with refused(errno.EIO, "a read of a missing chunk, beside a fetcher"):
    read("file-1")
equal(store.requested(), [], "requests of a mount that does not wait")
store.stop_fetcher(fetcher)
mountapi.umount(mnt)
for options in "fetch=maybe", "fetch=wait,verify=none", "fetch=wait,verify=fsverity", "fetch_timeout=3", \
        "fetch=wait,fetch_timeout=0", "fetch=wait,fetch_timeout=x", "fetch=wait,fetch_timeout=86401", "fetch":
    with refused(errno.EINVAL, options):
        store.mount(mnt, options)

# The device.
with refused(errno.EACCES, "the device"):
    as_user(1000, lambda: os.open(fetching.DEVICE, os.O_RDWR))
os.chmod(fetching.DEVICE, 0o666)
with refused(errno.EPERM, "the device, for a task without capabilities"):
    as_user(1000, lambda: os.open(fetching.DEVICE, os.O_RDWR))
os.chmod(fetching.DEVICE, 0o600)
fd = os.open(fetching.DEVICE, os.O_RDWR)
with refused(errno.ENOTCONN, "a read before a store is named"):
    os.read(fd, 48)
for path, number in (b"/nowhere", errno.ENOENT), (os.fsencode(CASE_DIR), errno.ENOENT), \
        (b"a\0b", errno.EINVAL):
    with refused(number, f"a store {path!r}"):
        os.write(fd, path)
os.write(fd, os.fsencode(store.path))
for data in bytes(15), bytes(17), fetching.ANSWER.pack(1, -1, 0), fetching.ANSWER.pack(1, 4096, 0):
    with refused(errno.EINVAL, f"an answer of {len(data)} bytes"):
        os.write(fd, data)
equal(os.write(fd, fetching.ANSWER.pack(77, 0, 0)), 16, "an answer that nobody waits for")
with refused(errno.EINVAL, "a read without room"):
    os.read(fd, 47)
os.set_blocking(fd, False)
with refused(errno.EAGAIN, "a read without requests"):
    os.read(fd, 48)
check(subprocess.run(["rmmod", "puzzlefs"], stderr=subprocess.DEVNULL, check=False).returncode,
      "the module is unloaded while the device is open")
os.close(fd)

# A fetcher that fails, and one that puts wrong data into the store. Later ones can do better.
store = mounted("failing")
fetcher = fetching.Fetcher(store.path)
reader = start(lambda: refused_read("file-0"))
request, = fetcher.requests()
equal(request.digest, chunk_of(store, "file-0"), "the request")
fetcher.answer(request, error=errno.ENOSPC)
ends_well(reader, "the reader of file-0")
for wrong in lambda stored: b"", lambda stored: stored[:-1], lambda stored: bytes(len(stored)), \
        lambda stored: stored[:-1] + bytes([stored[-1] ^ 1]):
    reader = start(lambda: refused_read("file-0"))
    request, = fetcher.requests()
    packs.replace(store.store.blob(request.digest), wrong(store.chunks[request.digest]))
    fetcher.answer(request)
    ends_well(reader, "the reader of wrong data")
    os.remove(store.store.blob(request.digest))
# It says that the chunk is there, and it is not.
reader = start(lambda: refused_read("file-0"))
fetcher.answer(*fetcher.requests())
ends_well(reader, "the reader of nothing")
reader = start(lambda: read_right("file-0"))
request, = fetcher.requests()
store.bring(request.digest)
fetcher.answer(request)
ends_well(reader, "the reader of file-0")

# A thousand waits for one chunk are one request.
readers = [start(lambda: read_right("file-1")) for _ in range(50)]
request, = fetcher.requests()
eventually(lambda: all(in_system_call(reader, PREAD64) for reader in readers), "a reader does not wait")
os.set_blocking(fetcher.fd, False)
with refused(errno.EAGAIN, "a second request for the chunk"):
    fetcher.requests()
os.set_blocking(fetcher.fd, True)
store.bring(request.digest)
fetcher.answer(request)
for reader in readers:
    ends_well(reader, "one of many readers")

# Readers are killed while they wait, in a read and in a page fault. Nothing keeps the mount.
def touch(name):
    with open(f"{mnt}/{name}", "rb") as file, \
            mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ) as view:
        check(view[0] is not None, "a byte")


for work in read_right, touch:
    reader = start(lambda: work("file-2"))
    if work is read_right:
        request, = fetcher.requests()
        equal(request.digest, chunk_of(store, "file-2"), "the request of a reader that is killed")
    eventually(lambda: open(f"/proc/{reader}/wchan").read() not in ("0", ""), "the reader does not wait")
    end(reader, "the reader")
mountapi.umount(mnt)
check(not is_mounted(mnt), "the mount stays")

# It dies with requests, and another one takes them. With none, the time runs out.
store = mounted("dying")
# The readers must not have the device open.
readers = {name: start(lambda: read_right(name)) for name in ("file-3", "file-4")}
first = fetching.Fetcher(store.path)
taken = []
while len(taken) < 2:
    taken += first.requests()
eventually(lambda: all(in_system_call(reader, PREAD64) for reader in readers.values()),
           "a reader does not wait")
first.close()
second = fetching.Fetcher(store.path)
again = second.requests()
equal(sorted(request.id for request in again), sorted(request.id for request in taken), "the requests")
for request in again:
    store.bring(request.digest)
second.answer(*again)
for name, reader in readers.items():
    ends_well(reader, f"the reader of {name}")
second.close()
mountapi.umount(mnt)
store.mount(mnt, "fetch=wait,fetch_timeout=1")
began = time.monotonic()
refused_read("file-5")
check(time.monotonic() - began >= 1, "the time has not run out")
# It comes later than the reader.
reader = start(lambda: read_right("file-6"))
child = store.start_fetcher()
ends_well(reader, "the reader that was first")
store.stop_fetcher(child)
mountapi.umount(mnt)

# Fetchers are killed at any moment, while readers read, and chunks disappear again.
store = mounted("killed")


def read_over_and_over(seed):
    names = sorted(content.files)
    random.seed(seed)
    while True:
        read_right(random.choice(names))


readers = [start(read_over_and_over, seed) for seed in range(6)]
for number in range(rounds()):
    child = store.start_fetcher()
    time.sleep(random.uniform(0, 0.02))
    store.stop_fetcher(child)
    for name in random.sample(sorted(content.files), 10):
        try:
            os.remove(store.store.blob(chunk_of(store, name)))
        except FileNotFoundError:
            pass
    drop_caches(1)
before = len(store.requested())
child = store.start_fetcher()
for reader in readers:
    # It has read the right bytes until now.
    end(reader, "a reader under fetchers that die")
store.stop_fetcher(child)
print(f"{before} requests, {rounds()} fetchers were killed")
check(before > rounds() / 2, "the readers have requested too little")
mountapi.umount(mnt)

# A fetcher that never answers delays nothing else: another store with the same chunks, sync(2), unmount.
store = fetching.LazyStore("silent", content)
fetcher = fetching.Fetcher(store.path)
mounter = start(lambda: store.mount(mnt))
request, = fetcher.requests()
equal(request.digest.hex(), store.root, "the root is requested")
whole = fetching.LazyStore("whole", content)
for digest in whole.chunks:
    whole.bring(digest)
whole.mount(other, "verify=digest")
for name, (expected, _) in content.files.items():
    with open(f"{other}/{name}", "rb") as file:
        check(file.read() == expected, f"{name} of another store differs")
os.sync()
end(mounter, "the mounter")
check(not is_mounted(mnt), "the mount of a killed task")
# Metadata of other mounts is verified, and needs no request.
store.bring(request.digest)
store.mount(mnt)
equal(sorted(os.listdir(mnt)), sorted(content.files), "the directory")
reader = start(lambda: read_right("file-7"))
request, = fetcher.requests()
equal(request.digest, chunk_of(store, "file-7"), "the request")
drop_caches()
equal(sorted(os.listdir(other)), sorted(content.files), "the directory of another store")
os.sync()
mountapi.umount(other)
end(reader, "the reader")
mountapi.umount(mnt)
fetcher.close()
