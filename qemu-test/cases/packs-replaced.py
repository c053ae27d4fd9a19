#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# The pack of a mounted image is truncated, or another file takes its place, while threads read files: each
# read gives the right bytes or EIO. In the same mount, all is right again when the pack is back.
#
# timeout: 180
# klog-allow: puzzlefs: image
import errno
import os
import random
import shutil
import socket
import threading

import truth
from case import (CASE_DIR, build_image, check, drop_caches, equal, eventually, mount_image, seeded_random,
                  write_file)

draw = seeded_random()
os.mkdir("src")
contents = {f"{size}": draw.randbytes(size) for size in truth.SIZES}
for name, data in contents.items():
    write_file(f"src/{name}", data)
mnt = mount_image(build_image("src"), options="ro,verify=digest")
store = f"{CASE_DIR}/store/blobs/sha256"
other = build_image(os.path.dirname(__file__), store=f"{CASE_DIR}/other")
other = max((entry.path for entry in os.scandir(f"{CASE_DIR}/other/blobs/sha256")), key=os.path.getsize)
pack = max((entry.path for entry in os.scandir(store)), key=os.path.getsize)
size = os.path.getsize(pack)
shutil.copyfile(pack, "kept")

stop, failures = threading.Event(), []
right, lost = [0], [0]


def read(seed):
    own = random.Random(seed)
    while not stop.is_set() and not failures:
        name = own.choice(list(contents))
        at = own.randrange(len(contents[name]))
        try:
            fd = os.open(f"{mnt}/{name}", os.O_RDONLY)
            try:
                got = os.pread(fd, 100_000, at)
            finally:
                os.close(fd)
        except OSError as error:
            if error.errno != errno.EIO:
                failures.append(f"{name} at {at}: {error}")
            lost[0] += 1
        else:
            if not got or got != contents[name][at:at + len(got)]:
                failures.append(f"{name} at {at}: other bytes")
            right[0] += 1


def bind_socket():
    socket.socket(socket.AF_UNIX).bind("s")
    os.rename("s", pack)


def put(data):
    """A new file takes the place of the pack."""
    write_file("new", data)
    os.rename("new", pack)


with open("kept", "rb") as file:
    whole = file.read()
in_place = {f"it is truncated to {cut} bytes": cut for cut in (0, 1, size // 3)}
changes = {
    "another pack": lambda: shutil.copyfile(other, "new") and os.rename("new", pack),
    "noise of the same size": lambda: put(draw.randbytes(size)),
    "its first half": lambda: put(whole[:size // 2]),
    "the same bytes, moved by one": lambda: put(b"x" + whole[:-1]),
    "an empty file": lambda: put(b""),
    "nothing": lambda: os.unlink(pack),
    "a FIFO": lambda: (os.unlink(pack), os.mkfifo(pack)),
    "a directory": lambda: (os.unlink(pack), os.mkdir(pack)),
    "a symbolic link to it": lambda: (os.unlink(pack), os.symlink(f"{CASE_DIR}/kept", pack)),
    "a socket": lambda: (os.unlink(pack), bind_socket()),
    "the zero device": lambda: (os.unlink(pack), os.mknod(pack, 0o20666, os.makedev(1, 5))),
} | {what: lambda cut=cut: os.truncate(pack, cut) for what, cut in in_place.items()}

threads = [threading.Thread(target=read, args=(draw.getrandbits(32),)) for _ in range(3)]
for thread in threads:
    thread.start()
try:
    for what, change in changes.items():
        change()
        before = right[0] + lost[0], lost[0]

        def met():
            """There were reads, and some met the change. What was read before is in memory."""
            drop_caches()
            return failures or (right[0] + lost[0] > before[0] + 20 and lost[0] > before[1])
        eventually(met, f"{what}: no read fails")
        check(not failures, f"{what}: {failures[:1]}")
        # Back, by rename as builders do, or in place.
        if what in in_place:
            with open(pack, "r+b") as file:
                file.write(whole)
        else:
            if os.path.isdir(pack) and not os.path.islink(pack):
                os.rmdir(pack)
            put(whole)
        drop_caches()
        for name, data in contents.items():
            with open(f"{mnt}/{name}", "rb") as file:
                equal(file.read() == data, True, f"{name} after {what}")
finally:
    stop.set()
    for thread in threads:
        thread.join()
check(not failures, failures[:1])
print(right[0], "reads were right,", lost[0], "failed")
