#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# /proc/self/mountstats counts what a mount has done, each mount for itself.
#
# timeout: 40
# formats: 3
# klog-allow: puzzlefs: image [0-9a-f]+ inode [0-9]+: offset
import errno
import glob
import os

from case import (CASE_DIR, build_image, check, counters, drop_caches, equal, mount_image, refused,
                  seeded_random, write_file)


SIZE = 700_000
os.mkdir("src")
write_file("src/file", seeded_random().randbytes(SIZE))
image = build_image("src", "--chunk-size=64K")
raw = mount_image(image, f"{CASE_DIR}/raw")
verified = mount_image(image, f"{CASE_DIR}/verified", "ro,verify=digest")
equal({key: value for key, value in counters(raw).items() if value}, {}, "counters of a new mount")

blobs = len(glob.glob(f"{CASE_DIR}/store/blobs/sha256/*"))
with open(f"{raw}/file", "rb") as file:
    file.read()
after = counters(raw)
equal(after["bytes_read"], SIZE, "bytes read")
check(0 < after["blobs_opened"] < blobs, f"blobs opened: {after['blobs_opened']} of {blobs}")
equal((after["bytes_hashed"], after["bytes_decompressed"], after["read_errors"]), (0, 0, 0), "others")
equal(sum(counters(verified).values()), 0, "counters of the other mount")

# From the page cache, nothing is read; after that is dropped, it is read again.
with open(f"{raw}/file", "rb") as file:
    file.read()
equal(counters(raw), after, "counters after a read from the page cache")
drop_caches()
with open(f"{raw}/file", "rb") as file:
    file.read()
equal(counters(raw)["bytes_read"], 2 * SIZE, "bytes read twice")

with open(f"{verified}/file", "rb") as file:
    file.read()
after = counters(verified)
check(after["bytes_hashed"] >= SIZE, f"bytes hashed: {after['bytes_hashed']}")
# A blob that several runs of folios need is hashed once by a reader who goes straight on.
check(after["bytes_hashed"] <= SIZE * 5 // 4, f"bytes hashed: {after['bytes_hashed']}, of a file of {SIZE}")
equal(after["read_errors"], 0, "errors")

drop_caches()
for blob in glob.glob(f"{CASE_DIR}/store/blobs/sha256/*"):
    if os.path.getsize(blob) > 50_000:
        with open(blob, "r+b") as file:
            file.write(b"damage")
drop_caches()
with refused(errno.EIO, "damaged"), open(f"{verified}/file", "rb") as file:
    file.read()
after = counters(verified)
check(after["read_errors"] > 0, "no error was counted")
equal(after["verification_failures"], after["read_errors"], "failures of verification")

# A blob that is too short is another matter.
for blob in glob.glob(f"{CASE_DIR}/store/blobs/sha256/*"):
    if os.path.getsize(blob) > 50_000:
        os.truncate(blob, 100)
drop_caches()
with refused(errno.EIO, "truncated"), open(f"{raw}/file", "rb") as file:
    file.read()
after = counters(raw)
check(after["read_errors"] > 0, "no error was counted of the other mount")
equal(after["verification_failures"], 0, "failures of verification, unverified")
