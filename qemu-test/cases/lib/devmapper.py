# SPDX-License-Identifier: MIT OR Apache-2.0
"""Device mapper, by its bare ioctls: a disk whose parts can be made to fail, and whole again."""

import fcntl
import os
import struct

from case import eventually, run

_CREATE, _REMOVE, _SUSPEND, _LOAD = 3, 4, 6, 9
_SUSPEND_FLAG, _SKIP_LOCKFS = 1 << 1, 1 << 10
_HEADER = 312


def _ioctl(command, name, flags=0, targets=()):
    """Targets are (start, length, kind, parameters), in sectors."""
    body = b""
    for start, length, kind, parameters in targets:
        parameters = parameters.encode() + b"\0"
        parameters += bytes(-len(parameters) % 8)
        body += struct.pack("<QQiI16s", start, length, 0, 40 + len(parameters), kind.encode()) + parameters
    size = _HEADER + len(body)
    header = struct.pack("<3IIIIiIIIQ128s129s7x", 4, 0, 0, size, _HEADER, len(targets), 0, flags, 0, 0, 0, name.encode(), b"")
    buffer = bytearray(header + body)
    with open("/dev/mapper/control", "rb+", buffering=0) as control:
        # _IOWR(0xfd, command, struct dm_ioctl)
        fcntl.ioctl(control, 3 << 30 | _HEADER << 16 | 0xFD << 8 | command, buffer)
    return buffer


class Disk:
    """A disk in a file."""

    def __init__(self, file, megabytes, name="case"):
        self.name, self.sectors = name, megabytes * 2048
        for module, control in (("dm-mod", "/dev/mapper/control"), ("loop", "/dev/loop-control")):
            if not os.path.exists(control):
                run("modprobe", module)
        with open(file, "wb") as disk:
            disk.truncate(megabytes << 20)
        self.loop = run("losetup", "--find", "--show", file).strip()
        device = struct.unpack_from("<Q", _ioctl(_CREATE, name), 40)[0]
        self.path = f"{file}.disk"
        # The number is as the kernel packs it for old callers: major, minor of at most 8 bits.
        os.mknod(self.path, 0o60600, os.makedev(device >> 8 & 0xFFF, device & 0xFF))
        self.fail([])

    def fail(self, ranges):
        """Of the disk, these ranges of bytes give I/O errors, and nothing else does."""
        at, targets = 0, []
        for start, end in sorted(ranges):
            start, end = start // 512, (end + 511) // 512
            if start > at:
                targets.append((at, start - at, "linear", f"{self.loop} {at}"))
            targets.append((start, end - start, "error", ""))
            at = end
        if at < self.sectors:
            targets.append((at, self.sectors - at, "linear", f"{self.loop} {at}"))
        _ioctl(_LOAD, self.name, targets=targets)
        _ioctl(_SUSPEND, self.name, _SUSPEND_FLAG | _SKIP_LOCKFS)
        _ioctl(_SUSPEND, self.name)

    def stop(self):
        """Requests wait, until the disk goes on."""
        _ioctl(_SUSPEND, self.name, _SUSPEND_FLAG | _SKIP_LOCKFS)

    def go_on(self):
        _ioctl(_SUSPEND, self.name)

    def fail_all(self):
        """All of the disk gives I/O errors."""
        self.fail([(0, self.sectors * 512)])

    def remove(self):
        """Takes the disk away; nothing may be mounted from it."""
        eventually(self._removed, "the disk is in use")
        run("losetup", "--detach", self.loop)

    def _removed(self):
        try:
            _ioctl(_REMOVE, self.name)
        except OSError:
            return False
        return True


def ranges_of(path):
    """Where on its disk a file's data is, in bytes: FIEMAP."""
    count = 64
    request = bytearray(struct.pack("<QQIIII", 0, (1 << 64) - 1, 1, 0, count, 0)) + bytes(count * 56)
    with open(path, "rb") as file:
        fcntl.ioctl(file, 0xC020660B, request)
    extents = [struct.unpack_from("<QQQ", request, 32 + 56 * n) for n in range(struct.unpack_from("<I", request, 20)[0])]
    return [(physical, physical + length) for _, physical, length in extents]
