# SPDX-License-Identifier: MIT OR Apache-2.0
"""An image whose blobs are about to be damaged, and the check that exactly the pages that need
them are lost."""

import errno
import math
import os
import time

import metadata
from case import (CASE_DIR, PAGE, build_image, check, drop_caches, equal, eventually, fail, mount_image,
                  name_of, run, seeded_random, write_file)


# The runner keeps the module's last line of earlier cases here. The log begins with the case.
LAST_LINE = "/run/puzzlefs-last-line"


def quiet_for():
    """The seconds since the module's last line in the kernel's log."""
    lines = [line for line in run("dmesg", "--nopager").splitlines() if "puzzlefs: " in line]
    if not lines and os.path.exists(LAST_LINE):
        with open(LAST_LINE, errors="replace") as file:
            lines = file.readlines()
    last = float(lines[-1].split("[", 1)[1].split("]")[0]) if lines else -math.inf
    return time.clock_gettime(time.CLOCK_BOOTTIME) - last


def wait_for_log():
    """Waits until the kernel's log takes lines again: ten in five seconds, those of whatever went before
    included."""
    eventually(lambda: quiet_for() > 5, "the kernel's log still has new lines of the module")


class Image:
    """Files `big` and `other`, of several blobs each, and small ones that share a blob; mounted."""

    def __init__(self):
        wait_for_log()
        random = seeded_random()
        self.contents = {"big": random.randbytes(1_300_007), "other": random.randbytes(400_003)}
        self.contents |= {f"small-{n}": random.randbytes(3000 + n) for n in range(5)}
        os.mkdir("src")
        for name, contents in self.contents.items():
            write_file(f"src/{name}", contents)
        # Smaller chunks than it would take by itself, for `big` to have some in its middle.
        self.source = build_image("src", "--chunk-size=64K")
        self.store = self.source.rsplit(":", 1)[0]
        self.rootfs = metadata.rootfs_of(self.source)
        self.metadata = metadata.load(self.source)
        self.extents = {name: self.metadata.extents(name) for name in self.contents}
        check(len(self.extents["big"]) >= 6, f"{len(self.extents['big'])} chunks")
        self.mnt = mount_image(self.source)

    def blob(self, extent):
        return metadata.blob_path(self.store, extent.blob)

    def a_chunk_in_the_middle(self):
        """Of `big`; it neither begins nor ends with a page."""
        for extent in self.extents["big"][2:-1]:
            if extent.start % PAGE and (extent.start + extent.length) % PAGE:
                return extent
        return fail("every chunk ends with a page")

    def expect_lost(self, lost, names=("big",), cold=True):
        """Of these files just the pages that touch one of the ranges of `lost`, which are (start,
        end) by file, give EIO; all others are right, as are all other files, by pages and by
        reads from the start."""
        if cold:
            # The store's workspaces are given back: what they hold is used if the blob that it came
            # from is verified against the same digest, whatever has happened to that blob.
            drop_caches()
        for name, contents in self.contents.items():
            if name in names:
                self._expect_pages_lost(name, contents, lost.get(name, []), cold)
        for name, contents in self.contents.items():
            if not lost.get(name):
                with open(f"{self.mnt}/{name}", "rb") as file:
                    equal(file.read() == contents, True, f"{name}, which has lost nothing")

    def _expect_pages_lost(self, name, contents, lost, cold):
        bad = {page for start, end in lost for page in range(start // PAGE, (end + PAGE - 1) // PAGE)}
        fd = os.open(f"{self.mnt}/{name}", os.O_RDONLY)
        try:
            # As readahead has it: a read of all gives what comes before the first bad page, and
            # one that begins with a bad page fails.
            if cold:
                drop_caches(1)
            at = 0
            while at < len(contents):
                first = next((p * PAGE for p in sorted(bad) if p * PAGE >= at), len(contents))
                if first > at:
                    got = os.pread(fd, len(contents), at)
                    check(got == contents[at:at + len(got)], f"{name}: what a long read at {at} gives")
                    check(0 < len(got) <= first - at or first == len(contents),
                          f"{name}: a long read at {at} gives {len(got)} bytes, "
                           f"up to the lost page are {first - at}")
                    at += len(got)
                else:
                    self._expect_eio(fd, at, f"{name}: a long read at the lost page {at // PAGE}",
                                     len(contents))
                    at += PAGE
            # Page by page, backwards: without readahead.
            if cold:
                drop_caches(1)
            for page in reversed(range((len(contents) + PAGE - 1) // PAGE)):
                at = page * PAGE
                if page in bad:
                    self._expect_eio(fd, at, f"{name}: the lost page {page}")
                else:
                    check(os.pread(fd, PAGE, at) == contents[at:at + PAGE], f"{name}: page {page} differs")
        finally:
            os.close(fd)

    def _expect_eio(self, fd, at, what, length=PAGE):
        try:
            got = os.pread(fd, length, at)
        except OSError as error:
            check(error.errno == errno.EIO, f"{what}: {name_of(error.errno)}, should be EIO")
        else:
            fail(f"{what}: {len(got)} bytes read, should be EIO")


def kernel_log():
    """The lines that the module wrote."""
    return [line.split("puzzlefs: ", 1)[1] for line in os.popen("dmesg --nopager").read().splitlines()
            if "puzzlefs: image" in line]
