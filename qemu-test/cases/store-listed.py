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
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from case import CASE_DIR, build_image, check, metric, mount_image, seeded_random, start, write_file  # noqa: E402

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


def list_into_map(turns):
    """Lists the directory into a page that is not there, and writes a byte for each turn."""
    directory = os.open(blobs, os.O_RDONLY | os.O_DIRECTORY)
    with open(f"{mnt}/file", "rb") as file:
        view = mmap.mmap(file.fileno(), LEN, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(view))
    while True:
        view.madvise(mmap.MADV_DONTNEED)
        write_file("/proc/sys/vm/drop_caches", b"3")
        os.lseek(directory, 0, os.SEEK_SET)
        if libc.syscall(SYS_GETDENTS64, directory, ctypes.c_void_p(address), LEN) <= 0:
            os._exit(1)
        os.write(turns, b".")


def make_files():
    name = f"{blobs}/new{os.getpid()}"
    while True:
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
        os.unlink(name)


def kill(child, who):
    os.kill(child, signal.SIGKILL)
    killed = time.monotonic()
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        check(time.monotonic() - killed < 5, f"{who} is killed, and goes")
        time.sleep(0.01)


turns, theirs = os.pipe()
child = start(list_into_map, theirs)
os.close(theirs)
makers = [start(make_files) for _ in range(MAKERS)]

# Until it is stuck, or was often enough in the place where it would be.
os.set_blocking(turns, False)
count, last = 0, time.monotonic()
while count < TURNS and time.monotonic() - last < STUCK:
    try:
        more = len(os.read(turns, TURNS))
        check(more, "the child lists the directory, or waits")
        count, last = count + more, time.monotonic()
    except BlockingIOError:
        time.sleep(0.01)
kill(child, "whoever lists")
for _ in range(READS):
    write_file("/proc/sys/vm/drop_caches", b"3")
    with open(f"{mnt}/file", "rb") as file:
        check(file.read() == contents, "the file reads right")
for maker in makers:
    kill(maker, "whoever makes files")
metric("turns", count)
