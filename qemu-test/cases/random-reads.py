#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# A tree made at random, and some thousand operations at random on the source and the mount, which
# must give the same: reads of all sorts, maps, stats, listings, links, attributes. The seed is
# printed and brings back the same tree and operations.
#
# formats: 3 4
# timeout: 120
import mmap
import os
import time

from case import build_image, check, drop_caches, equal, metric, mount_image, seeded_random, write_file

OPERATIONS = 4000
SECONDS = 40
# However slow the machine is.
AT_LEAST = 500
random = seeded_random()


def contents():
    """Noise, zeros, text and repetitions, in any mixture."""
    size = random.choice((0, random.randrange(100), random.randrange(5000), random.randrange(70_000),
                          random.randrange(70_000), random.randrange(1_000_000)))
    parts, left = [], size
    while left > 0:
        length = random.randrange(1, 200_000)
        kind = random.randrange(4)
        if kind == 0:
            part = random.randbytes(min(length, left))
        elif kind == 1:
            part = bytes(length)
        elif kind == 2:
            part = b"The quick brown fox jumps over the lazy dog. " * (length // 45 + 1)
        else:
            part = random.randbytes(random.randrange(1, 5000)) * 20
        parts.append(part[:left])
        left -= len(parts[-1])
    return b"".join(parts)


directories, files, links = ["."], [], []
os.mkdir("src")
os.chdir("src")
for number in range(150):
    path = f"{random.choice(directories)}/{random.choice('abc')}{number}"
    kind = random.random()
    if kind < 0.2:
        os.mkdir(path)
        directories.append(path)
    elif kind < 0.3:
        os.symlink(random.choice(directories + files), path)
        links.append(path)
    elif kind < 0.4 and files:
        os.link(random.choice(files), path)
        files.append(path)
    else:
        write_file(path, contents())
        files.append(path)
    if path not in links:
        os.chmod(path, random.choice((0o644, 0o755, 0o700, 0o600)))
        if random.random() < 0.3:
            os.setxattr(path, f"user.{number}", random.randbytes(random.randrange(200)))
    os.chown(path, random.randrange(70_000), random.randrange(70_000), follow_symlinks=False)
    os.utime(path, ns=(0, random.randrange(2**62)), follow_symlinks=False)
os.chdir("..")
files = [path for path in files if os.path.getsize(f"src/{path}")]
mnt = mount_image(build_image("src"))


def pread(root, path, at, length):
    with open(f"{root}/{path}", "rb", buffering=0) as file:
        return os.pread(file.fileno(), length, at)


def scattered(root, path, at, length):
    with open(f"{root}/{path}", "rb", buffering=0) as file:
        buffers = [bytearray(size + 1) for size in (length // 3, length // 5, length)]
        count = os.preadv(file.fileno(), buffers, at)
        return b"".join(buffers)[:count]


def by_map(root, path, at, length):
    with open(f"{root}/{path}", "rb", buffering=0) as file, \
            mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ) as view:
        return view[at:at + length]


def whole(root, path, *_):
    with open(f"{root}/{path}", "rb", buffering=0) as file:
        return file.read()


def stat(root, path, *_):
    found = os.lstat(f"{root}/{path}")
    return found.st_mode, found.st_nlink, found.st_uid, found.st_gid, found.st_size, found.st_mtime_ns


def attributes(root, path, *_):
    return {key: os.getxattr(f"{root}/{path}", key) for key in os.listxattr(f"{root}/{path}")}


reads = [pread, pread, pread, scattered, by_map, whole, stat, attributes]
started = time.monotonic()
done = 0
while done < AT_LEAST or done < OPERATIONS and time.monotonic() - started < SECONDS:
    done += 1
    draw = random.random()
    if draw < 0.01:
        drop_caches(random.randrange(1, 4))
    elif draw < 0.06:
        path = random.choice(directories)
        equal(sorted(os.listdir(f"{mnt}/{path}")), sorted(os.listdir(f"src/{path}")),
              f"operation {done}: list {path}")
    elif draw < 0.1 and links:
        path = random.choice(links)
        equal(os.readlink(f"{mnt}/{path}"), os.readlink(f"src/{path}"), f"operation {done}: readlink {path}")
    else:
        path, operation = random.choice(files), random.choice(reads)
        size = os.path.getsize(f"src/{path}")
        at = random.choice((random.randrange(size), random.randrange(size) & ~4095, max(0, size - 5000)))
        length = random.choice((1, 17, 4096, 4097, random.randrange(1, 300_000)))
        got, wanted = operation(mnt, path, at, length), operation("src", path, at, length)
        if got != wanted:
            what = f"operation {done}: {operation.__name__} of {path} at {at}, {length}"
            equal(got, wanted, what)
metric("random_operations", done)
