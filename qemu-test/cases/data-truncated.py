#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# A data blob that is too short, by a byte or by all of it: the pages before the cut are right, those
# after it are EIO, and when it is whole again, they are right, whichever way it was mended.
#
# For format 3 alone: packs-replaced and chunked-damage do this to packs.
#
# timeout: 90
# formats: 3
# klog-allow: puzzlefs: image
import os
import shutil

import damage
from case import PAGE, check, drop_caches, fail, mount_image, unmount_image

image = damage.Image()
chunk = image.a_chunk_in_the_middle()
path = image.blob(chunk)
end = chunk.start + chunk.length
shutil.copyfile(path, "kept")

# By a byte; in the middle of a page of the file; at an edge of one; a byte behind and before it; to
# less than a page; to nothing.
edge = PAGE - chunk.start % PAGE + 2 * PAGE
for size in (chunk.length - 1, edge + 1000, edge, edge + 1, edge - 1, 100, 0):
    drop_caches(2)
    unmount_image()
    os.truncate(path, size)
    mount_image(image.source)
    # The cut itself may be anywhere in a page: that page is lost.
    image.expect_lost({"big": [(chunk.start + size, end)]})
    said = damage.kernel_log()
    check(said and chunk.blob in said[-1] and "inode" in said[-1], f"the kernel's log ends with {said[-1:]}")

    # Whole again, in the same mount: written in place, or renamed into place as builders do.
    if size % 2:
        with open(path, "r+b") as file, open("kept", "rb") as kept:
            shutil.copyfileobj(kept, file)
    else:
        shutil.copyfile("kept", "new")
        os.rename("new", path)
    # What is open of the damaged blob must not stay in the way.
    try:
        image.expect_lost({}, names=())
    except OSError as error:
        how = "in place" if size % 2 else "by rename"
        fail(f"cut to {size} and mended {how}: {error}")

# Cut while it is open and in memory: what is in memory stays, what is not, is lost; and nothing
# worse happens to a map of it.
with open(f"{image.mnt}/big", "rb") as file:
    check(file.read() == image.contents["big"], "the whole file")
os.truncate(path, edge)
with open(f"{image.mnt}/big", "rb") as file:
    check(file.read() == image.contents["big"], "the file in memory")
image.expect_lost({"big": [(chunk.start + edge, end)]})
# Longer than it should be does no harm.
with open(path, "wb") as file, open("kept", "rb") as kept:
    shutil.copyfileobj(kept, file)
    file.write(b"x" * 10_000)
drop_caches(1)
image.expect_lost({}, names=())
