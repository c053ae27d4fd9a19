#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Malformed images over FUSE: what is wrong with the image as a whole stops the mount; what is wrong
# with an inode costs that inode, with one errno, and no other; the server stays, and ends as it should.
#
# timeout: 240
# klog-allow: puzzlefs:
import hashlib
import json
import os
import subprocess

from bad_metadata import bad_images, outcome, read, whole_blobs
from case import CASE_DIR, Differences, check, eventually, is_mounted, run, seeded_random, write_file
from metadata import Store, encode

random = seeded_random()
store = Store(f"{CASE_DIR}/store")
mnt = f"{CASE_DIR}/mnt"
os.mkdir(mnt)
write_file(f"{store.path}/oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
write_file(f"{store.path}/index.json", b'{"schemaVersion": 2, "manifests": []}')
blob = store.add(b"x" * 1000)


def image(contents):
    """An image whose metadata are these bytes; returns its name."""
    def descriptor(added, size, kind):
        return {"mediaType": kind, "digest": f"sha256:{added.hex()}", "size": size}

    layers = [descriptor(store.add(contents), len(contents), "application/vnd.puzzlefs.image.rootfs.v1"),
              descriptor(blob, 1000, "application/vnd.puzzlefs.image.filedata.v1")]
    config = descriptor(store.add(b"{}"), 2, "application/vnd.oci.empty.v1+json")
    manifest = json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                           "config": config, "layers": layers}).encode()
    store.add(manifest)
    return f"{store.path}@sha256:{hashlib.sha256(manifest).hexdigest()}"


def names(directory):
    return sorted(os.listdir(directory))


differences = Differences()
for what, contents in whole_blobs(blob, random).items():
    done = subprocess.run(["puzzlefs", "mount", "--fuse", image(contents), mnt], capture_output=True,
                          text=True, check=False)
    differences.compare(done.returncode, 1, f"{what}: the exit status, {done.stderr!r}")
    check("panicked" not in done.stderr, f"{what}: {done.stderr}")
    check(not is_mounted(mnt), f"{what}: left mounted")

# A whiteout hides its entry. The server comes upon these faults while it reads for the page cache, whose
# readers get EIO whatever the server says.
others = {"a whiteout": "ENOENT"} | dict.fromkeys([
    "a range of a blob beyond 2^64", "a digest of 31 bytes", "a digest of 33 bytes", "no digest",
    "a size that is not the sum",
], "EIO")
# All other names are listed, as the kernel's filesystem does.
lists = {"a whiteout": ["good"], "no inode": "EUCLEAN"}
for what, inodes, use in bad_images(blob):
    with open("said", "w+") as said:
        server = subprocess.Popen(["puzzlefs", "mount", "--fuse", "-f", image(encode(inodes)), mnt],
                                  stderr=said)
        eventually(lambda: is_mounted(mnt) or server.poll() is not None, f"{what}: it is not mounted")
        check(server.poll() is None,
              f"{what}: the server has ended with {server.returncode}: {open('said').read()}")
        for attempt in ("first", "second"):
            differences.compare(outcome(names, mnt), lists.get(what, ["bad", "good"]),
                                f"{what}: the names, the {attempt} time")
            differences.compare(outcome(use, f"{mnt}/bad"), others.get(what, "EUCLEAN"),
                                f"{what}, the {attempt} time")
        differences.compare(outcome(read, f"{mnt}/good"), b"x" * 1000, f"{what}: another file")
        run("umount", mnt)
        eventually(lambda: server.poll() is not None, f"{what}: the server does not end")
        said.seek(0)
        complaint = said.read()
        differences.compare(server.returncode, 0, f"{what}: the server's exit status, {complaint!r}")
        check("panicked" not in complaint, f"{what}: {complaint}")
differences.end()
