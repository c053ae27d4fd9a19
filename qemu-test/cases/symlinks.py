#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Symbolic links: targets of 1 to 4,095 bytes, of any bytes; followed, dangling, absolute, in
# circles; in the dentry cache and out of it.
#
# formats: 3 4
# timeout: 40
import errno
import os

from case import CASE_DIR, build_image, drop_caches, equal, mount_image, refused, write_file

os.makedirs("src/directory/below")
write_file("src/directory/file", b"here")
write_file("outside", b"outside the image")
long_path = b"./" * 2042 + b"directory"
targets = {
    b"to-file": b"directory/file",
    b"to-directory": b"directory",
    b"directory/below/up": b"../../to-file",
    b"dangling": b"nothing/there",
    b"absolute": os.fsencode(f"{CASE_DIR}/outside"),
    b"absolute-inside": b"/directory/file",
    b"circle-a": b"circle-b",
    b"circle-b": b"circle-a",
    b"self": b"self",
    b"one-byte": b".",
    b"every-byte": bytes(b for b in range(1, 256)),
    b"longest": b"x" * 254 + b"/" + b"y" * 3840,
    b"long-and-there": long_path,
    b"trailing-slash": b"directory/",
}
for length in (2, 63, 64, 65, 127, 128, 255, 256, 4094):
    targets[b"of-%d" % length] = b"t" * length
for name, target in targets.items():
    os.symlink(target, b"src/" + name)
for number in range(41):
    os.symlink(f"chain-{number + 1}", f"src/chain-{number}")
write_file("src/chain-41", b"the end of the chain")

equal(len(targets[b"longest"]), 4095, "the longest target")

mnt = os.fsencode(mount_image(build_image("src")))
for _ in range(2):
    for name, target in targets.items():
        path = mnt + b"/" + name
        equal(os.readlink(path), target, f"target of {name!r}")
        equal(os.lstat(path).st_size, len(target), f"size of {name!r}")
        equal(os.lstat(path).st_mode, os.lstat(b"src/" + name).st_mode, f"mode of {name!r}")
    for name in (b"to-file", b"directory/below/up", b"to-directory/file", b"long-and-there/file",
                 b"trailing-slash/file", b"one-byte/one-byte/to-file"):
        with open(mnt + b"/" + name, "rb") as file:
            equal(file.read(), b"here", f"through {name!r}")
    with open(mnt + b"/absolute", "rb") as file:
        equal(file.read(), b"outside the image", "through an absolute link")
    for name, number in ((b"dangling", errno.ENOENT), (b"absolute-inside", errno.ENOENT),
                         (b"circle-a", errno.ELOOP), (b"self", errno.ELOOP),
                         (b"longest", errno.ENOENT), (b"to-file/x", errno.ENOTDIR),
                         (b"chain-0", errno.ELOOP), (b"dangling/x", errno.ENOENT)):
        with refused(number, f"stat through {name!r}"):
            os.stat(mnt + b"/" + name)
    # The kernel follows 40 links.
    with open(mnt + b"/chain-1", "rb") as file:
        equal(file.read(), b"the end of the chain", "through 40 links")
    with refused(errno.ELOOP, "O_NOFOLLOW"):
        os.open(mnt + b"/to-file", os.O_RDONLY | os.O_NOFOLLOW)
    with refused(errno.EINVAL, "readlink of a file"):
        os.readlink(mnt + b"/directory/file")
    drop_caches()
