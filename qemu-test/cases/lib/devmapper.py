# SPDX-License-Identifier: MIT OR Apache-2.0
"""Device mapper, by its bare ioctls: a disk whose parts can be made to fail and whole again, and a
disk whose writes are logged, to be replayed up to each flush."""

import contextlib
import fcntl
import os
import struct

import mountapi
from case import CASE_DIR, eventually, run

_CREATE, _REMOVE, _SUSPEND, _LOAD, _MESSAGE = 3, 4, 6, 9, 14
_SUSPEND_FLAG, _SKIP_LOCKFS = 1 << 1, 1 << 10
_HEADER = 312


def _ioctl(command, name, flags=0, targets=()):
    """Targets are (start, length, kind, parameters), in sectors."""
    body = b""
    for start, length, kind, parameters in targets:
        parameters = parameters.encode() + b"\0"
        parameters += bytes(-len(parameters) % 8)
        body += struct.pack("<QQiI16s", start, length, 0, 40 + len(parameters), kind.encode()) + parameters
    return _call(command, name, flags, len(targets), body)


def _call(command, name, flags, count, body):
    size = _HEADER + len(body)
    header = struct.pack("<3IIIIiIIIQ128s129s7x", 4, 0, 0, size, _HEADER, count, 0, flags, 0, 0, 0,
                         name.encode(), b"")
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
        self.loop = self._loop(file, megabytes)
        device = struct.unpack_from("<Q", _ioctl(_CREATE, name), 40)[0]
        self.path = f"{file}.disk"
        # The number is as the kernel packs it for old callers: major, minor of at most 8 bits.
        os.mknod(self.path, 0o60600, os.makedev(device >> 8 & 0xFFF, device & 0xFF))
        self._start()

    @staticmethod
    def _loop(file, megabytes):
        # What is in the file stays.
        with open(file, "ab") as disk:
            disk.truncate(megabytes << 20)
        return run("losetup", "--find", "--show", file).strip()

    def _start(self):
        self.fail([])

    def _load(self, targets):
        _ioctl(_LOAD, self.name, targets=targets)
        _ioctl(_SUSPEND, self.name, _SUSPEND_FLAG | _SKIP_LOCKFS)
        _ioctl(_SUSPEND, self.name)

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
        self._load(targets)

    def stop(self):
        """Requests wait, until the disk goes on."""
        _ioctl(_SUSPEND, self.name, _SUSPEND_FLAG | _SKIP_LOCKFS)

    def go_on(self):
        _ioctl(_SUSPEND, self.name)

    @contextlib.contextmanager
    def stopped(self):
        """While the body runs, requests wait."""
        self.stop()
        try:
            yield
        finally:
            self.go_on()

    def reads(self):
        """The reads that the disk has done, and their bytes."""
        device = os.stat(self.path).st_rdev
        with open(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat") as file:
            fields = file.read().split()
        return int(fields[0]), int(fields[2]) * 512

    def idle(self):
        """Waits until the disk reads nothing more. Gives what it has read, as `reads` does."""
        last = None

        def is_idle():
            nonlocal last
            before, last = last, self.reads()
            return last == before
        eventually(is_idle, "the disk is never idle")
        return last

    def fail_all(self):
        """All of the disk gives I/O errors."""
        self.fail([(0, self.sectors * 512)])

    def remove(self):
        """Takes the disk away; nothing may be mounted from it."""
        eventually(self._removed, "the disk is in use")
        os.unlink(self.path)
        run("losetup", "--detach", self.loop)

    def _removed(self):
        try:
            _ioctl(_REMOVE, self.name)
        except OSError:
            return False
        return True


@contextlib.contextmanager
def filled(directory):
    """A disk with ext4, which is mounted: writable while the body runs, and then read-only, because nothing
    is written to a disk that fails."""
    disk = Disk(f"{CASE_DIR}/disk", 64)
    run("mkfs.ext4", "-q", "-O", "^has_journal", disk.path)
    os.mkdir(directory)
    mountapi.mount(disk.path, directory, flags=0, fs_type="ext4")
    yield disk
    mountapi.umount(directory)
    mountapi.mount(disk.path, directory, fs_type="ext4")


_FLUSH, _FUA, _DISCARD, _MARK = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_LOG_MAGIC = 0x6A736677736872


class LoggedDisk(Disk):
    """A disk in a file, whose writes are logged in another one: the target log-writes."""

    def __init__(self, file, megabytes, log, log_megabytes, name="logged"):
        run("modprobe", "dm-log-writes")
        self.log = log
        self.log_loop = self._loop(log, log_megabytes)
        super().__init__(file, megabytes, name)

    def _start(self):
        self._load([(0, self.sectors, "log-writes", f"{self.loop} {self.log_loop}")])

    def mark(self, text):
        """Puts a mark into the log: one word."""
        message = f"mark {text}".encode() + b"\0"
        _call(_MESSAGE, self.name, 0, 0, struct.pack("<Q", 0) + message + bytes(-len(message) % 8))

    def remove(self):
        """The same; the log is then complete."""
        super().remove()
        run("losetup", "--detach", self.log_loop)

    def entries(self):
        """The log, as ("mark", text), ("write", offset, bytes, durable) or ("discard", offset, length).
        A write without contents is a flush alone. `durable`: what comes before it in the log is on the disk,
        and so is the write. (A write that is not flushed yet has not been logged.)"""
        with open(self.log, "rb") as log:
            magic, version, count, sector = struct.unpack("<QQQI", log.read(28))
            if (magic, version) != (_LOG_MAGIC, 1):
                raise ValueError(f"{self.log} is no log of writes: {magic:x}, version {version}")
            at = sector
            for _ in range(count):
                log.seek(at)
                entry = log.read(sector)
                start, sectors, flags, length = struct.unpack_from("<QQQQ", entry)
                at += sector
                if flags & _MARK:
                    yield "mark", entry[32:32 + length].rstrip(b"\0").decode()
                elif flags & _DISCARD:
                    yield "discard", start * sector, sectors * sector
                else:
                    yield "write", start * sector, log.read(sectors * sector), bool(flags & (_FLUSH | _FUA))
                    at += sectors * sector


def ranges_of(path, offset=0, length=1 << 62):
    """Where on its disk a file's data is, or a part of it, in bytes: FIEMAP."""
    count = 64
    request = bytearray(struct.pack("<QQIIII", 0, (1 << 64) - 1, 1, 0, count, 0)) + bytes(count * 56)
    with open(path, "rb") as file:
        fcntl.ioctl(file, 0xC020660B, request)
    extents = [struct.unpack_from("<QQQ", request, 32 + 56 * n)
               for n in range(struct.unpack_from("<I", request, 20)[0])]
    found = []
    for logical, physical, size in extents:
        start, end = max(offset, logical), min(offset + length, logical + size)
        if start < end:
            found.append((physical + start - logical, physical + end - logical))
    return found
