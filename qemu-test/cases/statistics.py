#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# /proc/self/mountstats counts what a mount has done, each mount for itself.
#
# formats: 3 4
# timeout: 40
# klog-allow: puzzlefs: image [0-9a-f]+ inode [0-9]+: offset
import errno
import glob
import os

import packs
from case import (CASE_DIR, FORMAT, build_image, check, counters, drop_caches, equal, mount_image, refused,
                  seeded_random, write_file)


SIZE = 700_000
os.mkdir("src")
contents = seeded_random().randbytes(SIZE)
write_file("src/file", contents)
image = build_image("src", "--chunk-size=64K", "--compress=0")
raw = mount_image(image, f"{CASE_DIR}/raw")
verified = mount_image(image, f"{CASE_DIR}/verified", "ro,verify=digest")
if FORMAT == 3:
    equal({key: value for key, value in counters(raw).items() if value}, {}, "counters of a new mount")
# In format 4, metadata is read and hashed, too: before this, and again when it was dropped.
METADATA = 0 if FORMAT == 3 else 10_000
# A range that a reader has begun to read may be read ahead by the store's readers as well: one readahead.
TWICE = 0 if FORMAT == 3 else 128 << 10
before = {}
for mnt in (raw, verified):
    os.stat(f"{mnt}/file")
    before[mnt] = counters(mnt)


def since(mnt):
    """What was counted of a mount since its metadata was read."""
    return {key: value - before[mnt][key] for key, value in counters(mnt).items()}


blobs = len(glob.glob(f"{CASE_DIR}/store/blobs/sha256/*"))
with open(f"{raw}/file", "rb") as file:
    file.read()
after = since(raw)
equal(after["bytes_read"], SIZE, "bytes read")
check(FORMAT == 4 or 0 < after["blobs_opened"] < blobs, f"blobs opened: {after['blobs_opened']} of {blobs}")
equal((after["bytes_hashed"], after["bytes_decompressed"], after["read_errors"]), (0, 0, 0), "others")
equal(sum(since(verified).values()), 0, "counters of the other mount")

# From the page cache, nothing is read; after that is dropped, it is read again.
with open(f"{raw}/file", "rb") as file:
    file.read()
equal(since(raw), after, "counters after a read from the page cache")
drop_caches()
with open(f"{raw}/file", "rb") as file:
    file.read()
read = since(raw)["bytes_read"]
check(2 * SIZE <= read <= 2 * SIZE + METADATA + TWICE, f"bytes read twice: {read}")

with open(f"{verified}/file", "rb") as file:
    file.read()
after = since(verified)
check(after["bytes_hashed"] >= SIZE, f"bytes hashed: {after['bytes_hashed']}")
# A blob that several runs of folios need is hashed once by a reader who goes straight on.
check(after["bytes_hashed"] <= SIZE * 5 // 4, f"bytes hashed: {after['bytes_hashed']}, of a file of {SIZE}")
equal(after["read_errors"], 0, "errors")

drop_caches()
# The blobs with data, and where that begins; in format 4, with the second chunk.
places = {blob: 0 for blob in glob.glob(f"{CASE_DIR}/store/blobs/sha256/*") if os.path.getsize(blob) > 50_000}
if FORMAT == 4:
    extent = packs.extents_of(f"{CASE_DIR}/store", contents)[1]
    places = {f"{CASE_DIR}/store/blobs/sha256/{extent.blob}": extent.offset}
for blob, offset in places.items():
    with open(blob, "r+b") as file:
        file.seek(offset)
        file.write(b"damage")
drop_caches()
with refused(errno.EIO, "damaged"), open(f"{verified}/file", "rb") as file:
    file.read()
after = counters(verified)
check(after["read_errors"] > 0, "no error was counted")
equal(after["verification_failures"], after["read_errors"], "failures of verification")

# A blob that is too short is another matter.
for blob, offset in places.items():
    os.truncate(blob, offset + 100)
drop_caches()
with refused(errno.EIO, "truncated"), open(f"{raw}/file", "rb") as file:
    file.read()
after = counters(raw)
check(after["read_errors"] > 0, "no error was counted of the other mount")
equal(after["verification_failures"], 0, "failures of verification, unverified")
