#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Directories 200 deep: by a path, and with names so long that no path reaches the bottom.
#
# formats: 3 4
# timeout: 60
import errno
import os

from case import build_image, drop_caches, equal, mount_image, refused, run

DEPTH = 200


def descend(root, name, make=False):
    """Opens the directory DEPTH below root, step by step."""
    fd = os.open(root, os.O_RDONLY)
    for _ in range(DEPTH):
        if make:
            os.mkdir(name, dir_fd=fd)
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
        os.close(fd)
        fd = below
    return fd


os.makedirs("src/short")
os.makedirs("src/long")
long_name = "n" * 255
for root, name in (("src/short", "d"), ("src/long", long_name)):
    fd = descend(root, name, make=True)
    with open(os.open("leaf", os.O_WRONLY | os.O_CREAT, dir_fd=fd), "w") as file:
        file.write(f"the bottom of {root}")
    os.utime(fd, ns=(0, 123456789))
    os.close(fd)

mnt = mount_image(build_image("src"))
drop_caches()
bottom = f"{mnt}/short" + "/d" * DEPTH
with open(f"{bottom}/leaf") as file:
    equal(file.read(), "the bottom of src/short", "the leaf by its path")
equal(os.stat(bottom).st_mtime_ns, 123456789, "mtime of the bottom")
equal(os.path.samefile(bottom + "/.." * DEPTH, f"{mnt}/short"), True, "the way up")
os.chdir(bottom)
equal(os.getcwd(), bottom, "getcwd at the bottom")
os.chdir("/")

for root in ("short", "long"):
    fd = descend(f"{mnt}/{root}", "d" if root == "short" else long_name)
    with open(os.open("leaf", os.O_RDONLY, dir_fd=fd)) as file:
        equal(file.read(), f"the bottom of src/{root}", f"the leaf of {root}")
    # All the way up by "..", from dentries that nobody else holds.
    up = os.open("/".join([".."] * DEPTH), os.O_RDONLY, dir_fd=fd)
    equal(os.path.samestat(os.fstat(up), os.stat(f"{mnt}/{root}")), True, f"the way up in {root}")
    equal(os.fstat(fd).st_nlink, 2, "link count of the bottom")
    equal(os.fstat(up).st_nlink, 3, "link count of the top")
    os.close(fd)
    os.close(up)
with refused(errno.ENAMETOOLONG, "a path of 51,200 bytes"):
    os.stat(f"{mnt}/long" + f"/{long_name}" * DEPTH)
equal(run("find", f"{mnt}/short", "-type", "d", "-printf", "x"), "x" * (DEPTH + 1), "directories found")
