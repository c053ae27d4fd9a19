#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# A directory of 100,000 entries: listed whole and in parts, looked up, missed, told by type.
#
# formats: 3 4
# timeout: 240
import contextlib
import errno
import os
import stat
import time

from case import build_image, check, drop_caches, equal, metric, mount_image, refused, run, seeded_random

COUNT = 100_000
random = seeded_random()

# On tmpfs, whose files are quickly made. Most entries are links to a few inodes.
run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/mnt")
big = "/mnt/src/big"
os.makedirs(big)
os.chdir(big)
kinds = [stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR]
types = {}
linked = None
for number in range(COUNT):
    name = f"entry-{number:06d}-" + "x" * (number % 23)
    if number % 20000 == 0:
        linked = name
        os.mknod(name, 0o640 | stat.S_IFREG)
        types[name] = stat.S_IFREG
    elif number % 50 == 0:
        kind = kinds[number // 50 % len(kinds)]
        if kind == stat.S_IFDIR:
            os.mkdir(name)
        elif kind == stat.S_IFLNK:
            os.symlink(f"to-{number}", name)
        else:
            os.mknod(name, 0o600 | kind, os.makedev(1, 3) if kind == stat.S_IFCHR else 0)
        types[name] = kind
    else:
        os.link(linked, name)
        types[name] = stat.S_IFREG
os.chdir("/")

started = time.monotonic()
mnt = mount_image(build_image("/mnt/src"))
metric("big_directory_build_seconds", round(time.monotonic() - started, 1))
directory = f"{mnt}/big"

started = time.monotonic()
equal(os.stat(directory).st_size, COUNT, "size of the directory")
listed = os.listdir(directory)
metric("big_directory_list_seconds", round(time.monotonic() - started, 1))
equal(len(listed), COUNT, "entries listed")
equal(set(listed), set(types), "names")

# The types that readdir gives, without a look at any inode.
drop_caches()
with os.scandir(directory) as entries:
    for entry in entries:
        kind = types[entry.name]
        check(entry.is_file(follow_symlinks=False) == (kind == stat.S_IFREG)
              and entry.is_dir(follow_symlinks=False) == (kind == stat.S_IFDIR)
              and entry.is_symlink() == (kind == stat.S_IFLNK), f"type of {entry.name} in the listing")

# Looked up, in no order; the first, the last, and what is not there.
drop_caches()
names = sorted(types)
some = random.sample(names, 2000) + [names[0], names[-1]]
started = time.monotonic()
for name in some:
    wanted, found = os.lstat(f"{big}/{name}"), os.lstat(f"{directory}/{name}")
    equal((found.st_mode, found.st_nlink, found.st_rdev, found.st_mtime_ns),
          (wanted.st_mode, wanted.st_nlink, wanted.st_rdev, wanted.st_mtime_ns), f"stat of {name}")
for name in random.sample(names, 500) + ["", "zzz"]:
    with refused(errno.ENOENT, f"{name}?"):
        os.lstat(f"{directory}/{name}?")
spent = time.monotonic() - started
metric("big_directory_lookup_microseconds", round(spent / 2500 * 1e6))


def lookup_time(name):
    """The time to look a name up that is not there, in nanoseconds."""
    before = time.perf_counter_ns()
    with contextlib.suppress(FileNotFoundError):
        os.lstat(name)
    return time.perf_counter_ns() - before


# In turns, so that other work on the machine slows both down; most lookups are not interrupted. A walk
# through the entries would take a thousand times as long in the large directory as in the small one.
times = [(lookup_time(f"{directory}/no{number}"), lookup_time(f"{mnt}/no{number}")) for number in range(2001)]
large, small = (sorted(column)[len(column) // 2] for column in zip(*times))
check(large < 20 * small, f"a lookup takes {large} ns among {COUNT} entries, {small} ns in a small directory")

# ls -l of a part has the same lines; a directory's size is each filesystem's own.
part = [name for name in names[50_000:50_300] if types[name] != stat.S_IFDIR]
equal(run("ls", "-ldn", "--full-time", *part, cwd=directory),
      run("ls", "-ldn", "--full-time", *part, cwd=big), "ls -l")

# A reader may stop and go on, or go back, wherever it was.
fd = os.open(directory, os.O_RDONLY)
dup = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
with os.scandir(fd) as first:
    ahead = [next(first).name for _ in range(1000)]
    with os.scandir(dup) as second:
        again = [next(second).name for _ in range(1000)]
    equal(again, ahead, "the first 1,000, read by another reader")
    rest = [entry.name for entry in first]
equal(sorted(ahead + rest), names, "a listing with a break")
os.lseek(fd, 0, os.SEEK_SET)
with os.scandir(fd) as entries:
    equal(sum(1 for _ in entries), COUNT, "a listing after a rewind")
os.close(fd)
os.close(dup)
