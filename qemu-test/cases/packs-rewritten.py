#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# `puzzlefs build`, `gc --max-dead` and `repack` rewrite and remove the packs of images that are mounted and
# read all the time, by every call and under every kind of verification. All packs are replaced several
# times. No byte is wrong, no read fails, and a store whose packs have fs-verity keeps it.
#
# needs: programs
# timeout: 600
# rounds: 4
import atexit
import os
import subprocess

import truth
from case import CASE_DIR, check, equal, metric, rounds, run, seeded_random, write_file

random = seeded_random()
images = truth.Truth(random)
SECONDS = 1000  # more than all rounds take; the readers are stopped
reader = truth.start(images.command("--seed", random.getrandbits(32), "--operations", 10**9,
                                    "--seconds", SECONDS, "--threads", 3, "--drop"))
# Before the images are unmounted.
atexit.register(lambda: (reader.kill(), reader.wait()))
with_junk = f"{CASE_DIR}/with-junk"
run("cp", "-a", images.source, with_junk)
removed = 0


def packs(store):
    """The blobs of a store that end like a pack."""
    found = set()
    for name in os.listdir(f"{store}/blobs/sha256"):
        with open(f"{store}/blobs/sha256/{name}", "rb") as file:
            if file.read()[-16:-8] == b"PZFSPACK":
                found.add(name)
    return found


def build(tree, store, tag, *options):
    run("puzzlefs", "build", "--quiet", *truth.STORES[store], *options, tree, f"{store}:{tag}")


def collect(store, before):
    """Collects garbage; all of these packs disappear."""
    global removed
    run("puzzlefs", "gc", "--max-dead=0", store)
    equal(packs(store) & before, set(), f"packs that {store} still has")
    removed += len(before)
    check(reader.poll() is None, f"the readers have ended: {reader.poll()}")


def whole(store):
    run("puzzlefs", "verify", store)
    if store == "raw":
        for name in packs(store):
            done = subprocess.run(["fsverity", "measure", f"{store}/blobs/sha256/{name}"], check=False)
            equal(done.returncode, 0, f"the status of fsverity measure of {name}")


for number in range(rounds()):
    write_file(f"{with_junk}/junk", random.randbytes(500_000 + number))
    for store in truth.STORES:
        # The chunks are in the pack of another image, too. Only mounts need those of the first one.
        old = packs(store)
        build(with_junk, store, "junk", "--fresh")
        new = packs(store) - old
        run("puzzlefs", "untag", f"{store}:image")
        collect(store, old)
        whole(store)
        # That image goes, and its pack is rewritten.
        build(images.source, store, "image")
        run("puzzlefs", "untag", f"{store}:junk")
        collect(store, new)
        whole(store)
        # Two small packs become one.
        write_file("more", random.randbytes(1000))
        os.makedirs("small", exist_ok=True)
        os.rename("more", "small/more")
        build("small", store, "small")
        run("puzzlefs", "repack", f"{store}:image")
        run("puzzlefs", "complete", "--new-manifest", f"{store}:image")
        run("puzzlefs", "untag", f"{store}:small")
        run("puzzlefs", "gc", "--max-dead=0", store)
        whole(store)
reader.terminate()
_, complaint = reader.communicate()
equal((reader.returncode, complaint), (-15, b""), "the end of the readers")
# Once more, with a result.
operations, _ = truth.finish(truth.start(images.command("--seed", 1, "--operations", 3000, "--drop")))
equal(operations, 3000, "operations in the end")
metric("packs_rewritten.removed", removed)
check(removed >= rounds() * 6, f"{removed} packs were removed")
