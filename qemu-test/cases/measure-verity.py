#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Under verify=fsverity, a file that is one whole raw blob has the fs-verity digest of that blob, for
# FS_IOC_MEASURE_VERITY, FS_IOC_GETFLAGS and statx(2), as if it had fs-verity itself. Other files
# have none: parts of blobs, several chunks, compressed ones, and all files in other modes, in which
# nothing checks pages against that digest.
#
# For format 3 alone. Format 4 states no fs-verity digests of blobs.
#
# timeout: 90
# formats: 3
# klog-allow: puzzlefs: image [0-9a-f]+ inode [0-9]+: .*blob
import array
import errno
import fcntl
import os
import struct
from random import Random

import metadata
from attributes import ATTR_VERITY, statx
from case import CASE_DIR, build_image, check, equal, mount_image, refused, run, unmount_image, write_file

MEASURE_VERITY, GETFLAGS, SETFLAGS = 0xC0046686, 0x80086601, 0x40086602
VERITY_FL, IMMUTABLE_FL = 0x100000, 0x10

# Contents decide where a blob ends: with these, files are in blobs as the case wants them.
random = Random(1)
os.mkdir("src")
# A half of it compresses: else it were stored raw in the compressed image, too.
write_file("src/whole", random.randbytes(50_000)[:25_000] + bytes(25_000))
# Small files share a blob, unless it has enough of them and their times are far apart.
os.utime("src/whole", (0, 0))
write_file("src/chunks", random.randbytes(3_000_000))
for number in range(5):
    write_file(f"src/small-{number}", random.randbytes(9000 + number))
write_file("src/empty")
os.mkdir("src/directory")


def measure(path, room=32):
    """The algorithm's number and the digest."""
    fd = os.open(path, os.O_RDONLY)
    try:
        buffer = bytearray(struct.pack("<HH", 0, room) + bytes(64))
        fcntl.ioctl(fd, MEASURE_VERITY, buffer)
        algorithm, size = struct.unpack_from("<HH", buffer)
        check(not any(buffer[4 + size:]), "nothing is written behind the digest")
        return algorithm, bytes(buffer[4:4 + size]).hex()
    finally:
        os.close(fd)


def flags_of(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        flags = array.array("l", [0])
        fcntl.ioctl(fd, GETFLAGS, flags)
        return flags[0]
    finally:
        os.close(fd)


def verity_in_statx(path):
    found = statx(path)
    check(found["attributes_mask"] & ATTR_VERITY, "statx(2) says something of fs-verity")
    return bool(found["attributes"] & ATTR_VERITY)


def expect_none(mnt, name, why):
    with refused(errno.ENODATA, f"the digest of {name}, {why}"):
        measure(f"{mnt}/{name}")
    equal(flags_of(f"{mnt}/{name}") & VERITY_FL, 0, f"the flags of {name}, {why}")
    equal(verity_in_statx(f"{mnt}/{name}"), False, f"the attributes of {name}, {why}")


sources = {kind: build_image("src", *options, store=f"{CASE_DIR}/{kind}")
           for kind, options in {"raw": [], "zstd": ["--compress"]}.items()}
for source in sources.values():
    run("puzzlefs", "enable-verity", source)
extents = metadata.load(sources["raw"])
[whole], [small] = extents.extents("whole"), extents.extents("small-0")
equal((whole.offset, os.stat(metadata.blob_path(f"{CASE_DIR}/raw", whole.blob)).st_size), (0, 50_000),
      "the blob of one file")
equal(small.offset, 0, "a file at the beginning of a blob")
check(os.stat(metadata.blob_path(f"{CASE_DIR}/raw", small.blob)).st_size > 9000, "small files share a blob")
check(len(extents.extents("chunks")) > 1, "a large file has several chunks")

expected = run("fsverity", "digest", "--compact", "src/whole").strip()
mnt = mount_image(sources["raw"], options="ro,verify=fsverity")
for options in ("ro,verify=fsverity", "ro,verify=fsverity,noshare"):
    unmount_image()
    mount_image(sources["raw"], options=options)
    # To look at a file opens no blob.
    equal(verity_in_statx(f"{mnt}/whole"), False, f"{options}: the attributes before the file was opened")
    equal(verity_in_statx(f"{mnt}/chunks"), False,
          f"{options}: the attributes of a file that cannot have a digest")
    with open(f"{mnt}/whole", "rb"):
        equal(verity_in_statx(f"{mnt}/whole"), True, f"{options}: the attributes of an open file")
    equal(measure(f"{mnt}/whole"), (1, expected), f"{options}: the digest")
    equal(measure(f"{mnt}/whole", 64), (1, expected), f"{options}: the digest, with room for a longer one")
    equal(run("fsverity", "measure", f"{mnt}/whole").split()[0], f"sha256:{expected}",
          f"{options}: fsverity measure")
    equal(flags_of(f"{mnt}/whole"), VERITY_FL, f"{options}: the flags")
    equal(verity_in_statx(f"{mnt}/whole"), True, f"{options}: the attributes")
    for name in ("chunks", "small-0", "small-3", "empty"):
        expect_none(mnt, name, options)

# Misuse.
with refused(errno.EOVERFLOW, "room for 31 bytes"):
    measure(f"{mnt}/whole", 31)
fd = os.open(f"{mnt}/whole", os.O_RDONLY)
with refused(errno.EFAULT, "an address that is none"):
    fcntl.ioctl(fd, MEASURE_VERITY, 8)
with refused(errno.ENOTTY, "a command that is none"):
    fcntl.ioctl(fd, 0xC0046687, 8)
with refused(errno.EROFS, "flags to be set"):
    fcntl.ioctl(fd, SETFLAGS, array.array("l", [IMMUTABLE_FL]))
os.close(fd)
# A writable overlay above takes neither flags nor a digest from a file that it copies up.
for directory in ("upper", "work", "merged"):
    os.mkdir(directory)
run("mount", "-t", "overlay", "-o", f"lowerdir={mnt},upperdir=upper,workdir=work", "overlay", "merged")
with open("merged/whole", "ab") as file:
    file.write(b"more")
os.remove("merged/whole")
run("umount", "merged")
unmount_image()

# The digest of another blob is none of the file's: the blob is refused, here as in reads.
blob = metadata.blob_path(f"{CASE_DIR}/raw", whole.blob)
os.rename(blob, f"{blob}.away")
write_file(blob, random.randbytes(50_000))
run("fsverity", "enable", blob)
mount_image(sources["raw"], options="ro,verify=fsverity")
for what in (measure, flags_of):
    with refused(errno.EIO, f"{what.__name__} of a file whose blob was replaced"):
        what(f"{mnt}/whole")
equal(verity_in_statx(f"{mnt}/whole"), False, "the attributes of a file whose blob was replaced")
unmount_image()
os.remove(blob)
os.rename(f"{blob}.away", blob)

for kind, options in (("raw", "ro"), ("raw", "ro,verify=digest"), ("zstd", "ro,verify=fsverity")):
    mount_image(sources[kind], options=options)
    for name in ("whole", "small-0", "chunks"):
        expect_none(mnt, name, f"{kind}, {options}")
    unmount_image()
