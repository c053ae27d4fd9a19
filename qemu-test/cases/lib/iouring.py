# SPDX-License-Identifier: MIT OR Apache-2.0
"""io_uring, by its bare system calls."""

import ctypes
import mmap
import os
import struct

from case import check, equal

SETUP, ENTER, REGISTER = 425, 426, 427
READV, READ_FIXED, OPENAT, CLOSE, READ, SPLICE = 1, 4, 18, 19, 22, 30
ENTRIES = 64
libc = ctypes.CDLL(None, use_errno=True)


def syscall(*arguments):
    result = libc.syscall(*arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


class Ring:
    """A ring of 64 entries, submitted and awaited together."""

    def __init__(self):
        params = bytearray(120)
        raw = (ctypes.c_char * 120).from_buffer(params)
        self.fd = syscall(SETUP, ENTRIES, raw)
        words = struct.unpack_from("<10I", params)
        check(words[5] & 1, "the kernel maps both rings at once since 5.4")
        self.sq_off = struct.unpack_from("<10I", params, 40)
        self.cq_off = struct.unpack_from("<10I", params, 80)
        cq_entries = words[1]
        size = max(self.sq_off[6] + ENTRIES * 4, self.cq_off[5] + cq_entries * 16)
        flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
        self.ring = mmap.mmap(self.fd, size, flags, offset=0)
        self.sqes = mmap.mmap(self.fd, ENTRIES * 64, flags, offset=0x10000000)

    def word(self, at):
        return struct.unpack_from("<I", self.ring, at)[0]

    def submit(self, requests):
        """Requests are (opcode, fd, address, length, offset, extra); returns their results."""
        tail, mask = self.word(self.sq_off[1]), self.word(self.sq_off[2])
        for number, (opcode, fd, address, length, offset, extra) in enumerate(requests):
            slot = (tail + number) & mask
            entry = struct.pack("<BBHiQQIIQHHiQQ", opcode, 0, 0, fd, offset, address, length, 0, number,
                                extra, 0, 0, 0, 0)
            self.sqes[slot * 64:slot * 64 + 64] = entry
            struct.pack_into("<I", self.ring, self.sq_off[6] + slot * 4, slot)
        struct.pack_into("<I", self.ring, self.sq_off[1], (tail + len(requests)) & 0xFFFFFFFF)
        equal(syscall(ENTER, self.fd, len(requests), len(requests), 1, None, 0), len(requests), "submitted")
        results = {}
        head, mask = self.word(self.cq_off[0]), self.word(self.cq_off[2])
        while head != self.word(self.cq_off[1]):
            user, result, _ = struct.unpack_from("<QiI", self.ring, self.cq_off[5] + (head & mask) * 16)
            results[user] = result
            head = (head + 1) & 0xFFFFFFFF
        struct.pack_into("<I", self.ring, self.cq_off[0], head)
        equal(sorted(results), list(range(len(requests))), "completed")
        return [results[number] for number in range(len(requests))]
