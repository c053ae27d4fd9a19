#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Advice about files and maps, without and with verification: it brings pages to memory, keeps them
# there, sends them away, and never changes what is read. Maps of a file of 16 GiB, at the edges of
# huge pages.
#
# timeout: 90
import contextlib
import ctypes
import errno
import mmap
import os

import mountapi
from case import (CASE_DIR, PAGE, check, drop_caches, equal, eventually, in_memory, seeded_random,
                  write_file)
from metadata import Chunk, Inode, Store

MADV_COLD, MADV_PAGEOUT, MADV_POPULATE_READ, MADV_POPULATE_WRITE, MADV_COLLAPSE = 20, 21, 22, 23, 25
MADV_HUGEPAGE, MADV_NOHUGEPAGE, MLOCK_ONFAULT, MAP_LOCKED = 14, 15, 1, 0x2000
HUGE = 2 << 20
SIZE = 3 * HUGE + 12_345
random = seeded_random()
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int,
                      ctypes.c_long]
for call in (libc.munmap, libc.mlock, libc.munlock):
    call.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.mlock2.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint]

# Chunks whose edges are no page's; and a blob that a file of 16 GiB has 2^14 times.
store = Store(f"{CASE_DIR}/store")
contents = random.randbytes(SIZE)
chunks, at = [], 0
while at < SIZE:
    length = min(random.randrange(16 << 10, 256 << 10), SIZE - at)
    chunks.append(Chunk(store.add(contents[at:at + length]), length))
    at += length
block = random.randbytes(1 << 20)
blocks = [Chunk(store.add(block), len(block))] * (16 << 10)
rootfs = store.add_image([Inode(1, "dir", 0o755, entries=[(b"file", 2), (b"large", 3)]),
                          Inode(2, chunks=chunks), Inode(3, chunks=blocks)])


class Map:
    """A map of a file, by address."""

    def __init__(self, fd, offset, length, flags=mmap.MAP_SHARED, protection=mmap.PROT_READ):
        self.length = length
        self.address = libc.mmap(None, length, protection, flags, fd, offset)
        check(self.address != ctypes.c_void_p(-1).value, f"mmap: {os.strerror(ctypes.get_errno())}")
        if length >= HUGE and os.path.exists("/sys/kernel/mm/transparent_hugepage"):
            equal((self.address - offset) % HUGE, 0, "where a map lies, beside a huge page's edge")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        libc.munmap(self.address, self.length)

    def read(self, at, length):
        return ctypes.string_at(self.address + at, length)

    def advise(self, advice, *may_fail):
        """madvise(2) of all of it; one of these errnos is an answer, too."""
        if libc.madvise(self.address, self.length, advice):
            number = ctypes.get_errno()
            check(number in may_fail, f"madvise {advice}: {os.strerror(number)}")
            return False
        return True


def locked_kilobytes():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmLck"))


def same(view, what):
    equal(view.read(0, SIZE) == contents, True, what)


def advice_for_files(fd):
    pages = (SIZE + PAGE - 1) // PAGE
    for advice in (os.POSIX_FADV_NORMAL, os.POSIX_FADV_RANDOM, os.POSIX_FADV_SEQUENTIAL,
                   os.POSIX_FADV_NOREUSE):
        drop_caches(1)
        os.posix_fadvise(fd, 0, 0, advice)
        start = random.randrange(SIZE - 100_000)
        equal(os.pread(fd, 100_000, start), contents[start:start + 100_000], f"a read under advice {advice}")
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_NORMAL)
    drop_caches(1)
    equal(in_memory(fd), 0, "pages in memory")
    os.posix_fadvise(fd, HUGE, 64 * PAGE, os.POSIX_FADV_WILLNEED)
    eventually(lambda: in_memory(fd) >= 64, "POSIX_FADV_WILLNEED brings nothing to memory")
    equal(os.pread(fd, SIZE, 0) == contents, True, "a read of all of it")
    equal(in_memory(fd), pages, "pages in memory after a read")
    # Only whole pages, but for the last one of a file.
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    equal(in_memory(fd), 0, "pages in memory after POSIX_FADV_DONTNEED")


def advice_for_maps(fd):
    pages = (SIZE + PAGE - 1) // PAGE
    drop_caches(1)
    with Map(fd, 0, SIZE) as view:
        view.advise(MADV_POPULATE_READ)
        equal(in_memory(fd), pages, "pages in memory after MADV_POPULATE_READ")
        same(view, "a populated map")
        for advice in (mmap.MADV_RANDOM, mmap.MADV_SEQUENTIAL, mmap.MADV_NORMAL, mmap.MADV_DONTNEED,
                       MADV_COLD, MADV_PAGEOUT):
            view.advise(advice)
            same(view, f"a map under advice {advice}")
        for advice in (MADV_HUGEPAGE, MADV_NOHUGEPAGE):
            view.advise(advice, errno.EINVAL)
            same(view, f"a map under advice {advice}")
        # Read-only files can be put into huge pages where the kernel was built for that.
        view.advise(MADV_HUGEPAGE, errno.EINVAL)
        view.advise(MADV_COLLAPSE, errno.EINVAL, errno.EAGAIN, errno.ENOMEM, errno.EBUSY)
        same(view, "a map after MADV_COLLAPSE")
        check(not view.advise(MADV_POPULATE_WRITE, errno.EINVAL, errno.EFAULT),
              "MADV_POPULATE_WRITE of a read-only map")
    drop_caches(1)
    with Map(fd, 0, SIZE) as view:
        view.advise(mmap.MADV_WILLNEED)
        eventually(lambda: in_memory(fd) >= 64, "MADV_WILLNEED brings nothing to memory")
        same(view, "a map after MADV_WILLNEED")
    with Map(fd, 0, SIZE, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE) as view:
        view.advise(MADV_POPULATE_WRITE)
        ctypes.memset(view.address, 0, 100)
        equal(view.read(0, 200), bytes(100) + contents[100:200], "a private map that was written to")
        equal(os.pread(fd, 200, 0), contents[:200], "the file under it")
        view.advise(mmap.MADV_DONTNEED)
        same(view, "a private map whose changes were dropped")


@contextlib.contextmanager
def without_khugepaged():
    """khugepaged unmaps the pages that it joins, also locked ones. Until they are used again, they can be
    dropped."""
    knob = "/sys/kernel/mm/transparent_hugepage/enabled"
    with open(knob) as file:
        before = file.read().split("[")[1].split("]")[0]
    write_file(knob, b"never")
    try:
        yield
    finally:
        write_file(knob, before.encode())


def locked(fd):
    pages = (SIZE + PAGE - 1) // PAGE
    drop_caches(1)
    with Map(fd, 0, SIZE) as view:
        equal(libc.mlock(view.address, SIZE), 0, "mlock")
        equal((in_memory(fd), locked_kilobytes()), (pages, pages * PAGE // 1024),
              "pages in memory, kilobytes locked")
        drop_caches(1)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        equal(in_memory(fd), pages, "locked pages in memory, when all was dropped")
        same(view, "a locked map")
        equal(libc.munlock(view.address, SIZE), 0, "munlock")
    drop_caches(1)
    eventually(lambda: drop_caches(1) or in_memory(fd) == 0, "pages that were locked stay in memory")
    with Map(fd, 0, SIZE) as view:
        equal(libc.mlock2(view.address, SIZE, MLOCK_ONFAULT), 0, "mlock2")
        same(view, "a map that is locked by use")
        equal(in_memory(fd), pages, "pages in memory after that")
    with Map(fd, 0, SIZE, mmap.MAP_SHARED | MAP_LOCKED) as view:
        same(view, "a map made with MAP_LOCKED")


def large_file(fd):
    size = len(block) * len(blocks)
    equal(os.fstat(fd).st_size, size, "size of the large file")
    with Map(fd, 0, size) as view:
        view.advise(MADV_HUGEPAGE, errno.EINVAL)
        for edge in (HUGE, 2 * HUGE, 1 << 30, (1 << 32) - HUGE, 1 << 32, size - HUGE):
            at = edge - 5000
            equal(view.read(at, 10_000), (block * 2)[at % len(block):][:10_000], f"the large map at {at}")
        equal(view.read(size - 100, 100), block[-100:], "the end of the large map")
    for edge in (HUGE, (1 << 32) - HUGE, 1 << 33):
        with Map(fd, edge, 2 * HUGE, mmap.MAP_PRIVATE) as view:
            view.advise(MADV_HUGEPAGE, errno.EINVAL)
            view.advise(MADV_POPULATE_READ)
            equal(view.read(0, 2 * HUGE) == block * 4, True, f"a map of two huge pages at {edge}")


mnt = f"{CASE_DIR}/mnt"
os.mkdir(mnt)
for options in ("", ",verify=digest"):
    mountapi.mount(store.path, mnt, f"rootfs={rootfs}{options}")
    with open(f"{mnt}/file", "rb", buffering=0) as file:
        advice_for_files(file.fileno())
        advice_for_maps(file.fileno())
        with without_khugepaged():
            locked(file.fileno())
    with open(f"{mnt}/large", "rb", buffering=0) as file:
        large_file(file.fileno())
    mountapi.umount(mnt)
