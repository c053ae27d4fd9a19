#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# What follows in a pack is prefetched across files: a reader of all files in their order causes few and
# large requests, and no byte is read twice; a reader of few files far from each other causes few bytes.
# What was prefetched can be read while the disk hangs. A range of the disk that cannot be read costs the
# pages that need it and no others. Reclaim frees what was prefetched.
#
# timeout: 240
# klog-allow: puzzlefs: image|I/O error
import contextlib
import errno
import os

import devmapper
import mountapi
import packs
from case import (CASE_DIR, PAGE, build_image, check, drop_caches, ends_well, equal, eventually,
                  in_system_call, mount_image, seeded_random, start, unmount_image, write_file)

FILES = 300
SYS_READ = 0

random = seeded_random()
# Each has a chunk of its own.
contents = {f"{number:03}": random.randbytes(random.randrange(33_000, 60_000)) for number in range(FILES)}
os.mkdir("src")
for name, content in contents.items():
    write_file(f"src/{name}", content)

with devmapper.filled("store") as disk:
    source = build_image("src", "--compress=0")
size = sum(map(len, contents.values()))


def read_all(names, options):
    """The requests and bytes of a reader of these files, whose caches are empty."""
    mnt = mount_image(source, options=options)
    drop_caches()
    before = disk.reads()
    for name in names:
        with open(f"{mnt}/{name}", "rb") as file:
            equal(file.read() == contents[name], True, f"the contents of {name}")
    after = disk.reads()
    unmount_image()
    return [new - old for new, old in zip(after, before)]


for options in ("ro", "ro,verify=digest"):
    count, read = read_all(contents, options)
    # Of a file at least one, if each is read when it is needed.
    check(count < FILES / 2, f"{options}: {count} requests for {FILES} files in order")
    check(read < 1.1 * size + (1 << 20), f"{options}: {read} bytes of {size} were read")
    # Far from each other, and not in their order: after a while nothing is read for nothing.
    names = [name for name in list(contents)[::9]]
    random.shuffle(names)
    count, read = read_all(names, options)
    wanted = sum(len(contents[name]) for name in names)
    check(read < 4 * wanted + (1 << 20), f"{options}: {read} bytes for {wanted}")


def is_whole(name, file):
    equal(file.read() == contents[name], True, f"the contents of {name}")


# What was prefetched can be read although the disk hangs and other readers hold all workspaces.
mnt = mount_image(source)
names = list(contents)
for name in names:
    os.stat(f"{mnt}/{name}")
drop_caches(1)
with contextlib.ExitStack() as stack:
    files = {name: stack.enter_context(open(f"{mnt}/{name}", "rb", buffering=0)) for name in names}
    read, following, far = names[:FILES // 2], names[FILES // 2], names[-20:]
    for name in read:
        is_whole(name, files[name])
    disk.idle()
    with disk.stopped():
        others = [start(is_whole, name, files[name]) for name in far]
        for child in others:
            eventually(lambda child=child: in_system_call(child, SYS_READ), "a disk that hangs is read")
        ends_well(start(is_whole, following, files[following]), "a reader of what was prefetched")
    for child in others:
        ends_well(child, "a reader of a disk that goes on")
unmount_image()


def places_on_disk(name):
    """The ranges of the disk that have a file's chunks."""
    for extent in packs.extents_of(f"{CASE_DIR}/store", contents[name]):
        path = f"{CASE_DIR}/store/blobs/sha256/{extent.blob}"
        yield from devmapper.ranges_of(path, extent.offset, extent.length)


def sectors(name):
    """The sectors of the disk that have a file's chunks."""
    return {sector for start, end in places_on_disk(name) for sector in range(start // 512, -(-end // 512))}


# A sector that two files share is lost for both.
bad = [list(contents)[number] for number in (FILES // 4, FILES // 2)]
lost = {sector for name in bad for sector in sectors(name)}
affected = {name for name in contents if sectors(name) & lost}
check(len(affected) <= 3 * len(bad), f"{affected} share sectors with {bad}")
for options in ("ro", "ro,verify=digest"):
    mnt = mount_image(source, options=options)
    drop_caches()
    os.listdir(mnt)
    disk.fail([(sector * 512, (sector + 1) * 512) for sector in sorted(lost)])
    for name, content in contents.items():
        with open(f"{mnt}/{name}", "rb", buffering=0) as file:
            for at in range(0, len(content), PAGE):
                try:
                    got = os.pread(file.fileno(), PAGE, at)
                except OSError as error:
                    check(error.errno == errno.EIO and name in affected, f"{name}: {at}: {error}")
                else:
                    check(name not in bad, f"{name}: {at} can be read")
                    check(got == content[at:at + PAGE], f"{name}: {at} differs")
    disk.fail([])
    for name, content in contents.items():
        with open(f"{mnt}/{name}", "rb") as file:
            equal(file.read() == content, True, f"the contents of {name} on a disk that is well again")
    unmount_image()

mountapi.umount("store")
disk.remove()
