#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# A missing data blob costs the pages that need it, no byte more, for as long as it is missing; a
# line in the kernel's log tells which.
#
# For format 3 alone: packs-replaced and chunked-damage do this to packs.
#
# timeout: 60
# formats: 3
# klog-allow: puzzlefs: image
import errno
import mmap
import os
import re
import signal

import damage
from case import PAGE, check, drop_caches, equal, mapped, metric, mount_image, refused, unmount_image

image = damage.Image()
chunk = image.a_chunk_in_the_middle()
lost = {"big": [(chunk.start, chunk.start + chunk.length)]}
big = image.contents["big"]

# What is read is kept: nothing is lost yet.
with open(f"{image.mnt}/big", "rb") as file:
    equal(file.read() == big, True, "the whole file")
os.rename(image.blob(chunk), "kept")
with open(f"{image.mnt}/big", "rb") as file:
    equal(file.read() == big, True, "the file in memory")

# An open blob stays open; after a new mount none is.
unmount_image()
mount_image(image.source)
already = len(damage.kernel_log())
image.expect_lost(lost, names=("big", "other", "small-3"))

# One line at a time, that names the image, the inode, the place, the blob and the cause.
said = damage.kernel_log()[already:]
check(said, "nothing in the kernel's log")
ino = os.stat(f"{image.mnt}/big").st_ino
for line in said:
    found = re.fullmatch(rf"image {image.rootfs} inode {ino}: offset (\d+): blob {chunk.blob}: ENOENT", line)
    check(found, f"the kernel's log has {line!r}")
    check(chunk.start <= int(found[1]) < chunk.start + chunk.length, f"the offset in {line!r}")
fd = os.open(f"{image.mnt}/big", os.O_RDONLY)
bad = (chunk.start + chunk.length // 2) // PAGE * PAGE
already = len(damage.kernel_log())
for _ in range(500):
    with refused(errno.EIO, "the lost page"):
        os.pread(fd, 1, bad)
metric("data_missing_log_lines", len(damage.kernel_log()) - already)
check(len(damage.kernel_log()) - already < 100, "500 errors are 100 lines in the kernel's log")

# All other ways to read.
drop_caches(1)
with open("sent", "wb") as out, refused(errno.EIO, "sendfile"):
    os.sendfile(out.fileno(), fd, bad, PAGE)
reader, writer = os.pipe()
with refused(errno.EIO, "splice"):
    os.splice(fd, writer, PAGE, offset_src=bad)


def by_map(at):
    """How a process that reads a byte of the map ends: its signal, or whether it was right."""
    child = os.fork()
    if child == 0:
        os._exit(0 if mapped(fd, at, 1) == big[at:at + 1] else 1)
    status = os.waitpid(child, 0)[1]
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else status


equal(by_map(bad), signal.SIGBUS, "the end of a process that maps the lost page")
for at in (0, chunk.start // PAGE * PAGE - 1, ((chunk.start + chunk.length) // PAGE + 1) * PAGE,
           len(big) - 1):
    equal(by_map(at), 0, f"the end of a process that maps byte {at}")
# A call that gets the lost page as its buffer fails with EFAULT.
with open("out", "wb") as out:
    with mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ) as view, \
            refused(errno.EFAULT, "write(2) out of the map"):
        os.write(out.fileno(), memoryview(view)[bad:bad + 1])
os.close(fd)

# It is back: so are the pages, at once, in the same mount, by a descriptor that has seen the error.
fd = os.open(f"{image.mnt}/big", os.O_RDONLY)
with refused(errno.EIO, "the lost page, once more"):
    os.pread(fd, 1, bad)
os.rename("kept", image.blob(chunk))
check(os.pread(fd, PAGE, bad) == big[bad:bad + PAGE], "the page whose blob is back")
os.close(fd)
image.expect_lost({})

# The first and the last chunk, and one that small files share.
for name, extent in (("big", image.extents["big"][0]), ("big", image.extents["big"][-1]),
                     ("small-0", image.extents["small-0"][0])):
    unmount_image()
    os.rename(image.blob(extent), "kept")
    mount_image(image.source)
    ranges = {n: [(e.start, e.start + e.length) for e in extents if e.blob == extent.blob]
              for n, extents in image.extents.items()}
    check(any(ranges.values()), f"nothing needs the blob of {name}")
    image.expect_lost(ranges, names=("big", "small-0", "small-4"))
    os.rename("kept", image.blob(extent))
    image.expect_lost({}, names=())
