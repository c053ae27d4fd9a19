# SPDX-License-Identifier: MIT OR Apache-2.0
"""A process that lists the store's directory of blobs into memory mapped from a file, and processes
that create files in the directory meanwhile."""

import ctypes
import mmap
import os

from case import PAGE, write_file

SYS_GETDENTS64 = 217

_libc = ctypes.CDLL(None, use_errno=True)


def list_into_map(blobs, path, page):
    """A function that lists the directory into a page of the file that is not there; it returns 0,
    or the errno."""
    directory = os.open(blobs, os.O_RDONLY | os.O_DIRECTORY)
    with open(path, "rb") as file:
        view = mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
    address = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(view)) + page * PAGE)

    def turn():
        view.madvise(mmap.MADV_DONTNEED)
        # The blobs are closed first, and then their names can be dropped.
        for _ in range(2):
            write_file("/proc/sys/vm/drop_caches", b"3")
        os.lseek(directory, 0, os.SEEK_SET)
        return 0 if _libc.syscall(SYS_GETDENTS64, directory, address, PAGE) > 0 else ctypes.get_errno()
    return turn


def make_files(blobs):
    name = f"{blobs}/new{os.getpid()}"
    while True:
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
        os.unlink(name)
