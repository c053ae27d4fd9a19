# SPDX-License-Identifier: MIT OR Apache-2.0
"""Goes through all of a mount that may hold anything: every system call must end, in a result or
in an errno that is one of those that tell of a malformed image."""

import errno
import os
import stat
from collections import Counter

# Of the image, or of its blobs; a loop of directories; an attribute of a namespace that nobody has;
# more names of attributes than a list can have; and what belongs to user 2^32 - 1, which is none:
# root's capabilities do not reach it.
EXPECTED = {errno.EUCLEAN, errno.EIO, errno.ENOENT, errno.ELOOP, errno.ENODATA, errno.EOPNOTSUPP, errno.E2BIG,
            errno.ERANGE, errno.EACCES}
LARGEST = (1 << 63) - 1


class Walk:
    """What a walk came upon: how many calls succeeded, and how many failed in what way."""

    def __init__(self, directory, most=400, depth=12):
        self.calls = 0
        self.errors = Counter()
        self.left = most
        self._directory(os.fsencode(directory), depth)
        self.entries = most - self.left

    def _call(self, function, *arguments, **options):
        self.calls += 1
        try:
            return function(*arguments, **options)
        except OSError as error:
            if error.errno not in EXPECTED:
                raise
            self.errors[error.errno] += 1
            return None

    def _directory(self, directory, depth):
        for name in self._call(os.listdir, directory) or ():
            plain = 0 < len(name) < 256 and name not in (b".", b"..") and b"/" not in name
            assert plain, f"a name {name!r} is listed"
            if self.left == 0:
                return
            self.left -= 1
            self._inode(directory + b"/" + name, depth)

    def _inode(self, path, depth):
        found = self._call(os.lstat, path)
        if found is None:
            return
        assert found.st_ino and found.st_nlink, f"{path}: {found}"
        for key in self._call(os.listxattr, path, follow_symlinks=False) or ():
            self._call(os.getxattr, path, key, follow_symlinks=False)
        if stat.S_ISLNK(found.st_mode):
            target = self._call(os.readlink, path)
            assert target is None or len(target) == found.st_size > 0, f"{path}: a target {target!r}"
        elif stat.S_ISREG(found.st_mode):
            self._file(path, found.st_size)
        elif stat.S_ISDIR(found.st_mode) and depth:
            self._directory(path, depth - 1)

    def _file(self, path, size):
        fd = self._call(os.open, path, os.O_RDONLY)
        if fd is None:
            return
        try:
            for offset in {0, size // 2, max(size - 100, 0)}:
                # Beyond the largest offset the kernel takes no read at all.
                data = self._call(os.pread, fd, min(20_000, LARGEST - offset), offset)
                if data is not None:
                    assert len(data) <= size - offset, f"{path}: {len(data)} bytes at {offset} of {size}"
            if size < LARGEST:
                assert self._call(os.pread, fd, 1, size) in (b"", None), f"{path}: data beyond its end"
        finally:
            os.close(fd)
