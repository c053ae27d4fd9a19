#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# io_uring, by its bare system calls: many reads at once, single and vectored, into plain and into
# registered memory, completed in any order; short at the end of the file, with errors.
#
# formats: 3 4
# timeout: 60
import ctypes
import errno
import mmap
import os
import struct

from case import build_image, check, drop_caches, equal, mount_image, seeded_random, skip, write_file
from iouring import CLOSE, ENTER, ENTRIES, OPENAT, READ, READ_FIXED, READV, REGISTER, SPLICE, Ring, syscall

try:
    ring = Ring()
except OSError as error:
    if error.errno in (errno.ENOSYS, errno.EPERM):
        skip(f"no io_uring here: {error}")
    raise

random = seeded_random()
SIZE = 2_000_003
contents = random.randbytes(SIZE)
os.mkdir("src")
write_file("src/file", contents)
mnt = mount_image(build_image("src"))
fd = os.open(f"{mnt}/file", os.O_RDONLY)

LENGTH = 50_000
memory = mmap.mmap(-1, ENTRIES * LENGTH)
base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
# One registered buffer, all of it.
iovec = struct.pack("<QQ", base, ENTRIES * LENGTH)
syscall(REGISTER, ring.fd, 0, iovec, 1)

for opcode in (READ, READ_FIXED, READV):
    for cold in (True, False):
        if cold:
            drop_caches(1)
        offsets = [random.randrange(SIZE) for _ in range(ENTRIES - 2)] + [SIZE - 10, SIZE + 5]
        memory[:] = bytes(len(memory))
        vectors, requests = [], []
        for number, offset in enumerate(offsets):
            address = base + number * LENGTH
            if opcode == READV:
                vector = ctypes.create_string_buffer(struct.pack("<QQQQ", address, 7, address + 7,
                                                                 LENGTH - 7), 32)
                vectors.append(vector)
                requests.append((opcode, fd, ctypes.addressof(vector), 2, offset, 0))
            else:
                requests.append((opcode, fd, address, LENGTH, offset, 0))
        for number, result in enumerate(ring.submit(requests)):
            at, start = offsets[number], number * LENGTH
            wanted = contents[at:at + LENGTH]
            what = f"request {opcode}, cold={cold}, at {at}"
            # A read may be short anywhere; what it says it read must be right.
            check(0 < result <= len(wanted) if wanted else result == 0, f"{what}: {result}")
            equal(memory[start:start + result] == wanted[:result], True, what)

# The file opened by the ring; and what cannot be.
path = ctypes.create_string_buffer(os.fsencode(f"{mnt}/file"))
(opened,) = ring.submit([(OPENAT, -100, ctypes.addressof(path), 0, 0, 0)])
check(opened >= 0, f"openat: {opened}")
equal(ring.submit([(READ, opened, base, 100, 1234, 0)]), [100], "a read of what the ring opened")
equal(memory[:100], contents[1234:1334], "its bytes")
equal(ring.submit([(CLOSE, opened, 0, 0, 0, 0)]), [0], "close")
directory = os.open(mnt, os.O_RDONLY)
equal(ring.submit([(READ, directory, base, 100, 0, 0)]), [-errno.EISDIR], "a read of a directory")

# To a pipe, without a copy through our memory. splice's entry: fd out, fd in, both offsets.
reader, writer = os.pipe()
at = 1_000_000
tail, mask = ring.word(ring.sq_off[1]), ring.word(ring.sq_off[2])
entry = struct.pack("<BBHiQQIIQHHiQQ", SPLICE, 0, 0, writer, (1 << 64) - 1, at, 30_000, 0, 0, 0, 0, fd, 0, 0)
ring.sqes[(tail & mask) * 64:(tail & mask) * 64 + 64] = entry
struct.pack_into("<I", ring.ring, ring.sq_off[6] + (tail & mask) * 4, tail & mask)
struct.pack_into("<I", ring.ring, ring.sq_off[1], tail + 1)
equal(syscall(ENTER, ring.fd, 1, 1, 1, None, 0), 1, "splice submitted")
count = struct.unpack_from("<QiI", ring.ring,
                           ring.cq_off[5] + (ring.word(ring.cq_off[0]) & ring.word(ring.cq_off[2])) * 16)[1]
check(count > 0, f"splice: {count}")
equal(os.read(reader, count), contents[at:at + count], "what the ring spliced")

os.close(fd)
os.close(directory)
os.close(ring.fd)
ring.ring.close()
ring.sqes.close()
