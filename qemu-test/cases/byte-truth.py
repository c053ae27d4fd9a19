#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# What is read is what was built, by whichever call: reads at random, of images raw and compressed,
# not verified and verified in both ways, with caches dropped at random. The seed and the number of
# the operation bring a failure back.
#
# timeout: 60
# rounds: 2500
import ctypes
import errno
import fcntl
import mmap
import os
import sys
import time
from collections import Counter

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from case import (CASE_DIR, PAGE, check, drop_caches, equal, mapped, metric, mount_image, readahead,  # noqa: E402
                  rounds, run, seeded_random, write_file)
from iouring import ENTRIES, READ, Ring  # noqa: E402

POPULATE_READ = 22
LONGEST = 300_000
random = seeded_random()


def contents(size):
    """Noise, zeros and text, in any mixture."""
    parts, left = [], size
    while left > 0:
        length = min(left, random.randrange(1, 150_000))
        parts.append(random.choice((random.randbytes, bytes, lambda n: (b"A line of some text.\n" * (n // 21 + 1))[:n]))(length))
        left -= length
    return b"".join(parts)


sizes = [1, PAGE - 1, PAGE, PAGE + 1, 70_001, 262_144, 400_007, 1_300_007, 2_500_003]
truth = {f"{size}": contents(size) for size in sizes}
os.mkdir("src")
for name, data in truth.items():
    write_file(f"src/{name}", data)
stores = {"raw": [], "zstd": ["--compress"], "small-frames": ["--compress=1", "--frame-size=4K"]}
for store, options in stores.items():
    run("puzzlefs", "build", "--quiet", *options, "src", f"{store}:image")
for blob in os.listdir("raw/blobs/sha256"):
    run("fsverity", "enable", f"raw/blobs/sha256/{blob}")
files = []
for number, (store, verify) in enumerate((("raw", "none"), ("raw", "fsverity"), ("raw", "digest"), ("zstd", "none"),
                                          ("zstd", "digest"), ("small-frames", "none"))):
    mnt = mount_image(f"{CASE_DIR}/{store}:image", f"{CASE_DIR}/mnt{number}", f"ro,verify={verify}")
    files += [(f"{mnt}/{name} ({store}, {verify})", os.open(f"{mnt}/{name}", os.O_RDONLY), data)
              for name, data in truth.items()]

ring = Ring()
memory = mmap.mmap(-1, LONGEST)
address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
pipe_out, pipe_in = os.pipe()
fcntl.fcntl(pipe_in, fcntl.F_SETPIPE_SZ, 1 << 20)
scratch = os.open("scratch", os.O_RDWR | os.O_CREAT)


def read(fd, at, length):
    os.lseek(fd, at, os.SEEK_SET)
    return os.read(fd, length)


def pread(fd, at, length):
    return os.pread(fd, length, at)


def without_waiting(fd, at, length):
    """preadv2(2) with RWF_NOWAIT: what is in memory, perhaps nothing."""
    buffer = bytearray(length)
    try:
        return bytes(buffer[:os.preadv(fd, [buffer], at, os.RWF_NOWAIT)])
    except OSError as error:
        check(error.errno in (errno.EAGAIN, errno.EOPNOTSUPP), f"RWF_NOWAIT: {error}")
        return None


def direct(fd, at, length):
    """O_DIRECT, which may be refused."""
    try:
        other = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_DIRECT)
    except OSError as error:
        equal(error.errno, errno.EINVAL, "O_DIRECT")
        return None
    try:
        memory[:] = bytes(LONGEST)
        at -= at % PAGE
        return bytes(memory[:os.preadv(other, [memoryview(memory)[:length + -length % PAGE]], at)])
    finally:
        os.close(other)


def by_private_map(fd, at, length):
    return mapped(fd, at, length)


def by_shared_map(fd, at, length):
    return mapped(fd, at, length, mmap.MAP_SHARED)


def by_populated_map(fd, at, length):
    with mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ) as view:
        start = at - at % PAGE
        view.madvise(POPULATE_READ, start, at + length - start)
        return view[at:at + length]


def by_splice(fd, at, length):
    count = os.splice(fd, pipe_in, length, offset_src=at)
    parts, left = [], count
    while left:
        parts.append(os.read(pipe_out, left))
        left -= len(parts[-1])
    return b"".join(parts)


def by_sendfile(fd, at, length):
    os.lseek(scratch, 0, os.SEEK_SET)
    return os.pread(scratch, os.sendfile(scratch, fd, at, length), 0)


def by_copy_file_range(fd, at, length):
    try:
        return os.pread(scratch, os.copy_file_range(fd, scratch, length, at, 0), 0)
    except OSError as error:
        equal(error.errno, errno.EXDEV, "copy_file_range")
        return None


def by_ring(fd, at, length):
    """As many reads at once as the ring takes, all of one range: the pieces of it."""
    piece = -(-length // ENTRIES)
    requests = [(READ, fd, address + start, min(piece, length - start), at + start, 0) for start in range(0, length, piece)]
    results = ring.submit(requests)
    full = 0
    for result, request in zip(results, requests):
        check(result >= 0, f"io_uring: {result}")
        full += result
        if result < request[3]:
            break
    return memory[:full]


calls = [read, pread, pread, without_waiting, direct, by_private_map, by_shared_map, by_populated_map, by_splice, by_sendfile,
         by_copy_file_range, by_ring]
done = Counter()
begin = time.monotonic()
for number in range(rounds()):
    name, fd, data = random.choice(files)
    draw = random.random()
    if draw < 0.001:
        drop_caches(random.randrange(1, 4))
    elif draw < 0.05:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    elif draw < 0.07:
        readahead(fd, random.randrange(len(data)), LONGEST)
    at = random.choice((random.randrange(len(data)), random.randrange(len(data)) & -PAGE, max(0, len(data) - 5000)))
    most = min(LONGEST, len(data) - at)
    length = min(most, random.choice((1, 17, PAGE, PAGE + 1, 20_000, random.randrange(1, LONGEST))))
    call = random.choice(calls)
    what = f"operation {number}: {call.__name__} of {length} at {at} of {name}"
    try:
        got = call(fd, at, length)
    except OSError as error:
        raise AssertionError(f"{what}: {error}") from error
    if got is None:
        done["refused"] += 1
        continue
    if call is direct:
        at -= at % PAGE
    check(got or call is without_waiting, f"{what}: nothing")
    equal(got == data[at:at + len(got)], True, what)
    done[call.__name__] += 1
took = time.monotonic() - begin
print(f"{rounds()} operations in {took:.1f} s: {dict(done)}")
metric("byte_truth.operations", sum(done.values()))
metric("byte_truth.refused", done["refused"])
metric("byte_truth.seconds", round(took, 1))
for call in set(calls) - {direct, by_copy_file_range}:
    check(done[call.__name__] > rounds() // 50, f"too few of {call.__name__}: {dict(done)}")

for _, fd, _ in files:
    os.close(fd)
