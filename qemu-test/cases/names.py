#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Names of 255 bytes and of every byte but "/" and NUL: listed, looked up, and told from names
# that almost are.
#
# formats: 3 4
# timeout: 60
import errno
import os

from case import build_image, drop_caches, equal, mount_image, refused, write_file

others = [b for b in range(1, 256) if b != ord("/")]
names = {bytes([b]) for b in others if b != ord(".")}
names |= {bytes([b]) * 255 for b in others}
# All bytes in one name, in both orders; prefixes of each other; what looks like "." and "..".
names |= {bytes(others), bytes(reversed(others)), b"a" * 254, b"...", b". ", b"..\n", b" ", b"-rf"}
names |= {b"prefix" + b"x" * n for n in range(0, 200, 7)}
# Equal to people, or under case folding or Unicode normalisation, but not to a filesystem.
names |= {b"Case", b"case", b"CASE", "é".encode(), "e\u0301".encode(), "é".encode("latin-1"), b"\xff\xfe"}

os.mkdir("src")
for number, name in enumerate(sorted(names)):
    path = b"src/" + name
    if number % 3 == 0:
        os.mkdir(path)
    elif number % 3 == 1:
        os.symlink(name, path)
    else:
        write_file(path, name)

mnt = os.fsencode(mount_image(build_image("src")))


def listing(directory):
    """Names with what readdir(3) says of their types."""
    with os.scandir(directory) as entries:
        return sorted((e.name, e.is_dir(follow_symlinks=False), e.is_symlink()) for e in entries)


equal(sorted(os.listdir(mnt)), sorted(names), "names")
equal(listing(mnt), listing(b"src"), "names and types")
drop_caches()
for number, name in enumerate(sorted(names)):
    path = mnt + b"/" + name
    wanted, stat = os.lstat(b"src/" + name), os.lstat(path)
    equal(stat.st_mode, wanted.st_mode, f"mode of {name!r}")
    if number % 3 == 1:
        equal(os.readlink(path), name, f"target of {name!r}")
    elif number % 3 == 2:
        with open(path, "rb") as file:
            equal(file.read(), name, f"contents of {name!r}")

# Twice: the second answer is the cached one.
for _ in range(2):
    for name in sorted(names):
        for missing in (name[:-1], name[:-1] + b"\x01x", name + b"z"):
            if missing in names or not missing or len(missing) > 255 or missing in (b".", b".."):
                continue
            with refused(errno.ENOENT, f"{missing!r}"):
                os.lstat(mnt + b"/" + missing)
with refused(errno.ENAMETOOLONG, "a name of 256 bytes"):
    os.lstat(mnt + b"/" + b"a" * 256)
a_file = sorted(names)[2]
with refused(errno.ENOTDIR, "a file as a directory"):
    os.lstat(mnt + b"/" + a_file + b"/x")
