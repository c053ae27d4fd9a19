#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# A process has a write lease on a blob (F_SETLEASE), which the kernel asks it to give up when the
# blob is opened. If it does, the file reads right at once. If it does not, the reader gets an error
# in less time than the kernel takes to break the lease, can be killed meanwhile, and keeps nobody
# from other files.
#
# formats: 3 4
# timeout: 180
# klog-allow: puzzlefs: image .*EDEADLK
import errno
import fcntl
import mmap
import os
import select
import signal
import time

import packs
from case import (CASE_DIR, FORMAT, build_image, check, drop_caches, end, equal, eventually, metric,
                  mount_image, refused, seeded_random, sha256, start, write_file)

LIMIT = 10  # seconds that a reader waits for a blob to be opened
BREAK = 45  # seconds that the kernel gives the holder of a lease
AT_ONCE = 5

with open("/proc/sys/fs/lease-break-time") as file:
    equal(int(file.read()), BREAK, "the time that the kernel gives")
random = seeded_random()
os.mkdir("src")
# Each has a blob of its own, because their times are far apart; or a pack, because one was built before.
contents = {name: random.randbytes(100_000) for name in ("leased", "other")}
for day, (name, data) in enumerate(contents.items()):
    write_file(f"src/{name}", data)
    os.utime(f"src/{name}", (day * 86_400, day * 86_400))
    source = build_image("src", tag=name)
mnt = mount_image(source)
blob = f"{CASE_DIR}/store/blobs/sha256/{sha256('src/leased')}"
if FORMAT == 4:
    extent, = packs.extents_of(f"{CASE_DIR}/store", contents["leased"])
    blob = f"{CASE_DIR}/store/blobs/sha256/{extent.blob}"


def lease(fd):
    """Tries to get the lease, which takes that nobody else has the blob open."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        return True
    except OSError as error:
        equal(error.errno, errno.EAGAIN, "F_SETLEASE")
        return False


def hold(gives_up, ready):
    fd = os.open(blob, os.O_RDWR)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGIO])
    eventually(lambda: lease(fd), "no lease")
    os.write(ready, b"r")
    signal.sigwait([signal.SIGIO])
    os.write(ready, b"a")
    if gives_up:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    signal.pause()


def holder(gives_up):
    """A process that has the lease; gives its id, and a pipe on which it says that it was asked."""
    drop_caches()
    reader, writer = os.pipe()
    child = start(hold, gives_up, writer)
    os.close(writer)
    said(reader, b"r")
    return child, reader


def said(reader, what):
    check(select.select([reader], [], [], 20)[0], f"the holder says {what}")
    equal(os.read(reader, 1), what, "the holder says")


def read(name):
    with open(f"{mnt}/{name}", "rb") as file:
        return file.read()


def timed(function, *arguments):
    began = time.monotonic()
    result = function(*arguments)
    return time.monotonic() - began, result


# The holder gives the lease up.
child, reader = holder(gives_up=True)
took, data = timed(read, "leased")
check(data == contents["leased"], "the file whose lease was given up")
check(took < AT_ONCE, f"a read takes {took:.1f} s though the lease is given up")
said(reader, b"a")
end(child, "the holder")

# It does not. The file was opened before: the read alone waits, for its own limit.
fd = os.open(f"{mnt}/leased", os.O_RDONLY)
os.close(fd)
child, reader = holder(gives_up=False)


def read_in_vain():
    with refused(errno.EDEADLK, "a read of a leased blob"):
        read("leased")


took, _ = timed(read_in_vain)
said(reader, b"a")
check(took < 3 * LIMIT < BREAK, f"a read of a leased blob takes {took:.1f} s")
metric("store_leased_seconds", round(took, 1))
took, data = timed(read, "other")
check(data == contents["other"] and took < AT_ONCE, f"another file, after {took:.1f} s")

# A reader that waits is killed, by read(2) and by a map.
end(child, "the holder")
child, reader = holder(gives_up=False)


def touch():
    with open(f"{mnt}/leased", "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as view:
        return view[0]


for how in lambda: read("leased"), touch:
    waiting = start(how)
    if how is not touch:
        said(reader, b"a")
    end(waiting, "a reader that waits for a lease")

# The holder goes: so does the lease.
end(child, "the holder")
took, data = timed(read, "leased")
check(data == contents["leased"] and took < AT_ONCE, f"the file without a lease, after {took:.1f} s")
