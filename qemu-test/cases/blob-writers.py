#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Somebody who has a blob open for writing, or writes to it out of a map of the very file that it is
# read for, neither hangs nor keeps others from reading.
#
# formats: 3 4
# timeout: 60
import contextlib
import glob
import hashlib
import mmap
import os

import packs
from case import (CASE_DIR, FORMAT, build_image, check, drop_caches, equal, mount_image, seeded_random,
                  write_file)

# More than the module has buffers, which keep what was read last.
OTHERS = 20
random = seeded_random()
content = random.randbytes(60_000)
os.mkdir("src")
write_file("src/file", content)
mnt = mount_image(build_image("src"))
os.mkdir("others")
for number in range(OTHERS):
    write_file(f"others/{number}", random.randbytes(300_000))
others = mount_image(build_image("others", tag="others"), f"{CASE_DIR}/others-mnt")
# A small file alone is the whole of its blob; in format 4, a part of a pack.
blob, offset = f"{CASE_DIR}/store/blobs/sha256/{hashlib.sha256(content).hexdigest()}", 0
if FORMAT == 4:
    extent, = packs.extents_of(f"{CASE_DIR}/store", content)
    blob, offset = f"{CASE_DIR}/store/blobs/sha256/{extent.blob}", extent.offset
check(os.path.exists(blob), f"no blob is the file: {glob.glob(f'{CASE_DIR}/store/blobs/sha256/*')}")
with open(blob, "rb") as file:
    whole = file.read()


def read(path=f"{mnt}/file"):
    with open(path, "rb") as file:
        return file.read()


writer = os.open(blob, os.O_RDWR)
os.fsync(writer)
drop_caches()
equal(read(), content, "what is read while the blob is open for writing")



@contextlib.contextmanager
def unread():
    """A map of the file, none of which is in memory: not in the module's buffers either."""
    drop_caches()
    for number in range(OTHERS):
        equal(read(f"{others}/{number}"), read(f"others/{number}"), f"other file {number}")
    with open(f"{mnt}/file", "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapping:
        yield mapping


# The writer holds the blob's lock while this reads the page that it writes.
with unread() as mapping:
    equal(os.pwrite(writer, mapping, offset), len(content), "bytes written out of the map")
os.close(writer)
# So does one who writes past the cache and makes the blob longer; no page of it is cached meanwhile.
writer = os.open(blob, os.O_RDWR | os.O_DIRECT)
with unread() as mapping, memoryview(mapping) as view:
    equal(os.pwrite(writer, view[:mmap.PAGESIZE], 1 << 16), mmap.PAGESIZE, "bytes written directly")
os.ftruncate(writer, len(whole))
os.close(writer)
os.sync()
drop_caches()
equal(read(), content, "what is read after it")
with open(blob, "rb") as file:
    equal(file.read(), whole, "the blob")
