#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Images with anything wrong with them, by mutation, and those that fuzzing found: each is refused
# by the mount, or mounted and walked to its end, and every call gives a result or an errno.
#
# For format 3 alone: chunked-malformed does this for format 4.
#
# timeout: 120
# needs: corpus
# rounds: 300
# klog-allow: puzzlefs:
import errno
import os
import time
from collections import Counter

import hostile
import mountapi
from case import CASE_DIR, check, equal, metric, name_of, rounds, seeded_random
from metadata import Store, blob_path
from seekable import seekable
from walker import Walk

random = seeded_random()
store = Store(f"{CASE_DIR}/store")
mnt = f"{CASE_DIR}/mnt"
os.mkdir(mnt)
content = b"content " * 2500
blobs = [(store.add(random.randbytes(9000)), 9000),
         (store.add(seekable([content[:7000], content[7000:]])), len(content))]
layers = hostile.everything(blobs)
results = Counter()
calls = 0


def attempt(blob, options=""):
    """Mounts a blob as metadata and walks through it."""
    global calls
    name = store.add(blob).hex()
    try:
        mountapi.mount(store.path, mnt, f"rootfs={name}{options}")
    except OSError as error:
        check(error.errno == errno.EUCLEAN, f"the mount of {name}: {name_of(error.errno)}")
        results["not mounted"] += 1
        return
    finally:
        os.unlink(blob_path(store.path, name))
    try:
        walk = Walk(mnt)
    finally:
        mountapi.umount(mnt)
    calls += walk.calls
    results.update(name_of(number) for number in walk.errors.elements())
    results["mounted"] += 1


def whole(directory):
    """The good image is mounted there, and nothing is wrong with it."""
    equal(dict(Walk(directory).errors), {}, f"errors in the good image, {directory}")
    with open(f"{directory}/new", "rb") as file:
        equal(file.read()[-len(content):] == content, True, f"what {directory} reads")


# Mounted meanwhile, it is as it was in the end, and so is a mount after all.
good = hostile.encode_layers(layers)
rootfs = store.add(good).hex()
keep = f"{CASE_DIR}/keep"
os.mkdir(keep)
mountapi.mount(store.path, keep, f"rootfs={rootfs}")
whole(keep)

begin, most = time.monotonic(), 0.0
for number in range(rounds()):
    before = time.monotonic()
    try:
        attempt(hostile.mutant(random, layers), random.choice(("", ",verify=digest")))
    except Exception as error:
        raise AssertionError(f"mutant {number}: {error}") from error
    most = max(most, time.monotonic() - before)
corpus = sorted(os.listdir("/payload/corpus"))
for name in corpus:
    with open(f"/payload/corpus/{name}", "rb") as file:
        blob = file.read()
    # An empty blob, or one that is cut off, is what malformed.py has.
    if blob:
        attempt(blob)

whole(keep)
mountapi.umount(keep)
# A mutant may have been the good image, and its blob be gone with it.
store.add(good)
mountapi.mount(store.path, mnt, f"rootfs={rootfs}")
whole(mnt)
mountapi.umount(mnt)

check(results["mounted"] > rounds() // 3, f"too few mutants are mounted: {dict(results)}")
for number in ("EUCLEAN", "EIO", "ELOOP"):
    check(results[number], f"no walk ended in {number}: {dict(results)}")
print(f"{rounds()} mutants and {len(corpus)} found by fuzzing: {dict(results)}")
metric("malformed.images", rounds() + len(corpus))
metric("malformed.mounted", results["mounted"])
metric("malformed.calls", calls)
metric("malformed.seconds", round(time.monotonic() - begin, 1))
metric("malformed.slowest", round(most, 2))
