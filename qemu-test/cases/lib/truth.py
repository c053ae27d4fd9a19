# SPDX-License-Identifier: MIT OR Apache-2.0
"""A tree in which everything can go wrong that can with contents, its images in each way that they
are stored and verified, mounted; and the program that reads them at random (programs/truth.rs)."""

import os
import subprocess
import sys

from case import BUILD_FORMAT, CASE_DIR, FORMAT, PAGE, check, fail, mount_image, run, write_file

SIZES = [1, PAGE - 1, PAGE, PAGE + 1, 70_001, 262_144, 400_007, 1_300_007, 2_500_003]
# In format 4, a chunk is one frame.
SMALL_FRAMES = ["--frame-size=4K"] if FORMAT == 3 else ["--chunk-size=4K"]
STORES = {"raw": ["--compress=0"], "zstd": ["--compress"], "small-frames": ["--compress=1", *SMALL_FRAMES]}
MOUNTS = (("raw", "none"), ("raw", "fsverity"), ("raw", "digest"), ("zstd", "none"), ("zstd", "digest"),
          ("small-frames", "none"))


def _contents(random, size):
    """Noise, zeros and text, in any mixture."""
    parts, left = [], size
    while left > 0:
        length = min(left, random.randrange(1, 150_000))
        parts.append(random.choice((random.randbytes, bytes,
                                    lambda n: (b"A line of some text.\n" * (n // 21 + 1))[:n]))(length))
        left -= length
    return b"".join(parts)


class Truth:
    """The tree is `source`; `contents` are its files by name, `mounts` where its images are."""

    def __init__(self, random):
        self.source = f"{CASE_DIR}/src"
        self.contents = {f"{size}": _contents(random, size) for size in SIZES}
        os.mkdir(self.source)
        for name, data in self.contents.items():
            write_file(f"{self.source}/{name}", data)
        for store, options in STORES.items():
            run("puzzlefs", "build", "--quiet", *BUILD_FORMAT, *options, self.source, f"{store}:image")
        for blob in os.listdir("raw/blobs/sha256"):
            run("fsverity", "enable", f"raw/blobs/sha256/{blob}")
        self.mounts = [mount_image(f"{CASE_DIR}/{store}:image", f"{CASE_DIR}/{store}-{verify}",
                                   f"ro,verify={verify}")
                       for store, verify in MOUNTS]

    def command(self, *options):
        """What to run, to read at random."""
        return ["truth", *map(str, options), self.source, *self.mounts]


def finish(process):
    """Waits for one; returns what it counted: operations, and how many of them were refused."""
    said, complaint = process.communicate()
    print(said.decode())
    if process.returncode:
        fail(f"status {process.returncode}: {complaint.decode().strip()}")
    words = said.decode().split()
    check(words[1] == "operations,", said)
    return int(words[0]), int(words[2])


def start(command):
    sys.stdout.flush()
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
