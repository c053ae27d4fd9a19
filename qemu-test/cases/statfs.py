#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# What statfs, stat and statx say of a mount and of what is in it, and the programs that ask them:
# df, du, find.
#
# formats: 3 4
# timeout: 60
import ctypes
import os
import struct

import metadata
from case import (FORMAT, build_image, check, drop_caches, equal, mount_image, run, seeded_random,
                  unmount_image, write_file)

MAGIC = 0x505A4653
random = seeded_random()
os.makedirs("src/a/b")
sizes = {"empty": 0, "one": 1, "sector": 512, "more": 513, "a/page": 4096, "a/b/large": 1_000_001,
         "a/b/zeros": 5_000_000}
for name, size in sizes.items():
    write_file(f"src/{name}", bytes(size) if name.endswith("zeros") else random.randbytes(size))
run("cp", "src/a/b/large", "src/a/b/copy")
os.link("src/a/b/large", "src/link")
sizes["a/b/copy"] = sizes["link"] = 1_000_001
os.symlink("one", "src/symlink")
os.mkfifo("src/fifo")
source = build_image("src")


def numbers_of(tree):
    """The numbers of the inodes of format 4, by path: in the order of the walk."""
    found = {"": 1}
    seen = {}

    def walk(directory):
        prefix = f"{directory}/" if directory else ""
        names = sorted(os.listdir(f"{tree}/{directory}"), key=os.fsencode)
        for path in (prefix + name for name in names):
            inode = os.lstat(f"{tree}/{path}").st_ino
            found[path] = seen.setdefault(inode, len(seen) + 2)
        for path in (prefix + name for name in names):
            if os.path.isdir(f"{tree}/{path}") and not os.path.islink(f"{tree}/{path}"):
                walk(path)
    walk("")
    return found


rootfs = bytes.fromhex(metadata.rootfs_of(source))
mnt = mount_image(source)

libc = ctypes.CDLL(None, use_errno=True)
buffer = ctypes.create_string_buffer(256)
for path in (mnt, f"{mnt}/a/b/large", f"{mnt}/a/b"):
    equal(libc.statfs(os.fsencode(path), buffer), 0, f"statfs of {path}")
    (kind, size, blocks, free, available, files, files_free, fsid,
     name_length) = struct.unpack_from("<7q8sq", buffer)
    equal(hex(kind), hex(MAGIC), "f_type")
    equal((free, available, files_free), (0, 0, 0), "what is free")
    equal(name_length, 255, "f_namelen")
    equal(fsid, rootfs[:8], "f_fsid")
    # Each inode once, the root too: 4 in src, a, a/b, and below.
    names = run("find", "src", "-printf", "%i\n").split()
    equal(files, len(set(names)), "f_files")
    total = sum(size for name, size in sizes.items() if name != "link")
    check(size in (512, 1024, 2048, 4096) or size % 4096 == 0, f"f_bsize {size}")
    equal(blocks, -(-total // size), f"f_blocks of {size} bytes for {total} bytes of files")
equal(os.statvfs(mnt).f_flag & os.ST_RDONLY, os.ST_RDONLY, "ST_RDONLY")

devices = set()
for name, size in sizes.items():
    stat = os.stat(f"{mnt}/{name}")
    equal((stat.st_size, stat.st_blocks, stat.st_blksize), (size, -(-size // 512), 4096),
          f"size, blocks and block size of {name}")
    devices.add(stat.st_dev)
for name in (".", "a", "a/b", "symlink", "fifo"):
    devices.add(os.lstat(f"{mnt}/{name}").st_dev)
equal(len(devices), 1, "devices in one mount")
with open("/proc/self/mountinfo") as mounts:
    shown = next(line.split()[2] for line in mounts if line.split()[4] == mnt)
equal(shown, f"{os.major(devices.copy().pop())}:{os.minor(devices.pop())}", "the device in mountinfo")
equal([os.stat(f"{mnt}/{name}").st_nlink for name in (".", "a", "a/b", "link")], [3, 3, 2, 2], "link counts")

# Inode numbers: those of the image, and so the same after all caches are dropped and after a
# remount; in readdir as in stat; ".." of the root is the root.
if FORMAT == 3:
    image = metadata.load(source)
    number_of = image.find
else:
    number_of = numbers_of("src").get


def numbers():
    return {path: os.lstat(path).st_ino for path in run("find", mnt).splitlines()}


first = numbers()
equal(first[mnt], 1, "the root's number")
for path, number in first.items():
    equal(number, number_of(os.path.relpath(path, mnt).removeprefix(".")), f"number of {path}")
drop_caches()
equal(numbers(), first, "numbers after caches were dropped")
unmount_image()
mount_image(source)
equal(numbers(), first, "numbers in another mount")
for directory in (mnt, f"{mnt}/a", f"{mnt}/a/b"):
    with os.scandir(directory) as entries:
        equal({e.path: e.inode() for e in entries},
              {p: n for p, n in first.items() if os.path.dirname(p) == directory},
              f"numbers in the listing of {directory}")

# Programs.
equal(run("find", mnt, "-type", "f", "-size", "+900k").count("\n"), 4, "large files that find finds")
for kind, count in (("f", len(sizes)), ("d", 3), ("l", 1), ("p", 1)):
    equal(run("find", mnt, "-type", kind).count("\n"), count, f"find -type {kind}")
used = sum(-(-size // 512) for name, size in sizes.items() if name != "link") * 512
listed = int(run("du", "-s", "-B1", mnt).split()[0])
check(used <= listed <= used + 3 * 4096, f"du: {listed} bytes, the files have {used}")
equal(int(run("du", "-s", "-b", "--exclude=a", mnt).split()[0]) > 0, True, "du --apparent-size")
line = run("df", "-P", "-B1", mnt).splitlines()[1].split()
equal((line[0], line[3], line[5]), (source.rsplit(":", 1)[0], "0", mnt), "df")
check(total <= int(line[1]) < total + 4096, f"df: {line[1]} bytes, the files have {total}")
check("100%" in run("df", mnt), "df says it is full")
equal(run("stat", "-f", "-c", "%t %l", mnt).split(), [f"{MAGIC:x}", "255"], "stat -f")
