#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Reads from the disk are charged to the control group of the reader: nearly all bytes appear in its
# io.stat, and io.max bounds their rate. That holds for readahead, for direct reads and reads through
# the lower page cache, and for a reader behind a loop device.
#
# timeout: 200
import contextlib
import os
import subprocess
import time

from case import (CASE_DIR, build_image, check, drop_caches, end, eventually, mount_image, run,
                  seeded_random, start, unmount_image, write_file)

ROOT = "/sys/fs/cgroup"
MEGABYTE = 1 << 20
SIZE = 24 * MEGABYTE
BLOCK = 64 << 10

random = seeded_random()
number = os.stat(CASE_DIR).st_dev
DEVICE = f"{os.major(number)}:{os.minor(number)}"


@contextlib.contextmanager
def group(name):
    """A control group with the controllers of I/O and memory."""
    path = f"{ROOT}/{name}"
    os.mkdir(path)
    try:
        yield path
    finally:
        write_file(f"{path}/cgroup.kill", b"1")
        eventually(lambda: not removed(path), f"{name} still has tasks")


def removed(path):
    with contextlib.suppress(OSError):
        os.rmdir(path)
    return os.path.exists(path)


def charged(path):
    """Bytes read from the disk that io.stat counts for a control group."""
    with open(f"{path}/io.stat") as stat:
        for line in stat:
            device, *values = line.split()
            if device == DEVICE:
                return int(dict(value.split("=") for value in values)["rbytes"])
    return 0


def read_in(path, read, *arguments):
    """Runs a function in a child process in a control group."""
    def work():
        write_file(f"{path}/cgroup.procs", str(os.getpid()).encode())
        read(*arguments)
    return start(work)


def finish(child):
    _, status = os.waitpid(child, 0)
    check(status == 0, f"the reader's status is {status}")


def read_all(file, at_once=BLOCK):
    fd = os.open(file, os.O_RDONLY)
    wanted = os.fstat(fd).st_size
    got = 0
    while data := os.read(fd, at_once):
        got += len(data)
    check(got == wanted, f"{got} bytes of {wanted} were read")
    os.close(fd)


write_file(f"{ROOT}/cgroup.subtree_control", b"+io +memory")
os.mkdir("src")
write_file("src/large", random.randbytes(SIZE))
# Half of it compresses.
write_file("src/text",
           b"".join(random.choice((random.randbytes, bytes))(10_000) for _ in range(SIZE // 10_000)))
sources = {"raw": build_image("src", store=f"{CASE_DIR}/raw"),
           "zstd": build_image("src", "--compress", store=f"{CASE_DIR}/zstd")}


def bytes_stored(kind):
    store = f"{CASE_DIR}/{kind}/blobs/sha256"
    return sum(entry.stat().st_size for entry in os.scandir(store))


def expect_charged(kind, what, *files):
    """A reader's control group is charged with what the files need of the disk."""
    with group(f"case-{kind}") as path:
        drop_caches()
        before = charged(ROOT)
        for file in files:
            finish(read_in(path, read_all, file))
        its, all_of_it = charged(path), charged(ROOT) - before
        print(f"{kind}, {what}: {its >> 10} KiB charged of {all_of_it >> 10} KiB read")
        check(all_of_it > bytes_stored(kind) * 9 // 10,
              f"{kind}, {what}: only {all_of_it} bytes were read from the disk")
        check(its >= all_of_it * 95 // 100,
              f"{kind}, {what}: {its} of {all_of_it} bytes are charged to the reader")


for kind, source in sources.items():
    for verify in ("none", "digest"):
        mnt = mount_image(source, options=f"ro,verify={verify}")
        expect_charged(kind, f"verify={verify}", f"{mnt}/large", f"{mnt}/text")
        unmount_image(mnt)

# A loop device reads for the control group of its own reader. The image is one file of an image.
mnt = mount_image(sources["raw"])
loop = run("losetup", "--find", "--show", "--read-only", f"{mnt}/large").strip()
try:
    with group("case-loop") as path:
        drop_caches()
        before = charged(ROOT)
        finish(read_in(path,
                       lambda: subprocess.run(["dd", f"if={loop}", "of=/dev/null", "bs=64K", "status=none"],
                                              check=True)))
        its, all_of_it = charged(path), charged(ROOT) - before
        print(f"loop: {its >> 10} KiB charged of {all_of_it >> 10} KiB read")
        check(all_of_it > SIZE * 9 // 10, f"loop: only {all_of_it} bytes were read from the disk")
        check(its >= all_of_it * 95 // 100, f"loop: {its} of {all_of_it} bytes are charged to the reader")
finally:
    run("losetup", "--detach", loop)

# io.max bounds the bytes that reach the disk, submitted by any task: never more than the rate allows in the
# time that has passed, and a first stretch that the kernel grants at once.
RATE = 2 * MEGABYTE
GRANTED = 2 * MEGABYTE
with group("case-max") as path:
    drop_caches()
    write_file(f"{path}/io.max", f"{DEVICE} rbps={RATE}".encode())
    before = charged(ROOT)
    began = time.monotonic()
    child = read_in(path, read_all, f"{mnt}/large")
    most = 0
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        done = charged(ROOT) - before
        # The clock is read after the count: a delay in between allows more, not less.
        allowed = RATE * (time.monotonic() - began) + GRANTED
        most = max(most, done)
        if done > allowed:
            end(child, "the reader")
            check(False, f"{done} bytes were read where io.max allows {allowed:.0f}")
        if most > 8 * MEGABYTE:
            end(child, "the reader")
            break
        check(time.monotonic() - began < 60, f"{most} bytes in 60 s")
        time.sleep(0.05)  # pace
    print(f"io.max: {most >> 10} KiB in {time.monotonic() - began:.1f} s")
    check(most > 4 * MEGABYTE, f"only {most} bytes were seen to be read")
unmount_image(mnt)
