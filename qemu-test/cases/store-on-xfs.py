#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# A store on XFS, where whoever reads a file or asks where it is on the disk has its lock meanwhile:
# a blob is read, and asked for, into memory that is mapped from the file whose blob it is, while
# others change the blob's attributes. If the page that is missing there were read with the lock of
# the blob, all would wait for ever. Nobody does, and what is read is right.
#
# timeout: 60
import ctypes
import mmap
import os
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from case import (CASE_DIR, build_image, check, drop_caches, end, equal, mount_image, run,  # noqa: E402
                  seeded_random, start, turns, unmount_image, write_file)

PAGE = mmap.PAGESIZE
LEN = 2 * PAGE
FS_IOC_FIEMAP = 0xC020660B
FIEMAP = struct.Struct("QQIIII")
TURNS = 60
STUCK = 5  # seconds
CHANGERS = 3

contents = seeded_random().randbytes(LEN // 2).hex().encode()
os.mkdir("src")
write_file("src/file", contents)
run("truncate", "-s", "320M", "disk.img")
run("mkfs.xfs", "-q", "disk.img")
os.mkdir("disk")
run("mount", "-o", "loop", "disk.img", "disk")
libc = ctypes.CDLL(None, use_errno=True)


def second_page():
    """A turn's beginning, and the address of a page of the file that is not there after it."""
    with open(f"{mnt}/file", "rb") as file:
        view = mmap.mmap(file.fileno(), LEN, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)

    def begin():
        view.madvise(mmap.MADV_DONTNEED)
        # What goes to the first page is there before the second is needed.
        FIEMAP.pack_into(view, PAGE - FIEMAP.size, 0, LEN, 0, 0, 1, 0)
        write_file("/proc/sys/vm/drop_caches", b"1")
    return begin, ctypes.addressof(ctypes.c_char.from_buffer(view)) + PAGE


def read_into_map():
    begin, address = second_page()
    file = os.open(blob, os.O_RDONLY)

    def turn():
        begin()
        equal(libc.pread(file, ctypes.c_void_p(address), PAGE, 0), PAGE, "the blob is read")
        equal(ctypes.string_at(address, PAGE), contents[:PAGE], "what was read")
    return turn


def ask_into_map():
    begin, address = second_page()
    file = os.open(blob, os.O_RDONLY)

    def turn():
        begin()
        header = ctypes.c_void_p(address - FIEMAP.size)
        equal(libc.ioctl(file, ctypes.c_ulong(FS_IOC_FIEMAP), header), 0, "where the blob is")
    return turn


def change():
    file = os.open(blob, os.O_RDONLY)
    while True:
        os.fchmod(file, 0o644)


for options in [], ["-z"]:
    store = f"{CASE_DIR}/disk/store{len(options)}"
    mnt = mount_image(build_image("src", *options, store=store))
    blob = max((entry.path for entry in os.scandir(f"{store}/blobs/sha256")), key=os.path.getsize)
    changers = [start(change) for _ in range(CHANGERS)]
    for work in [read_into_map] * (not options) + [ask_into_map]:
        child, count = turns(work, TURNS, STUCK)
        end(child, work.__name__)
        check(count >= TURNS, f"{work.__name__} goes on after {count} turns")
    for changer in changers:
        end(changer, "whoever changes the blob")
    drop_caches()
    with open(f"{mnt}/file", "rb") as file:
        equal(file.read(), contents, "the file")
    unmount_image()
run("umount", "disk")
