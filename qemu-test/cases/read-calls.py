#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Every way to read a file gives the same bytes: read, pread and preadv at odd offsets and across
# the edges of chunks, without waiting, by maps private and shared, splice, sendfile,
# copy_file_range; hints, and what there is in memory.
#
# timeout: 90
# formats: 3 4
# kernels: every
import errno
import fcntl
import json
import mmap
import os

from case import (PAGE, build_image, check, drop_caches, equal, eventually, in_memory, mapped, mount_image,
                  readahead, refused, run, seeded_random, write_file)

FICLONE = 0x40049409
random = seeded_random()
SIZE = 3_000_001
contents = random.randbytes(1_000_000) + bytes(500_000) + random.randbytes(SIZE - 1_500_000)
os.mkdir("src")
write_file("src/file", contents)
source = build_image("src")
extents = json.loads(run("puzzlefs", "inspect", "--json", source, "file"))["extents"]
edges = [extent["offset"] for extent in extents] + [SIZE]
check(len(edges) > 10, f"only {len(edges)} chunks")
mnt = mount_image(source)
path = f"{mnt}/file"
fd = os.open(path, os.O_RDONLY)

# read(2), by odd sizes from the start to the end.
for size in (1009, 65_537, 1 << 20):
    drop_caches(1)
    os.lseek(fd, 0, os.SEEK_SET)
    parts = []
    while part := os.read(fd, size):
        parts.append(part)
    equal(b"".join(parts) == contents, True, f"read by {size}")

# pread(2) and preadv(2), across each edge of a chunk.
drop_caches(1)
for edge in edges:
    for before, length in ((1, 2), (7, 4099), (PAGE - 1, 2 * PAGE), (0, 1)):
        at = max(0, edge - before)
        equal(os.pread(fd, length, at), contents[at:at + length], f"pread of {length} at {at}")
for _ in range(50):
    at = random.randrange(SIZE)
    lengths = [random.randrange(1, 9000) for _ in range(5)]
    buffers = [bytearray(length) for length in lengths]
    count = os.preadv(fd, buffers, at)
    equal(count, min(sum(lengths), SIZE - at), f"count of preadv at {at}")
    equal(b"".join(buffers)[:count], contents[at:at + count], f"preadv at {at}")

# Without waiting: what is in memory, or EAGAIN; or the filesystem makes no such promise.
buffer = bytearray(100_000)
for warm in (False, True):
    drop_caches(1)
    if warm:
        os.pread(fd, 200_000, 0)
    try:
        count = os.preadv(fd, [buffer], 12_345, os.RWF_NOWAIT)
    except OSError as error:
        allowed = (errno.EOPNOTSUPP,) if warm else (errno.EOPNOTSUPP, errno.EAGAIN)
        check(error.errno in allowed, f"RWF_NOWAIT, warm={warm}: {error}")
    else:
        equal(bytes(buffer[:count]), contents[12_345:12_345 + count], "what RWF_NOWAIT read")

# Maps: private, shared and read-only, populated; a private one can be written without effect.
for name, flags in (("private", mmap.MAP_PRIVATE), ("shared", mmap.MAP_SHARED),
                    ("populated", mmap.MAP_SHARED | mmap.MAP_POPULATE)):
    drop_caches(1)
    with mmap.mmap(fd, 0, flags, mmap.PROT_READ) as view:
        for _ in range(100):
            at = random.randrange(SIZE)
            equal(view[at:at + 5000], contents[at:at + 5000], f"the {name} map at {at}")
        equal(view[:] == contents, True, f"the whole {name} map")
equal(mapped(fd, SIZE - 1, PAGE - (SIZE - 1) % PAGE), contents[-1:].ljust(PAGE - (SIZE - 1) % PAGE, b"\0"),
      "the last page of a map")
with mmap.mmap(fd, 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE) as view:
    view[100:200] = b"x" * 100
    equal(os.pread(fd, 300, 0), contents[:300], "the file under a private map that was written to")

# splice(2) into a pipe, sendfile(2) and copy_file_range(2) to a file.
drop_caches(1)
reader, writer = os.pipe()
fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 1 << 20)
at, parts = 777, []
while at < SIZE:
    count = os.splice(fd, writer, 65_432, offset_src=at)
    check(count > 0, f"splice gives nothing at {at}")
    part = b""
    while len(part) < count:
        part += os.read(reader, count - len(part))
    parts.append(part)
    at += count
equal(b"".join(parts) == contents[777:], True, "what came through the pipe")
drop_caches(1)
with open("sent", "w+b") as out:
    at = 0
    while count := os.sendfile(out.fileno(), fd, at, 1 << 20):
        at += count
    out.seek(0)
    equal(out.read() == contents, True, "what sendfile wrote")
with open("copied", "w+b") as out:
    # Between filesystems of two kinds the kernel leaves copying to programs; cp does it then.
    at = 5
    try:
        while count := os.copy_file_range(fd, out.fileno(), 1 << 20, offset_src=at):
            at += count
    except OSError as error:
        equal(error.errno, errno.EXDEV, "copy_file_range")
    out.seek(0)
    equal(out.read() == contents[5:at], True, "what copy_file_range wrote")
run("cp", "--reflink=auto", "--sparse=always", path, "copy-of-cp")
with open("copy-of-cp", "rb") as copy:
    equal(copy.read() == contents, True, "what cp wrote")
with open("cloned", "w+b") as out:
    try:
        fcntl.ioctl(out, FICLONE, fd)
        check(False, "FICLONE from another filesystem")
    except OSError as error:
        check(error.errno in (errno.EXDEV, errno.EOPNOTSUPP, errno.EINVAL), f"FICLONE: {error}")

# No place on a disk: O_DIRECT is refused when the file is opened, or when it is asked for later.
with refused(errno.EINVAL, "O_DIRECT"):
    os.open(path, os.O_RDONLY | os.O_DIRECT)
with refused(errno.EINVAL, "O_DIRECT by fcntl"):
    fcntl.fcntl(fd, fcntl.F_SETFL, os.O_DIRECT)

# Hints bring pages to memory and send them away.
drop_caches(1)
equal(in_memory(fd), 0, "pages in memory after they were dropped")
readahead(fd, 0, SIZE)
# Readahead stops at the device's limit a call.
eventually(lambda: in_memory(fd) >= 64, "readahead(2) brings nothing to memory")
os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
equal(in_memory(fd), 0, "pages in memory after POSIX_FADV_DONTNEED")
os.posix_fadvise(fd, 1 << 20, 256 << 10, os.POSIX_FADV_WILLNEED)
eventually(lambda: in_memory(fd) >= 64, "POSIX_FADV_WILLNEED brings nothing to memory")
for advice in (os.POSIX_FADV_RANDOM, os.POSIX_FADV_SEQUENTIAL, os.POSIX_FADV_NOREUSE):
    drop_caches(1)
    other = os.open(path, os.O_RDONLY)
    os.posix_fadvise(other, 0, 0, advice)
    equal(os.pread(other, SIZE, 0) == contents, True, f"the file under advice {advice}")
    os.close(other)
with mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ) as view:
    for advice in (mmap.MADV_RANDOM, mmap.MADV_SEQUENTIAL, mmap.MADV_WILLNEED, mmap.MADV_DONTNEED, 14):
        # 14 is MADV_HUGEPAGE; a kernel without huge pages refuses it.
        try:
            view.madvise(advice)
        except OSError as error:
            check(advice == 14 and error.errno == errno.EINVAL, f"madvise {advice}: {error}")
        equal(view[2_000_000:2_100_000], contents[2_000_000:2_100_000], f"the map under advice {advice}")

# Where there is data, and where the file ends.
equal(os.lseek(fd, 0, os.SEEK_DATA), 0, "SEEK_DATA")
check(os.lseek(fd, 0, os.SEEK_HOLE) <= SIZE, "SEEK_HOLE")
with refused(errno.ENXIO, "SEEK_DATA at the end"):
    os.lseek(fd, SIZE, os.SEEK_DATA)
with refused(errno.EINVAL, "a negative offset"):
    os.pread(fd, 1, -1)
directory = os.open(mnt, os.O_RDONLY)
with refused(errno.EISDIR, "read(2) of a directory"):
    os.read(directory, 1)
os.close(directory)
os.close(fd)
