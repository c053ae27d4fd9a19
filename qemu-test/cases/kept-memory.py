#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# The memory that a store keeps for its readers: a mount takes one workspace and no room for frames,
# reads take more as they need it, and memory reclaim gets all of it back except for a reserve of one
# workspace and, once a file was opened that may be compressed, room for one frame. Each file of format 4
# may be. Readers meanwhile get right contents.
#
# formats: 3 4
# timeout: 150
import os
import threading

from case import (CASE_DIR, FORMAT, build_image, check, drop_caches, equal, eventually, frames, in_threads,
                  meminfo, mount_image, seeded_random, shrink_slabs, unmount_image, write_file)

MEGABYTE = 1 << 20
# A workspace is a buffer of 1.1 MiB, for which the allocator may take a block of 2 MiB, and zstd's context.
WORKSPACE = 1 * MEGABYTE, 2.5 * MEGABYTE
FRAME = 1 * MEGABYTE
# What a store keeps after reads of a raw image.
RAW = WORKSPACE if FORMAT == 3 else (WORKSPACE[0] + FRAME, WORKSPACE[1] + FRAME)
# What else the kernel allocates and frees meanwhile.
NOISE = 0.7 * MEGABYTE


def buffers():
    """Bytes of kernel memory that are neither page cache nor reclaimable slabs."""
    drop_caches()
    shrink_slabs()
    # The counters of all processors are added up.
    write_file("/proc/sys/vm/stat_refresh", b"1")
    memory = meminfo()
    return memory["SUnreclaim"] + memory["VmallocUsed"]


def settled_buffers():
    """The same, when two readings agree: other cases have released memory that is freed later."""
    readings = [buffers()]

    def agree():
        readings.append(buffers())
        return abs(readings[-1] - readings[-2]) < NOISE / 4
    eventually(agree, "the memory of the kernel does not settle")
    return readings[-1]


def expect(before, what, least, most):
    # KASAN delays frees. In its kernel, kmemleak looks for leaks.
    if os.path.exists("/sys/kernel/debug/kmemleak"):
        return
    used = buffers() - before
    print(f"{what}: {used / MEGABYTE:.2f} MiB")
    check(least - NOISE <= used <= most + NOISE,
          f"{what}: {used / MEGABYTE:.2f} MiB, should be {least / MEGABYTE} to {most / MEGABYTE}")


def read(path):
    with open(path, "rb") as file:
        return file.read()


random = seeded_random()
# Each half of a block of 8 KiB compresses, the other does not.
contents = {f"file-{n}": b"".join(random.randbytes(4096) + bytes(4096) for _ in range(400)) for n in range(4)}
os.mkdir("src")
for name, data in contents.items():
    write_file(f"src/{name}", data)
raw = build_image("src", "--compress=0", store=f"{CASE_DIR}/raw")
zstd = build_image("src", "--compress", *frames("256K"), store=f"{CASE_DIR}/zstd")

# The first mount of all also sets up what stays until the module is unloaded.
mount_image(raw)
equal(read(f"{CASE_DIR}/mnt/file-0") == contents["file-0"], True, "the contents of file-0")
unmount_image()

before = settled_buffers()
mnt = mount_image(raw)
expect(before, "after a mount", *WORKSPACE)
for name, data in contents.items():
    equal(read(f"{mnt}/{name}") == data, True, f"the contents of {name}")
expect(before, "after reads of a raw image", *RAW)
unmount_image()

mnt = mount_image(zstd)
expect(before, "after a mount of a compressed image", *WORKSPACE)


def read_pages():
    """Reads pages here and there, which leaves frames half used."""
    own = __import__("random").Random(threading.get_native_id())
    files = {name: os.open(f"{mnt}/{name}", os.O_RDONLY) for name in contents}
    for _ in range(300):
        name = own.choice(list(files))
        at = own.randrange(len(contents[name]) // 4096) * 4096
        equal(os.pread(files[name], 4096, at) == contents[name][at:at + 4096], True,
              f"a page of {name} at {at}")
    for fd in files.values():
        os.close(fd)


done = threading.Event()


def reclaim():
    """Takes memory back as often as possible while others read."""
    while not done.wait(0.01):
        drop_caches()


reclaimer = threading.Thread(target=reclaim)
reclaimer.start()
try:
    in_threads(*[read_pages] * 4)
finally:
    done.set()
    reclaimer.join()
expect(before, "after reads of a compressed image", WORKSPACE[0] + FRAME, WORKSPACE[1] + FRAME)
for name, data in contents.items():
    equal(read(f"{mnt}/{name}") == data, True, f"the contents of {name}")
unmount_image()
expect(before, "after the last unmount", 0, 0)
