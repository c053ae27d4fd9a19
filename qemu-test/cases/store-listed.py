#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# A process lists the store's directory of blobs into memory mapped from a file whose blob is looked
# up there, while others create files in it. The process has the directory's lock, and waits for the
# page: a lookup that waited for the lock behind the others would never end. The blobs of an open
# file are open, so that the process never waits. For a blob beyond their number, it waits for a
# limited time, gets EFAULT, and can be killed. Readers of other files are not kept waiting.
#
# timeout: 120
# klog-allow: puzzlefs: image .*EDEADLK
import ctypes
import errno
import mmap
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import mountapi  # noqa: E402
from case import CASE_DIR, PAGE, check, end, equal, fail, metric, seeded_random, start, turns, write_file  # noqa: E402
from metadata import Chunk, Inode, Store  # noqa: E402

SYS_GETDENTS64 = 217
TURNS = 40
MAKERS = 3
READS = 20
BLOBS = 8  # more than are opened with a file
STUCK = 2  # seconds
LIMIT = 2 * 10  # seconds: a listing touches the page twice
SLACK = 10

random = seeded_random()
store = Store(f"{CASE_DIR}/store")
contents = {b"small": [random.randbytes(PAGE)], b"large": [random.randbytes(PAGE) for _ in range(BLOBS)]}
inodes = [Inode(1, "dir", 0o755, entries=[(b"large", 2), (b"small", 3)])]
for number, name in enumerate((b"large", b"small"), 2):
    inodes.append(Inode(number, chunks=[Chunk(store.add(part), PAGE) for part in contents[name]]))
mnt = "mnt"
os.mkdir(mnt)
mountapi.mount(store.path, mnt, f"rootfs={store.add_image(inodes)}")
blobs = f"{store.path}/blobs/sha256"
libc = ctypes.CDLL(None, use_errno=True)


def list_into_map(name, page):
    """Lists the directory into a page that is not there; gives how many bytes, or the error."""
    directory = os.open(blobs, os.O_RDONLY | os.O_DIRECTORY)
    with open(f"{mnt}/{name}", "rb") as file:
        view = mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
    address = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(view)) + page * PAGE)

    def turn():
        view.madvise(mmap.MADV_DONTNEED)
        write_file("/proc/sys/vm/drop_caches", b"3")
        os.lseek(directory, 0, os.SEEK_SET)
        if libc.syscall(SYS_GETDENTS64, directory, address, PAGE) <= 0:
            return ctypes.get_errno()
        return 0
    return turn


def list_without_error():
    turn = list_into_map("small", 0)
    return lambda: equal(turn(), 0, "the listing's errno")


def list_until_stuck(report):
    """Lists until a listing fails, and says how long that one took."""
    turn = list_into_map("large", BLOBS - 1)
    while True:
        began = time.monotonic()
        error = turn()
        if error:
            equal(error, errno.EFAULT, "the listing's errno")
            os.write(report, f"{time.monotonic() - began}\n".encode())
            return


def make_files():
    name = f"{blobs}/new{os.getpid()}"
    while True:
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
        os.unlink(name)


def read(name):
    with open(f"{mnt}/{name.decode()}", "rb") as file:
        check(file.read() == b"".join(contents[name]), f"{name} reads right")


makers = [start(make_files) for _ in range(MAKERS)]
child, count = turns(list_without_error, TURNS, STUCK)
end(child, "the process that lists")
equal(count, TURNS, "listings into a map of a file whose blob is open")
for _ in range(READS):
    write_file("/proc/sys/vm/drop_caches", b"3")
    read(b"small")

# A blob that is not open: the listing ends, and others go on.
reader, writer = os.pipe()
child = start(list_until_stuck, writer)
os.close(writer)
with os.fdopen(reader) as report:
    took = float(report.readline() or fail("no listing failed"))
equal(os.waitpid(child, 0)[1], 0, "the status of the process that lists")
check(took < LIMIT + SLACK, f"the listing that fails takes {took:.1f} s")
metric("store_listed_failing_seconds", round(took, 1))
read(b"large")

# It can be killed before.
child, count = turns(lambda: list_into_map("large", BLOBS - 1), 10 * TURNS, STUCK)
end(child, "the process that lists")
began = time.monotonic()
write_file("/proc/sys/vm/drop_caches", b"3")
read(b"large")
check(time.monotonic() - began < SLACK, "a reader goes on")
for maker in makers:
    end(maker, "a process that makes files")
metric("turns", count)
mountapi.umount(mnt)
