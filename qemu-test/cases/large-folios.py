#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# One I/O error costs a shared file the pages that cannot be read, and no large folios: while the
# disk is faulty, the rest of the folio can be read; afterwards the file has large folios as before,
# in each mount that shares its pages.
#
# formats: 3 4
# timeout: 90
# klog-allow: puzzlefs: image|I/O error
import ctypes
import errno
import os
import struct

import devmapper
import metadata
import mountapi
import packs
from case import (CASE_DIR, FORMAT, PAGE, build_image, check, drop_caches, equal, map_of, mount_image,
                  refused, seeded_random, unmount_image, write_file)

COMPOUND_HEAD, COMPOUND_TAIL = 1 << 15, 1 << 16
SIZE = 4 << 20

contents = seeded_random().randbytes(SIZE)
os.mkdir("src")
write_file("src/file", contents)
with devmapper.filled("store") as disk:
    source = build_image("src", "--chunk-size=64K", "--compress=0")
if FORMAT == 3:
    extents = metadata.load(source).extents("file")
else:
    extents = packs.extents_of(f"{CASE_DIR}/store", contents)
options = "ro" if FORMAT == 3 else "ro,verify=digest"
one = mount_image(source, f"{CASE_DIR}/one", options)
two = mount_image(source, f"{CASE_DIR}/two", options)


def in_large_folios(path):
    """How many of a file's pages are parts of large folios, after a read from start to end."""
    with open(path, "rb") as file:
        drop_caches(1)
        equal(file.read() == contents, True, f"the contents of {path}")
        with map_of(file.fileno(), 0, SIZE) as address, open("/proc/self/pagemap", "rb",
                                                             buffering=0) as pagemap, \
                open("/proc/kpageflags", "rb", buffering=0) as flags:
            large = 0
            for page in range(SIZE // PAGE):
                # Only a page that was touched is in the table.
                ctypes.string_at(address + page * PAGE, 1)
                entry, = struct.unpack("<Q", os.pread(pagemap.fileno(), 8, (address // PAGE + page) * 8))
                check(entry >> 63, f"page {page} of {path} is mapped")
                of_page, = struct.unpack("<Q", os.pread(flags.fileno(), 8, (entry & (1 << 55) - 1) * 8))
                large += bool(of_page & (COMPOUND_HEAD | COMPOUND_TAIL))
            return large


usual = in_large_folios(f"{one}/file")
print(f"{usual} of {SIZE // PAGE} pages are in large folios")
check(usual > SIZE // PAGE // 2, f"only {usual} of {SIZE // PAGE} pages are in large folios")

# A chunk that large folios reach beyond.
lost = next(extent
            for extent in extents[len(extents) // 2:] if extent.start % PAGE
            and (extent.start + extent.length) % PAGE)
bad = range(lost.start // PAGE, (lost.start + lost.length - 1) // PAGE + 1)
# In format 4, chunks beside the lost one lie in its first and last page of the blob. A chunk that is verified
# is lost as a whole.
first, end = lost.offset, lost.offset + lost.length
if FORMAT == 4:
    first, end = -(-first // PAGE) * PAGE, end // PAGE * PAGE
disk.fail(devmapper.ranges_of(metadata.blob_path(f"{CASE_DIR}/store", lost.blob), first, end - first))
drop_caches()
with open(f"{one}/file", "rb", buffering=0) as file:
    got = 0
    # As any reader does, from the start on.
    with refused(errno.EIO, "the chunk that cannot be read"):
        while data := file.read(128 << 10):
            check(data == contents[got:got + len(data)], f"the bytes at {got}")
            got += len(data)
    equal(got, bad.start * PAGE, "bytes before the lost chunk")
    for page in range(max(bad.start - 40, 0), min(bad.stop + 40, SIZE // PAGE)):
        if page in bad:
            with refused(errno.EIO, f"the lost page {page}"):
                os.pread(file.fileno(), 1, page * PAGE)
        else:
            equal(os.pread(file.fileno(), PAGE, page * PAGE) == contents[page * PAGE:(page + 1) * PAGE], True,
                  f"page {page}")
disk.fail([])

for mnt in (one, two):
    now = in_large_folios(f"{mnt}/file")
    print(f"{mnt}: {now} pages are in large folios afterwards")
    check(now >= usual * 9 // 10,
          f"{mnt}: {now} pages are in large folios, before the I/O error there were {usual}")

unmount_image(one)
unmount_image(two)
mountapi.umount("store")
disk.remove()
