#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# A verified chunk of format 4 is hashed once, for however many files and requests it is needed.
#
# timeout: 120
import os

from case import CASE_DIR, check, counters, drop_caches, equal, mount_image, run, seeded_random, write_file

PAGE, SMALL_FILES, LARGE = 4096, 60, 3_000_000
random = seeded_random()
contents = {f"small-{number:02}": random.randbytes(random.randrange(1, 6000))
            for number in range(SMALL_FILES)}
small = sum(map(len, contents.values()))
contents["large"] = random.randbytes(LARGE)
os.mkdir("src")
for name, content in contents.items():
    write_file(f"src/{name}", content)
run("puzzlefs", "build", "-q", "--format", "4", "--compress=0", "src", f"{CASE_DIR}/store:image")
mnt = mount_image(f"{CASE_DIR}/store:image", f"{CASE_DIR}/mnt", "ro,verify=digest")


def hashed(read):
    """The number of bytes that the mount hashes while it reads data: the metadata is in memory."""
    drop_caches(1)
    for name in contents:
        os.stat(f"{mnt}/{name}")
    before = counters(mnt)["bytes_hashed"]
    read()
    return counters(mnt)["bytes_hashed"] - before


def read_small():
    for name, content in contents.items():
        if name != "large":
            with open(f"{mnt}/{name}", "rb") as file:
                check(file.read() == content, f"{name} differs")


def read_pages():
    """Reads the large file page by page. Without readahead, each request ends before the next begins."""
    content = contents["large"]
    fd = os.open(f"{mnt}/large", os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    for at in range(0, LARGE, PAGE):
        check(os.pread(fd, PAGE, at) == content[at:at + PAGE], f"the page at {at} differs")
    os.close(fd)


def read_on():
    with open(f"{mnt}/large", "rb") as file:
        check(file.read() == contents["large"], "the large file differs")


# The small files share bundles. The chunks of the large file do not end where pages do.
equal(hashed(read_small), small, "bytes hashed of small files")
equal(hashed(read_pages), LARGE, "bytes hashed of a file that is read by pages")
# Readahead is done by several tasks at once, of which two can need a chunk. Some chunks are still kept.
count = hashed(read_on)
check(count <= LARGE * 5 // 4, f"{count} bytes hashed of a file of {LARGE} that is read at once")
