#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# A file of more than 3,000 chunks, each a blob of its own, and more than a store keeps open: read
# in order, backwards and anywhere.
#
# For format 3 alone: chunked-read has long lists of extents of format 4.
#
# timeout: 240
# formats: 3
import os

import metadata
from case import build_image, check, drop_caches, equal, metric, mount_image, run, seeded_random, sha256

random = seeded_random()

# Noise would take 200 MB for 3,000 chunks. What ends a chunk is a few bytes, though: find some in
# noise that ended one early, and have them where a chunk may end at the earliest.
os.mkdir("probe")
noise = random.randbytes(6 << 20)
with open("probe/noise", "wb") as file:
    file.write(noise)
probe = build_image("probe", "--chunk-size=64K", store="probe-store")
ends = [e.start + e.length for e in metadata.load(probe).extents("noise") if 17_000 < e.length < 60_000]
check(ends, "no chunk of the noise ended early")
LEAST, MARK = 16 << 10, 64
filler = random.randbytes(LEAST - 8)
os.mkdir("src")
with open("src/file", "wb") as file:
    for number in range(3600):
        # The byte after the end belongs to the mark.
        end = ends[number % len(ends)]
        file.write(number.to_bytes(8, "little") + filler + noise[end - MARK:end + 1])
run("rm", "-r", "probe", "probe-store")

source = build_image("src", "--chunk-size=64K")
extents = metadata.load(source).extents("file")
blobs = {extent.blob for extent in extents}
metric("many_chunks", len(blobs))
check(len(blobs) >= 3000, f"{len(extents)} chunks in {len(blobs)} blobs")
mnt = mount_image(source)
size = os.path.getsize("src/file")
equal(os.path.getsize(f"{mnt}/file"), size, "size")
equal(sha256(f"{mnt}/file"), sha256("src/file"), "sha256")

drop_caches(1)
with open("src/file", "rb") as wanted, open(f"{mnt}/file", "rb", buffering=0) as got:
    # The seams of chunks from the last to the first, every tenth.
    for extent in extents[::-10]:
        at = max(0, extent.start - 5)
        equal(os.pread(got.fileno(), 10, at), os.pread(wanted.fileno(), 10, at),
              f"the seam at {extent.start}")
    for _ in range(200):
        at = random.randrange(size)
        equal(os.pread(got.fileno(), 70_000, at) == os.pread(wanted.fileno(), 70_000, at), True,
              f"70,000 bytes at {at}")
