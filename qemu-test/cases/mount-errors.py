#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Mounts that cannot be, asked of the kernel itself: the errno of mount(2) and of fsconfig(2), the
# reason in the context's log and in the kernel's, nothing left mounted, and none of it in the way
# of a good mount.
#
# timeout: 120
# formats: 3
# klog-allow: puzzlefs:
# kernels: every
import errno
import os
import re
import shutil
import socket

import metadata
import mountapi
from case import (CASE_DIR, build_image, check, equal, eventually, fail, is_mounted, name_of, slab_objects,
                  write_file)

os.mkdir("src")
write_file("src/file", b"contents")
source = build_image("src")
good = f"{CASE_DIR}/store"
rootfs = metadata.rootfs_of(source)
mnt = f"{CASE_DIR}/mnt"
os.mkdir(mnt)


def store(name, change):
    """A copy of the good store, changed."""
    copy = f"{CASE_DIR}/{name}"
    shutil.copytree(good, copy)
    change(copy)
    return copy


def blob(copy):
    return metadata.blob_path(copy, rootfs)


def replaced(make):
    """The metadata blob replaced by what `make` makes of its path."""
    def change(copy):
        os.rename(blob(copy), f"{copy}/kept")
        make(blob(copy))
    return change


def corrupt(copy, at):
    with open(blob(copy), "r+b") as file:
        byte = os.pread(file.fileno(), 1, at)
        os.pwrite(file.fileno(), bytes([byte[0] ^ 1]), at)


def relink(copy, inner):
    os.rename(f"{copy}/{inner}", f"{copy}/elsewhere")
    os.symlink(f"{copy}/elsewhere", f"{copy}/{inner}")


def bind_socket(path):
    # A socket's path has 107 bytes at the most.
    os.chdir(os.path.dirname(path))
    socket.socket(socket.AF_UNIX).bind("s")
    os.rename("s", path)
    os.chdir(CASE_DIR)


size = os.path.getsize(blob(good))
E = errno
NOT_A_DIGEST = r"rootfs: not a SHA-256 digest"
CANNOT_OPEN = rf"{rootfs}: cannot be opened"
WRONG_DIGEST = rf"{rootfs}: .*digest"
given = f"rootfs={rootfs}"

# What is wrong: the store, the options, the errno, the log.
cases = [
    ("no rootfs", good, "", E.EINVAL, "rootfs="),
    ("an empty rootfs", good, "rootfs=", E.EINVAL, NOT_A_DIGEST),
    ("rootfs without a value", good, "rootfs", E.EINVAL, "rootfs"),
    ("a short rootfs", good, given[:-1], E.EINVAL, NOT_A_DIGEST),
    ("a long rootfs", good, given + "0", E.EINVAL, NOT_A_DIGEST),
    ("a rootfs in upper case", good, f"rootfs={'AB' * 32}", E.EINVAL, NOT_A_DIGEST),
    ("a rootfs that is not hexadecimal", good, f"rootfs={'0g' * 32}", E.EINVAL, NOT_A_DIGEST),
    ("a rootfs with its algorithm", good, f"rootfs=sha256:{rootfs}", E.EINVAL, NOT_A_DIGEST),
    ("a rootfs with a space", good, f"rootfs= {rootfs[1:]}", E.EINVAL, NOT_A_DIGEST),
    ("a malformed alias", good, "image_manifest=12", E.EINVAL, "image_manifest: not a SHA-256 digest"),
    ("an unknown option", good, f"{given},nonesuch", E.EINVAL, "nknown parameter 'nonesuch'"),
    ("an unknown option with a value", good, f"{given},nonesuch=1", E.EINVAL, "nknown parameter 'nonesuch'"),
    ("no store", "", given, E.EINVAL, "source"),
    ("a store that is missing", f"{CASE_DIR}/nonesuch", given, E.ENOENT, "nonesuch: ENOENT"),
    ("a store that is a file", f"{CASE_DIR}/src/file", given, E.ENOTDIR, "file: ENOTDIR"),
    ("a store beneath a file", f"{CASE_DIR}/src/file/x", given, E.ENOTDIR, "ENOTDIR"),
    ("a store that is no layout", f"{CASE_DIR}/src", given, E.ENOENT, "blobs: not an OCI image layout"),
    ("no blobs/sha256", store("a", lambda s: shutil.rmtree(f"{s}/blobs/sha256")), given, E.ENOENT,
     "blobs/sha256: not an OCI image layout"),
    ("blobs a symbolic link", store("b", lambda s: relink(s, "blobs")), given, (E.ENOTDIR, E.ELOOP), "blobs"),
    ("blobs/sha256 a symbolic link", store("c", lambda s: relink(s, "blobs/sha256")), given,
     (E.ENOTDIR, E.ELOOP), "blobs/sha256"),
    ("the metadata missing", store("d", replaced(lambda p: None)), given, E.ENOENT, f"{CANNOT_OPEN}.*ENOENT"),
    ("another image's digest", good, f"rootfs={'0' * 64}", E.ENOENT, "0: cannot be opened.*ENOENT"),
    ("the metadata corrupt at its start", store("e", lambda s: corrupt(s, 0)), given, E.EBADMSG,
     WRONG_DIGEST),
    ("the metadata corrupt at its end", store("f", lambda s: corrupt(s, size - 1)), given, E.EBADMSG,
     WRONG_DIGEST),
    ("the metadata truncated", store("g", lambda s: os.truncate(blob(s), size - 8)), given, E.EBADMSG,
     WRONG_DIGEST),
    ("the metadata empty", store("h", lambda s: os.truncate(blob(s), 0)), given, E.EBADMSG, WRONG_DIGEST),
    ("the metadata too long", store("i", lambda s: os.truncate(blob(s), size + 8)), given, E.EBADMSG,
     WRONG_DIGEST),
    ("the metadata huge", store("j", lambda s: os.truncate(blob(s), (1 << 30) + 1)), given, E.EFBIG,
     "larger than 1 GiB"),
    ("the metadata a directory", store("k", replaced(os.mkdir)), given, E.EINVAL, CANNOT_OPEN),
    ("the metadata a FIFO", store("l", replaced(os.mkfifo)), given, E.EINVAL, CANNOT_OPEN),
    ("the metadata a socket", store("m", replaced(bind_socket)), given, E.EINVAL, CANNOT_OPEN),
    ("the metadata a device", store("n", replaced(lambda p: os.mknod(p, 0o20666, os.makedev(1, 5)))), given,
     E.EINVAL, CANNOT_OPEN),
    ("the metadata a symbolic link", store("o", replaced(lambda p: os.symlink("../../kept", p))), given,
     (E.EINVAL, E.ELOOP), CANNOT_OPEN),
]


def tail_of_kernel_log(mark):
    """The kernel's log after the last line that has this in it."""
    log = os.popen("dmesg --nopager").read()
    return log[log.rfind(mark):]


def refused_with(what, numbers, attempt):
    numbers = numbers if isinstance(numbers, tuple) else (numbers,)
    try:
        attempt()
    except OSError as error:
        check(error.errno in numbers,
              f"{what}: {name_of(error.errno)}, should be {'/'.join(map(name_of, numbers))}")
    else:
        fail(f"{what}: mounted")
    check(not is_mounted(mnt), f"{what}: left mounted")


for number, (what, path, options, errnos, log) in enumerate(cases):
    mark = f"puzzlefs-test: mount-errors {number}"
    with open("/dev/kmsg", "w") as kmsg:
        kmsg.write(f"<6>{mark}\n")
    refused_with(f"{what}, mount(2)", errnos, lambda: mountapi.mount(path, mnt, options))
    check(re.search(log, tail_of_kernel_log(mark)), f"{what}: the kernel's log does not tell")

    with mountapi.Context() as context:
        def configure():
            context.set("source", path)
            context.set("ro")
            for option in filter(None, options.split(",")):
                context.set(*option.split("=", 1))
            context.create()
        refused_with(f"{what}, fsconfig(2)", errnos, configure)
        said = "\n".join(context.log())
        check(re.search(log, said), f"{what}: the context's log has {said!r}")
        check(re.search("^e ", said, re.M), f"{what}: no message is an error's: {said!r}")

# A context that is dropped half way holds nothing.
with mountapi.Context() as context:
    context.set("source", good)
    context.set("rootfs", rootfs)
with mountapi.Context() as context:
    context.set("source", good)
    context.set("rootfs", rootfs)
    context.create()
eventually(lambda: slab_objects() == 0, "inodes of a mount that was never attached remain")

# After all that, a good one.
mountapi.mount(good, mnt, given)
with open(f"{mnt}/file", "rb") as file:
    equal(file.read(), b"contents", "a good mount afterwards")
mountapi.umount(mnt)
