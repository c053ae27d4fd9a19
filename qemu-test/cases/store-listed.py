#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# The store's directory of blobs is listed into memory that is mapped from a file whose blob has to
# be looked up in that directory, while others make files there. Whoever lists has the directory's
# lock, and waits for the page: if that waited for the lock in turn, behind those who make files,
# all would wait for ever. A reader who is killed then is gone at once, and the others go on; and
# whoever only reads is not kept from it by those who make files.
#
# timeout: 60
import ctypes
import mmap
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from case import (CASE_DIR, build_image, check, end, metric, mount_image, seeded_random, start, turns,  # noqa: E402
                  write_file)

SYS_GETDENTS64 = 217
LEN = 4096
TURNS = 40
MAKERS = 3
READS = 20
STUCK = 2  # seconds

contents = seeded_random().randbytes(LEN)
os.mkdir("src")
write_file("src/file", contents)
mnt = mount_image(build_image("src"))
blobs = f"{CASE_DIR}/store/blobs/sha256"
libc = ctypes.CDLL(None, use_errno=True)


def list_into_map():
    """Lists the directory into a page that is not there."""
    directory = os.open(blobs, os.O_RDONLY | os.O_DIRECTORY)
    with open(f"{mnt}/file", "rb") as file:
        view = mmap.mmap(file.fileno(), LEN, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
    address = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(view)))

    def turn():
        view.madvise(mmap.MADV_DONTNEED)
        write_file("/proc/sys/vm/drop_caches", b"3")
        os.lseek(directory, 0, os.SEEK_SET)
        check(libc.syscall(SYS_GETDENTS64, directory, address, LEN) > 0, "the directory is listed")
    return turn


def make_files():
    name = f"{blobs}/new{os.getpid()}"
    while True:
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
        os.unlink(name)


makers = [start(make_files) for _ in range(MAKERS)]
# Until it is stuck, or was often enough in the place where it would be.
child, count = turns(list_into_map, TURNS, STUCK)
end(child, "whoever lists")
for _ in range(READS):
    write_file("/proc/sys/vm/drop_caches", b"3")
    with open(f"{mnt}/file", "rb") as file:
        check(file.read() == contents, "the file reads right")
for maker in makers:
    end(maker, "whoever makes files")
metric("turns", count)
