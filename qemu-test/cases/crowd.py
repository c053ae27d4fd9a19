#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# A crowd: 64 readers of six images by every call, beside which 500 images of one store are mounted,
# read and unmounted by eight processes, overlays with programs in them start and die, callers are
# killed in the middle, caches are dropped, memory is compacted and is short. What is read is right,
# everything ends, and nothing remains.
#
# needs: programs
# formats: 3 4
# timeout: 180
# rounds: 15
# klog-allow: overlayfs:
import contextlib
import mmap
import os
import signal
import subprocess
import sys
import time
from random import Random

import mountapi
import packs
import truth
from case import (BUILD_FORMAT, CASE_DIR, FORMAT, check, drop_caches, equal, eventually, fail, meminfo,
                  metric, rounds, run, seeded_random, slab_objects, unmount_image, write_file)
from chunked import Node
from metadata import Chunk, Inode, Store

SECONDS = rounds()
IMAGES = 500
MOUNTERS = 8
READERS, THREADS = 4, 16
CGROUP = "/sys/fs/cgroup/crowd"
random = seeded_random()


# ---------------------------------------------------------------- images

class Small:
    """500 images of one store, each with a file of its own and one that all share."""

    def __init__(self):
        self.shared = random.randbytes(20_000)
        self.contents = [random.randbytes(random.choice((1, 100, 4096, 5000, 30_000))) for _ in range(IMAGES)]
        if FORMAT == 3:
            self._add_images()
        else:
            self._add_packed_images()

    def _add_images(self):
        self.store = Store(f"{CASE_DIR}/small")
        shared = Chunk(self.store.add(self.shared), len(self.shared))
        self.rootfs = []
        for contents in self.contents:
            inodes = [Inode(1, "dir", 0o755, entries=[(b"all", 2), (b"own", 3), (b"sub", 4)]),
                      Inode(2, chunks=[shared]),
                      Inode(3, chunks=[Chunk(self.store.add(contents), len(contents))]),
                      Inode(4, "dir", 0o755,
                            entries=[(b"%03d" % number, 3) for number in reversed(range(50))])]
            self.rootfs.append(self.store.add_image(inodes))

    def _add_packed_images(self):
        """In one pack."""
        self.store = packs.Store(f"{CASE_DIR}/small")
        self.rootfs = []
        for contents in self.contents:
            shared, own = (Node("file", size=len(data), extents=[(0, data, 0)], links=links)
                           for data, links in ((self.shared, 1), (contents, 51)))
            sub = Node("dir", 0o755, links=2, entries={b"%03d" % number: own for number in range(50)})
            top = Node("dir", 0o755, links=3, entries={b"all": shared, b"own": own, b"sub": sub})
            self.rootfs.append(self.store.add_image([[top, shared, own, sub]]))
        self.store.write_index(self.store.add_pack())

    def mount(self, number, directory):
        mountapi.mount(self.store.path, directory, f"rootfs={self.rootfs[number]}")

    def read(self, number, directory):
        for name, wanted in (("all", self.shared), ("own", self.contents[number]),
                             ("sub/017", self.contents[number])):
            with open(f"{directory}/{name}", "rb") as file:
                check(file.read() == wanted, f"image {number}: {name}")
        equal(len(os.listdir(f"{directory}/sub")), 50, f"image {number}: a listing")


# ---------------------------------------------------------------- the crowd

children = {}


def child(name, work, *arguments):
    """A process that works until it is told to end, and must then end well."""
    seed = random.random()
    pid = os.fork()
    if pid:
        children[pid] = name
        return pid
    status = 1
    try:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        work(Random(seed), *arguments)
    except SystemExit:
        status = 0
    except BaseException as error:  # pylint: disable=broad-except
        with open(f"{CASE_DIR}/complaints", "a") as file:
            print(f"{name}: {error!r}", file=file)
    finally:
        os._exit(status)


@contextlib.contextmanager
def unbroken():
    """The signal to end has to wait."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])


def mounter(rng, small, number):
    """Mounts a share of the images, one by one or all at once, and counts."""
    share = range(number, IMAGES, MOUNTERS)
    os.makedirs(f"{CASE_DIR}/at/{number}")
    for image in share:
        os.mkdir(f"{CASE_DIR}/at/{number}/{image}")
    total = 0
    while True:
        together = rng.choice((1, 1, 5, 5, 20, len(share)))
        some = rng.sample(share, together)
        with unbroken():
            for image in some:
                small.mount(image, f"{CASE_DIR}/at/{number}/{image}")
            for image in rng.sample(some, min(together, 8)):
                small.read(image, f"{CASE_DIR}/at/{number}/{image}")
            for image in some:
                mountapi.umount(f"{CASE_DIR}/at/{number}/{image}", rng.choice((0, 0, mountapi.MNT_DETACH)))
            total += together
            write_file(f"{CASE_DIR}/mounted.{number}", str(total).encode())


def container(rng, number, lower):
    """An overlay over an image, in which a program runs that is in the image, and dies or ends."""
    total = 0
    base = f"{CASE_DIR}/container.{number}"
    os.mkdir(base)
    while True:
        with unbroken():
            for name in ("upper", "work", "root"):
                os.makedirs(f"{base}/{name}")
            mountapi.mount("overlay", f"{base}/root",
                           f"lowerdir={lower},upperdir={base}/upper,workdir={base}/work",
                           flags=0, fs_type="overlay")
            # The image's program reads the overlay's files, and compares them with the image's.
            program = subprocess.Popen([f"{base}/root/truth", "--seed", str(rng.getrandbits(30)),
                                        "--operations", "100000000",
                                        "--seconds", "2", "--stacked", f"{lower}/files",
                                        f"{base}/root/files"],
                                       stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            # Both are copied up, to read the same.
            os.close(os.open(f"{base}/root/files/1", os.O_RDWR))
            os.chmod(f"{base}/root/files/4097", 0o600)
            time.sleep(rng.random())
            if rng.random() < 0.5:
                program.kill()
            complaint = program.communicate()[1]
            check(program.returncode in (0, -signal.SIGKILL), f"in a container: {complaint!r}")
            mountapi.umount(f"{base}/root", rng.choice((0, mountapi.MNT_DETACH)))
            run("rm", "-rf", f"{base}/upper", f"{base}/work", f"{base}/root")
            total += 1
            write_file(f"{CASE_DIR}/contained.{number}", str(total).encode())


def killer(rng, small):
    """Callers are killed wherever they are: mounting, looking up, reading, unmounting."""
    directory = f"{CASE_DIR}/killed"
    os.mkdir(directory)
    while True:
        with unbroken():
            image = rng.randrange(IMAGES)
            victim = os.fork()
            if victim == 0:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                try:
                    while True:
                        small.mount(image, directory)
                        small.read(image, directory)
                        mountapi.umount(directory)
                except BaseException as error:  # pylint: disable=broad-except
                    with open(f"{CASE_DIR}/complaints", "a") as file:
                        print(f"a victim: {error!r}", file=file)
                os._exit(1)
            time.sleep(rng.random() * 0.2)
            os.kill(victim, signal.SIGKILL)
            os.waitpid(victim, 0)
            while os.path.ismount(directory):
                small.read(image, directory)
                mountapi.umount(directory)


def disturber(rng):
    """Caches are dropped, memory is compacted."""
    while True:
        write_file("/proc/sys/vm/drop_caches", str(rng.choice((1, 2, 3))).encode())
        with contextlib.suppress(OSError):
            write_file("/proc/sys/vm/compact_memory", b"1")
        time.sleep(rng.random())


def hog(rng):
    """Takes most of what memory is free, and gives it back."""
    write_file("/proc/self/oom_score_adj", b"1000")
    while True:
        length = max(1 << 20, meminfo()["MemAvailable"] - (220 << 20))
        with mmap.mmap(-1, length) as memory:
            for at in range(0, length, 1 << 20):
                memory[at:at + (1 << 20)] = bytes(1 << 20)
        time.sleep(rng.random() * 2)


def references():
    """To the module: one a mount, and what is on its way out."""
    with open("/sys/module/puzzlefs/refcnt") as file:
        return int(file.read())


# ---------------------------------------------------------------- all of it

prepared = time.monotonic()
images = truth.Truth(random)
small = Small()
os.makedirs("container/files")
for size in (1, 4097, 300_000):
    write_file(f"container/files/{size}", random.randbytes(size))
run("cp", "/payload/bin/truth", "container/truth")
run("puzzlefs", "build", "--quiet", *BUILD_FORMAT, "--compress", "container", "containers:image")
lower = f"{CASE_DIR}/lower"
os.mkdir(lower)
run("mount", "-t", "puzzlefs", f"{CASE_DIR}/containers:image", lower)
write_file("/proc/sys/vm/drop_caches", b"4")

# Half of the readers have less memory than they read.
limited = []
with open("/sys/fs/cgroup/cgroup.controllers") as file:
    if "memory" in file.read().split():
        write_file("/sys/fs/cgroup/cgroup.subtree_control", b"+memory")
        os.mkdir(CGROUP)
        write_file(f"{CGROUP}/memory.max", b"64M")
        limited = ["sh", "-c", f'echo $$ >{CGROUP}/cgroup.procs && exec "$@"', "sh"]
started = time.monotonic()
metric("crowd.seconds_to_prepare", round(started - prepared, 1))
readers = [truth.start((limited if number % 2 else []) + images.command(
    "--seed", random.getrandbits(32), "--operations", 10**9, "--seconds", SECONDS, "--threads", THREADS,
    *(["--signals"] if number == 3 else []))) for number in range(READERS)]
for number in range(MOUNTERS):
    child(f"mounter {number}", mounter, small, number)
for number in range(2):
    child(f"container {number}", container, number, lower)
child("killer", killer, small)
child("disturber", disturber)
child("hog", hog)

reads = sum(truth.finish(reader)[0] for reader in readers)
took = time.monotonic() - started
for kind, count in (("mounted", MOUNTERS), ("contained", 2)):
    for number in range(count):
        eventually(lambda at=f"{CASE_DIR}/{kind}.{number}": os.path.exists(at),
                   f"{kind}.{number} gets nowhere")
for pid in children:
    os.kill(pid, signal.SIGTERM)
statuses = {children[pid]: os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children}
metric("crowd.seconds", round(took, 1))
metric("crowd.seconds_to_end", round(time.monotonic() - started - took, 1))
complaints = ""
with contextlib.suppress(FileNotFoundError), open("complaints") as file:
    complaints = file.read()
if complaints or any(statuses.values()):
    fail(f"{complaints} {statuses}")


def total(kind, count):
    """How many there were of all."""
    counts = []
    for number in range(count):
        with open(f"{CASE_DIR}/{kind}.{number}") as file:
            counts.append(int(file.read()))
    return sum(counts)


mounts, containers = total("mounted", MOUNTERS), total("contained", 2)
print(f"{reads} reads, {mounts} mounts, {containers} containers in {took:.0f} s")
metric("crowd.reads", reads)
metric("crowd.mounts", mounts)
metric("crowd.containers", containers)
check(reads > 64, f"{reads} reads")
if limited:
    with open(f"{CGROUP}/memory.events") as file:
        print(file.read())
    eventually(lambda: not os.rmdir(CGROUP), "the control group is in use")

# In peace, all is as it was, and gone when it is unmounted.
truth.finish(truth.start(images.command("--operations", 2000)))
for directory in [lower, *images.mounts]:
    unmount_image(directory)
drop_caches()
eventually(lambda: slab_objects() == 0, "inodes remain")
eventually(lambda: slab_objects("puzzlefs_pages") == 0, "shared inodes remain")
eventually(lambda: references() == 0, "the module is in use")
