#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Without memory for buffers, reads go on: a store keeps one workspace, and room for one frame once a
# compressed file was opened, which memory reclaim leaves alone. A read that does fail with ENOMEM
# says nothing of the blob, which stays open.
#
# needs: fail-call
# kernel: distribution
# formats: 3 4
# timeout: 120
# klog-allow: puzzlefs: image [0-9a-f]+ inode [0-9]+: offset [0-9]+: (blob|chunk) [0-9a-f]+: ENOMEM
import errno
import mmap
import os

from case import (CASE_DIR, FORMAT, PAGE, build_image, check, counters, drop_caches, equal, frames,
                  in_threads, mount_image, refused, seeded_random, start, unmount_image, write_file)
from failcall import ENOMEM, EVERYBODY, failing

random = seeded_random()
contents = {f"file-{n}": b"".join(random.randbytes(4096) + bytes(4096) for _ in range(150)) for n in range(3)}
os.mkdir("src")
for name, data in contents.items():
    write_file(f"src/{name}", data)
raw = build_image("src", "--chunk-size=64K", "--compress=0", store=f"{CASE_DIR}/raw")
# Frames as large as they can be built.
FRAME = 256 << 10
zstd = build_image("src", "--compress", *frames(FRAME), store=f"{CASE_DIR}/zstd")


def read(name):
    with open(f"{mnt}/{name}", "rb") as file:
        return file.read() == contents[name]


def expect_contents():
    """By long reads of all files at once, page by page, and through a map."""
    def one(name):
        equal(read(name), True, f"the contents of {name}")
        with open(f"{mnt}/{name}", "rb") as file:
            size = len(contents[name])
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
            drop_caches(1)
            for at in random.sample(range(0, size, PAGE), 10):
                equal(os.pread(file.fileno(), PAGE, at) == contents[name][at:at + PAGE], True,
                      f"{name} at {at}")
            drop_caches(1)
            with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as view:
                for at in random.sample(range(0, size, PAGE), 10):
                    equal(view[at:at + PAGE] == contents[name][at:at + PAGE], True, f"{name} at {at}, mapped")
    in_threads(*[lambda name=name: one(name) for name in contents])


# No allocation of Rust's as large as a workspace's buffer, or as such a frame, succeeds.
for source, options in ((raw, "ro,verify=digest"), (zstd, "ro"), (zstd, "ro,verify=digest")):
    mnt = mount_image(source, options=options)
    equal(read("file-0"), True, "file-0 while there is memory")
    functions = ["vrealloc_node_align_noprof"]
    if source == zstd or FORMAT == 4:
        # For a frame, or for a verified chunk.
        functions.append("kvrealloc_node_align_noprof")
    for function in functions:
        with failing(function, 0, argument=2, least=FRAME) as calls:
            # Reclaim takes everything but the reserve.
            drop_caches()
            calls.fail_for(EVERYBODY)
            expect_contents()
            calls.fail_for_nobody()
            check(calls.failed() > 0, f"{source}, {options}: nobody asked {function} for memory")
    equal(counters(mnt)["read_errors"], 0, f"{source}, {options}: read errors")
    expect_contents()
    unmount_image()

# The filesystem below has no memory for a read, once.
mnt = mount_image(raw)
with open(f"{mnt}/file-0", "rb", buffering=0) as file, failing("ext4_file_read_iter", ENOMEM) as calls:
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
    equal(os.pread(file.fileno(), PAGE, 0) == contents["file-0"][:PAGE], True, "the first page")
    # In the same blob. In format 4, the chunk of the first page is in memory.
    at = PAGE if FORMAT == 3 else 150 * PAGE
    before = counters(mnt)["blobs_opened"]

    def without_memory():
        calls.fail_for(os.getpid())
        try:
            with refused(errno.ENOMEM, "a read without memory"):
                os.pread(file.fileno(), PAGE, at)
        finally:
            calls.fail_for_nobody()

    drop_caches(1)
    _, status = os.waitpid(start(without_memory), 0)
    equal(status, 0, "the status of the reader without memory")
    check(calls.failed() > 0, "no read was made to fail")
    equal(os.pread(file.fileno(), PAGE, at) == contents["file-0"][at:at + PAGE], True, "the page after that")
    equal(counters(mnt)["blobs_opened"], before, "blobs opened, after a read without memory")
unmount_image()
