#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# A disk under the store that gives I/O errors: for the place of a blob, which costs the pages that
# need it; for a block of one with many files, which costs those that are in it; for all of it, when
# only what is in memory can be had; and right after, by the same descriptor, all is well.
#
# For format 3 alone: large-folios has the errors of a disk for format 4, too.
#
# timeout: 120
# formats: 3
# klog-allow: puzzlefs: image|EXT4-fs|I/O error
import errno
import os

import damage
import devmapper
import mountapi
from case import PAGE, check, drop_caches, equal, mount_image, refused, unmount_image

with devmapper.filled("store") as disk:
    image = damage.Image()
    unmount_image()

chunk = image.a_chunk_in_the_middle()
lost = {"big": [(chunk.start, chunk.start + chunk.length)]}
# The last piece of the blob that small files share, which may be of a larger one, and the block in which
# it ends.
shared = [(found.offset, name, found) for name in image.extents for found in image.extents[name]
          if found.blob == image.extents["small-0"][0].blob]
(_, _, before), (_, last, piece) = sorted(shared, key=lambda found: found[0])[-2:]
block = (piece.offset + piece.length - 1) // PAGE * PAGE
check(before.offset + before.length <= block, "one piece ends in the last block")
for options in ("ro", "ro,verify=digest"):
    mount_image(image.source, options=options)
    image.expect_lost({}, names=())
    with open(f"{image.mnt}/big", "rb", buffering=0) as file:
        inside = (chunk.start + PAGE) // PAGE * PAGE
        disk.fail(devmapper.ranges_of(image.blob(chunk)))
        image.expect_lost(lost)
        with refused(errno.EIO, f"the lost page, {options}"):
            os.pread(file.fileno(), 1, inside)
        disk.fail([])
        equal(os.pread(file.fileno(), PAGE, inside), image.contents["big"][inside:inside + PAGE],
              "the page after the fault")
    image.expect_lost({})
    if options == "ro":
        # Of one extent; the disk's blocks are smaller than a page, and the next are another file's.
        [(start, end)] = devmapper.ranges_of(image.blob(piece))
        disk.fail([(start + block, end)])
        image.expect_lost({last: [(piece.start, piece.start + piece.length)]}, names=(last,))
        disk.fail([])
        image.expect_lost({})

    # Of the whole disk nothing is left: what was read before is there, and all of the tree.
    drop_caches()
    with open(f"{image.mnt}/other", "rb") as file:
        equal(file.read() == image.contents["other"], True, "the file while the disk was well")
    disk.fail_all()
    with open(f"{image.mnt}/other", "rb") as file:
        equal(file.read() == image.contents["other"], True, "the file in memory")
    # The kernel gives back its workspaces, too.
    drop_caches()
    equal(sorted(os.listdir(image.mnt)), sorted(image.contents), "the names")
    for name, contents in image.contents.items():
        equal(os.stat(f"{image.mnt}/{name}").st_size, len(contents), f"the size of {name}")
        with open(f"{image.mnt}/{name}", "rb", buffering=0) as file, refused(errno.EIO, f"{name}, {options}"):
            file.read()
    refusals = damage.kernel_log()
    check(refusals and "EIO" in refusals[-1], f"the kernel's log ends with {refusals[-1:]}")
    disk.fail([])
    image.expect_lost({})
    unmount_image()

mountapi.umount("store")
disk.remove()
