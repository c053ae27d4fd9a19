#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Each allocation of memory in turn that the kernel makes for a mount, a lookup, a listing, a read by
# any call and an unmount fails: each ends in ENOMEM or as ever, and the same again gives what was
# built. Then those of the kernel's workers fail at random, who read ahead.
#
# kernel: debug
# needs: programs
# timeout: 1200
# formats: 3 4
# klog-allow: puzzlefs: |fs-verity .*: Error -12 (getting verity descriptor size|reading Merkle tree page)|workqueue: Failed to [a-z]* a worker|kobject_add_internal failed for (puzzlefs|[0-9]+:).*error: -12|debugfs: out of free dentries
import contextlib
import os
import threading

import mountapi
import truth
from case import BUILD_FORMAT, CASE_DIR, FORMAT, frames, run, seeded_random, write_file
from metadata import Chunk, Inode, Store, rootfs_of

DEBUG = "/sys/kernel/debug"
random = seeded_random()

# All allocations can fail, not only those that may not wait; nothing is said of it.
for knob in ("failslab/ignore-gfp-wait", "fail_page_alloc/ignore-gfp-wait",
             "fail_page_alloc/ignore-gfp-highmem"):
    write_file(f"{DEBUG}/{knob}", b"N")
for knob in ("failslab/verbose", "fail_page_alloc/verbose", "fail_page_alloc/min-order"):
    write_file(f"{DEBUG}/{knob}", b"0")

os.makedirs("tree/deep/er/still")
os.makedirs("tree/many")
write_file("tree/large", b"".join(random.choice((random.randbytes, bytes))(50_000) for _ in range(12)))
write_file("tree/deep/er/still/file", random.randbytes(9000))
write_file("tree/deep/attributes")
os.setxattr("tree/deep/attributes", "user.long", b"v" * 2000)
for number in range(20):
    os.setxattr("tree/deep/attributes", f"user.{number}", b"v")
os.symlink("t" * 3000, "tree/link")
for number in range(300):
    write_file(f"tree/many/{number:04}", b"the same")

# Another store stays mounted, so that buffers are made once, but for the mount itself.
other = Store("other")
keeper = f"{CASE_DIR}/keeper"
os.mkdir(keeper)
keeps = other.add_image([Inode(1, "dir", 0o755, entries=[])])
mnt = f"{CASE_DIR}/mnt"
os.mkdir(mnt)
os.mkdir(f"{mnt}.again")


def faults(store, options, *operations):
    """Runs the program on a store; what it says is the result."""
    rootfs = rootfs_of(f"{CASE_DIR}/{store}:image")
    print(f"{store}, {options}:", flush=True)
    print(run("faults", "tree", mnt, f"{CASE_DIR}/{store}", f"rootfs={rootfs},{options}", *operations),
          flush=True)


READS = ("read", "page", "ahead", "map", "populate", "splice", "sendfile")
for store, build in {"plain": ["--compress=0"], "packed": ["--compress", *frames("16K")]}.items():
    run("puzzlefs", "build", "--quiet", *BUILD_FORMAT, *build, "tree", f"{store}:image")
for blob in os.listdir("plain/blobs/sha256"):
    run("fsverity", "enable", f"plain/blobs/sha256/{blob}")
faults("plain", "verify=none", "mount", "unmount")
mountapi.mount(other.path, keeper, f"rootfs={keeps}")
faults("plain", "verify=none", "mount", "unmount", "again", "remount", "told", "lookup", "missing", "many",
       "list", "link", "getxattr", "listxattr", "open", "handle", *READS)
faults("plain", "verify=none,noshare", "open", "read", "handle")
faults("plain", "verify=fsverity", "read", "page", "map")
faults("plain", "verify=digest", "read", "page", "map")
faults("packed", "verify=none", "mount", *READS)
faults("packed", "verify=digest", "read", "page", "map")

# A directory that is not in order needs an index, in format 3.
if FORMAT == 3:
    unsorted = Store("unsorted")
    os.makedirs("index/many")
    large = random.randbytes(20_000)
    write_file("index/large", large)
    for number in range(300):
        os.mkfifo(f"index/many/{number:04}", 0o644)
        os.utime(f"index/many/{number:04}", (0, 0))
    rootfs = unsorted.add_image([
        Inode(1, "dir", 0o755, entries=[(b"large", 2), (b"many", 4)]),
        Inode(2, chunks=[Chunk(unsorted.add(large), len(large))]),
        Inode(3, "fifo"),
        Inode(4, "dir", 0o755, entries=[(b"%04d" % number, 3) for number in reversed(range(300))])])
    print("in no order:",
          run("faults", "index", mnt, f"{CASE_DIR}/unsorted", f"rootfs={rootfs}", "many", "missing", "list"))
mountapi.umount(keeper)

# One in ten of the workers' allocations, at random: read-ahead gives up, and nobody notices.
stop = threading.Event()


def mark():
    """All workers there are; new ones come."""
    while not stop.wait(1):
        for task in os.listdir("/proc"):
            with contextlib.suppress(OSError):
                with open(f"/proc/{task}/comm") as file:
                    if file.read().startswith("kworker"):
                        write_file(f"/proc/{task}/make-it-fail", b"1")


images = truth.Truth(random)  # which has `src`, and stores of its own
os.sync()
for kind in ("failslab", "fail_page_alloc"):
    for knob, value in (("times", -1), ("task-filter", "Y"), ("interval", 1), ("probability", 10)):
        write_file(f"{DEBUG}/{kind}/{knob}", str(value).encode())
marker = threading.Thread(target=mark)
marker.start()
try:
    print(truth.finish(truth.start(images.command("--seed", random.getrandbits(32), "--operations", 10**9,
                                                  "--seconds", 60, "--threads", 2, "--drop"))))
finally:
    for kind in ("failslab", "fail_page_alloc"):
        write_file(f"{DEBUG}/{kind}/probability", b"0")
    stop.set()
    marker.join()
