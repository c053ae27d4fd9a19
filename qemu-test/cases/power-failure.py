#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# The power fails at every flush of a build, an import, a copy, a change of tags and a sweep: the store
# verifies, each tag names its old image or its new one, and the new one once the command has ended.
#
# formats: 3 4
# timeout: 300
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile

import devmapper
from case import BUILD_FORMAT, CASE_DIR, FORMAT, check, metric, run, seeded_random, write_file

random = seeded_random()
memory = f"{CASE_DIR}/memory"
mnt = f"{CASE_DIR}/mnt"
store = f"{mnt}/store"
MEGABYTES = 24
# No write reaches the disk but by a flush that somebody asks for: nothing is written back after a
# time, the journal is not committed after a time, and no rename brings contents to the disk.
OPTIONS = "noauto_da_alloc,commit=3600"


def tree(name, seed):
    os.makedirs(f"{memory}/{name}")
    for number in range(8):
        write_file(f"{memory}/{name}/{number}", f"{seed} {number} ".encode() + random.randbytes(2000))
    write_file(f"{memory}/{name}/large", random.randbytes(300_000))
    return f"{memory}/{name}"


def container_image(path):
    """An OCI image layout of one layer with one file."""
    os.makedirs(f"{path}/blobs/sha256")

    def blob(contents, kind):
        digest = hashlib.sha256(contents).hexdigest()
        write_file(f"{path}/blobs/sha256/{digest}", contents)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}",
                "size": len(contents)}

    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        contents = random.randbytes(200_000)
        member = tarfile.TarInfo("imported")
        member.size = len(contents)
        tar.addfile(member, io.BytesIO(contents))
    layer = blob(archive.getvalue(), "layer.v1.tar")
    config = blob(json.dumps({"architecture": "amd64", "os": "linux",
                              "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]}}).encode(),
                  "config.v1+json")
    manifest = blob(json.dumps({"schemaVersion": 2, "config": config, "layers": [layer]}).encode(),
                    "manifest.v1+json")
    write_file(f"{path}/oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
    write_file(f"{path}/index.json", json.dumps({"schemaVersion": 2, "manifests": [manifest]}).encode())
    return path


def tags():
    """Which manifest each tag names, as the index says."""
    with open(f"{store}/index.json") as file:
        manifests = json.load(file)["manifests"]
    return {manifest["annotations"]["org.opencontainers.image.ref.name"]: manifest["digest"]
            for manifest in manifests}


def untag_by_another_tool(tag):
    """As a tool does that replaces the index by a rename, and waits for no disk."""
    with open(f"{store}/index.json") as file:
        index = json.load(file)
    index["manifests"] = [manifest for manifest in index["manifests"]
                          if manifest["annotations"]["org.opencontainers.image.ref.name"] != tag]
    write_file(f"{store}/index.other", json.dumps(index).encode())
    os.rename(f"{store}/index.other", f"{store}/index.json")


def quiet_writeback(centiseconds):
    write_file("/proc/sys/vm/dirty_writeback_centisecs", str(centiseconds).encode())


def puzzlefs(*arguments, skipping=None, when="1+"):
    """Runs the command. The kernel does not see the system calls that are skipped."""
    injection = f"inject={skipping}:retval=0:when={when}"
    prefix = ["strace", "-qq", "-f", "-o", "/dev/null", "-e", injection] if skipping else []
    run(*prefix, "puzzlefs", *arguments)


def some_before_the_next_flush(entries):
    """A disk has written some of what nobody has asked it to flush."""
    for entry in entries:
        if entry[0] == "write" and entry[3]:
            return
        if entry[0] == "write" and random.random() < 0.5:
            yield entry[1], entry[2]


class Failure:
    """Steps that are taken on a disk whose writes are logged, and what the power leaves of them."""

    def __init__(self):
        self.disk = devmapper.LoggedDisk(f"{memory}/disk", MEGABYTES, f"{memory}/log", 200)
        run("mount", "-o", OPTIONS, self.disk.path, mnt)
        self.states = {}

    def record(self, steps):
        quiet_writeback(0)
        try:
            for name, act in steps.items():
                os.sync()
                before = tags()
                self.disk.mark(f"begins:{name}")
                act()
                self.disk.mark(f"ends:{name}")
                self.states[name] = before, tags()
                check(before != tags(), f"{name} changes no tag")
            os.sync()
            run("umount", mnt)
        finally:
            quiet_writeback(500)
        self.disk.remove()
        os.unlink(f"{memory}/disk")

    def faults(self):
        """Replays the log up to each flush, and yields the faults of what is left there."""
        self.replays, name, flushes, changed, is_new = 0, None, 0, False, False
        entries = list(self.disk.entries())
        with open(f"{memory}/replayed", "r+b") as replayed:
            for at, entry in enumerate(entries, 1):
                if entry[0] == "mark":
                    what, _, step = entry[1].partition(":")
                    if what == "begins":
                        name, flushes, changed, is_new = step, 0, True, False
                    elif name:
                        # No flush comes after the command. What it has not asked for is lost.
                        replayed.flush()
                        found = yield from self.left(name, "when it has ended")
                        if found and found != self.states[name][1]:
                            yield f"{name}, when it has ended: the tags are the old ones"
                        print(f"{name}: {flushes} flushes")
                        name = None
                elif entry[0] == "discard":
                    replayed.seek(entry[1])
                    replayed.write(bytes(entry[2]))
                else:
                    _, offset, contents, durable = entry
                    replayed.seek(offset)
                    replayed.write(contents)
                    changed = changed or bool(contents)
                    if durable and name:
                        flushes += 1
                    if durable and name and changed:
                        replayed.flush()
                        yield from self.left(name, f"after flush {flushes}",
                                             some_before_the_next_flush(entries[at:]))
                        found = yield from self.left(name, f"at flush {flushes}")
                        if is_new and found and found != self.states[name][1]:
                            yield f"{name}, at flush {flushes}: the old tags are back"
                        is_new, changed = found == self.states[name][1], False

    def left(self, name, when, more=()):
        """What is there after a power failure: mounted, so that the journal is replayed, on a copy. More
        writes can have reached the disk."""
        self.replays += 1
        shutil.copyfile(f"{memory}/replayed", f"{memory}/left")
        with open(f"{memory}/left", "r+b") as disk:
            for offset, contents in more:
                disk.seek(offset)
                disk.write(contents)
        run("mount", "-o", f"loop,{OPTIONS}", f"{memory}/left", mnt)
        try:
            verified = subprocess.run(["puzzlefs", "verify", "-q", store], capture_output=True, text=True,
                                      check=False)
            if verified.returncode:
                yield f"{name}, {when}: {verified.stdout}{verified.stderr}"
                return None
            found = tags()
            if found not in self.states[name]:
                yield f"{name}, {when}: the tags are {found}, should be one of {self.states[name]}"
            return found
        finally:
            run("umount", mnt)


# ---------------------------------------------------------------- the commands, and such that skip a flush

os.mkdir(memory)
run("mount", "-t", "tmpfs", "-o", "size=600M", "tmpfs", memory)
first, second = tree("first", 1), tree("second", 2)
imported = container_image(f"{memory}/imported")
elsewhere = f"{memory}/elsewhere"
puzzlefs("build", "-q", *BUILD_FORMAT, tree("third", 3), f"{elsewhere}:copied")

with open(f"{memory}/fresh", "wb") as file:
    file.truncate(MEGABYTES << 20)
run("mkfs.ext4", "-q", "-J", "size=4", f"{memory}/fresh")
os.mkdir(mnt)
run("mount", "-o", f"loop,{OPTIONS}", f"{memory}/fresh", mnt)
if FORMAT == 3:
    puzzlefs("build", "-q", *BUILD_FORMAT, first, f"{store}:built")
    puzzlefs("build", "-q", *BUILD_FORMAT, "-z", first, f"{store}:moved")
    for tag in ("imported", "copied", "swept"):
        puzzlefs("tag", f"{store}:moved", tag)
else:
    # The pack of the image that goes has chunks of the others, too.
    shutil.copytree(first, f"{memory}/more")
    write_file(f"{memory}/more/own", random.randbytes(250_000))
    puzzlefs("build", "-q", *BUILD_FORMAT, f"{memory}/more", f"{store}:swept")
    puzzlefs("build", "-q", *BUILD_FORMAT, first, f"{store}:built")
    for tag in ("imported", "copied", "moved"):
        puzzlefs("tag", f"{store}:built", tag)
    # An update of an image, in a pack of its own.
    shutil.copytree(second, f"{memory}/updated")
    write_file(f"{memory}/updated/new", random.randbytes(5000))
run("umount", mnt)


def faults(steps):
    """The faults that the steps can leave, and the number of power failures."""
    for name in ("disk", "replayed"):
        shutil.copyfile(f"{memory}/fresh", f"{memory}/{name}")
    failure = Failure()
    failure.record(steps)
    found = []
    for fault in failure.faults():
        print(fault)
        found.append(fault)
    return found, failure.replays


STEPS = {
    "build": lambda: puzzlefs("build", "-q", *BUILD_FORMAT, second, f"{store}:built"),
    "build--base": lambda: puzzlefs("build", "-q", *BUILD_FORMAT, "-z", "--base=built", first,
                                    f"{store}:moved"),
    "import": lambda: puzzlefs("import", "-q", *BUILD_FORMAT, imported, f"{store}:imported"),
    "copy": lambda: puzzlefs("copy", "-q", f"{elsewhere}:copied", f"{store}:copied"),
    "tag": lambda: puzzlefs("tag", f"{store}:built", "moved"),
    "untag": lambda: puzzlefs("untag", f"{store}:copied"),
    # Of the image whose last tag goes, and of those that tags named before.
    "gc": lambda: (untag_by_another_tool("swept"), puzzlefs("gc", store)),
} if FORMAT == 3 else {
    "build": lambda: puzzlefs("build", "-q", *BUILD_FORMAT, second, f"{store}:built"),
    "import": lambda: puzzlefs("import", "-q", *BUILD_FORMAT, imported, f"{store}:imported"),
    "copy": lambda: puzzlefs("copy", "-q", f"{elsewhere}:copied", f"{store}:copied"),
    "update": lambda: puzzlefs("build", "-q", *BUILD_FORMAT, f"{memory}/updated", f"{store}:built"),
    "repack": lambda: puzzlefs("repack", "-q", f"{store}:built"),
    "convert": lambda: puzzlefs("convert", "-q", "--format=3", f"{store}:built", f"{store}:converted"),
    # Packs of no image are removed, and one is rewritten.
    "gc": lambda: (untag_by_another_tool("swept"), puzzlefs("gc", "--max-dead=0", store)),
    "complete": lambda: puzzlefs("complete", "-q", "--new-manifest", f"{store}:moved"),
    "reindex": lambda: (puzzlefs("untag", f"{store}:copied"), puzzlefs("reindex", "-q", store)),
    "last-gc": lambda: (puzzlefs("untag", f"{store}:imported"), puzzlefs("gc", "--max-dead=0", store)),
}
found, replays = faults(STEPS)
check(not found, f"{len(found)} faults after {replays} power failures, the first: {found[:1]}")
check(replays > 30, f"{replays} power failures only")
metric("power_failure.replays", replays)

# The case notices commands whose calls for a flush are not heeded.
UNSYNCED = {"build": lambda: puzzlefs("build", "-q", *BUILD_FORMAT, second, f"{store}:built",
                                      skipping="syncfs")}
SKIPPED = {
    "the blobs": UNSYNCED,
    "the contents of the index": {"tag": lambda: puzzlefs("tag", f"{store}:built", "moved", skipping="fsync",
                                                          when=1)},
    "the name of the index": {"tag": lambda: puzzlefs("tag", f"{store}:built", "moved", skipping="fsync",
                                                      when=2)},
    "the index that a sweep goes by": {"gc": lambda: (untag_by_another_tool("swept"),
                                                      puzzlefs("gc", store, skipping="fsync"))},
} if FORMAT == 3 else {
    "the packs": UNSYNCED,
    "the chunk index": {"build": lambda: puzzlefs("build", "-q", *BUILD_FORMAT, second, f"{store}:built",
                                                  skipping="fsync", when="1..3")},
    "the index that a sweep goes by": {
        # An image that shares no pack. To rewrite one, the sweep calls syncfs(2), also for the index.
        "build": lambda: puzzlefs("build", "-q", *BUILD_FORMAT, f"{memory}/third", f"{store}:alone"),
        "gc": lambda: (untag_by_another_tool("alone"), puzzlefs("gc", store, skipping="fsync"))},
}
for what, steps in SKIPPED.items():
    found, _ = faults(steps)
    print(f"{what} not flushed: {found[:1]}")
    check(found, f"without a flush of {what}, nothing is amiss")
run("umount", memory)
