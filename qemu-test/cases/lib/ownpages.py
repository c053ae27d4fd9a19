# SPDX-License-Identifier: MIT OR Apache-2.0
"""A blob is read, or mapped by FIEMAP, into memory mapped from the file that it serves, while other
processes change its attributes. On a filesystem whose reads take the blob's lock, the process that
reads has this lock when it waits for the page. If the page were read with the lock of the blob, all
would wait for ever."""

import ctypes
import mmap
import os
import struct
import sys

from case import check, end, equal, eventually, start, turns, write_file

PAGE = mmap.PAGESIZE
LEN = 2 * PAGE
FS_IOC_FIEMAP = 0xC020660B
FIEMAP = struct.Struct("QQIIII")
TURNS = 60
STUCK = 20  # seconds
CHANGERS = 3

libc = ctypes.CDLL(None, use_errno=True)


def _second_page(path, changes):
    """A turn's beginning, and the address of a page of the file that is not there after it. The blob has been
    changed since the turn before: a process that could change it is waiting for its lock."""
    with open(path, "rb") as file:
        view = mmap.mmap(file.fileno(), LEN, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)

    def begin():
        before = sum(changes)
        eventually(lambda: sum(changes) >= before + CHANGERS, "nobody changes the blob")
        view.madvise(mmap.MADV_DONTNEED)
        # The first page is there before the second is needed.
        FIEMAP.pack_into(view, PAGE - FIEMAP.size, 0, LEN, 0, 0, 1, 0)
        write_file("/proc/sys/vm/drop_caches", b"1")
    return begin, ctypes.addressof(ctypes.c_char.from_buffer(view)) + PAGE


def reads(path, blob, contents, changes):
    """Reads the blob, which must have these contents, in format 4 behind others."""
    begin, address = _second_page(path, changes)
    with open(blob, "rb") as whole:
        offset = whole.read().index(contents)
    file = os.open(blob, os.O_RDONLY)

    def turn():
        begin()
        equal(libc.pread(file, ctypes.c_void_p(address), PAGE, offset), PAGE, "the blob is read")
        equal(ctypes.string_at(address, PAGE), contents[:PAGE], "the bytes that were read")
    return turn


def maps(path, blob, _contents, changes):
    """Asks where the blob is on the disk."""
    begin, address = _second_page(path, changes)
    file = os.open(blob, os.O_RDONLY)

    def turn():
        begin()
        header = ctypes.c_void_p(address - FIEMAP.size)
        equal(libc.ioctl(file, ctypes.c_ulong(FS_IOC_FIEMAP), header), 0, "where the blob is")
    return turn


def _change(blob, changes, own):
    file = os.open(blob, os.O_RDONLY)
    while True:
        os.fchmod(file, 0o644)
        changes[own] += 1


def try_all(path, blob, contents, works):
    """No process waits, and all bytes are right."""
    changes = memoryview(mmap.mmap(-1, 8 * CHANGERS)).cast("Q")
    changers = [start(_change, blob, changes, own) for own in range(CHANGERS)]
    for work in works:
        child, count = turns(lambda work=work: work(path, blob, contents, changes), TURNS, STUCK)
        end(child, work.__name__)
        check(count >= TURNS, f"{work.__name__} goes on after {count} turns")
    for changer in changers:
        end(changer, "a process that changes the blob")


if __name__ == "__main__":
    with open(sys.argv[2], "rb") as _blob:
        try_all(sys.argv[1], sys.argv[2], _blob.read(), [reads])
