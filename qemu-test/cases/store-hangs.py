#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# The disk of a store does not answer, while many read from it: images of other stores are read,
# mounted and unmounted all the same. Each reader can be killed, whatever signal came before, also one that
# has a request at the disk. A reader with RWF_NOWAIT does not wait, however much readahead is due. When the
# disk answers again all is right.
#
# formats: 3 4
# timeout: 90
import os
import signal

import devmapper
import mountapi
from case import (CASE_DIR, PAGE, build_image, check, drop_caches, equal, eventually, in_system_call,
                  is_pending, mount_image, run, seeded_random, start, unmount_image, write_file)

READERS = 40
READS = 17, 257  # pread64, openat
# Each is work for the queue; the kernel does 1024 pieces of one queue's at once (WQ_DFL_ACTIVE).
PAGES = 1024 + 64

words = [word.encode() for word in "chunk blob frame seek table inode extent folio".split()]
random = seeded_random()
# Of such a size that each file has blobs of its own.
files = {f"{number}": b" ".join(random.choices(words, k=60_000)) for number in range(READERS)}
os.mkdir("src")
for name, contents in files.items():
    write_file(f"src/{name}", contents)
write_file("src/pages", random.randbytes(PAGES * PAGE))

disk = devmapper.Disk(f"{CASE_DIR}/disk", 64)
run("mkfs.ext4", "-q", "-O", "^has_journal", disk.path)
os.mkdir("slow")
mountapi.mount(disk.path, "slow", flags=0, fs_type="ext4")
slow = mount_image(build_image("src", "--compress", store=f"{CASE_DIR}/slow/store"), f"{CASE_DIR}/slow.mnt")
image = build_image("src", "--compress")
mnt, again = mount_image(image), f"{CASE_DIR}/again"


def check_files(directory):
    for name, contents in files.items():
        with open(f"{directory}/{name}", "rb") as file:
            equal(file.read() == contents, True, f"{directory}/{name}")


def read_slow(name):
    signal.signal(signal.SIGUSR1, lambda *_: None)
    fd = os.open(f"{slow}/{name}", os.O_RDONLY) if name in unopened else opened[name]
    contents = files[name]
    equal(b"".join(os.pread(fd, PAGE, at) for at in range(0, len(contents), PAGE)) == contents, True,
          f"the file {name} of the slow store")


def read_at_once(fd, page=0):
    """Whether a page could be read without waiting; it is read ahead otherwise, alone."""
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    try:
        return os.preadv(fd, [bytearray(PAGE)], page * PAGE, os.RWF_NOWAIT) == PAGE
    except BlockingIOError:
        return False


def do_not_wait(pages):
    for page in range(pages):
        equal(read_at_once(opened["pages"], page), False, "what is on the slow disk is read")


def read_others():
    check_files(mnt)
    check_files(mount_image(image, again, options="ro,verify=digest"))
    unmount_image(again)


def reap(children):
    """Removes those who are gone, and gives how they ended."""
    ends = {}
    for child in list(children):
        gone, status = os.waitpid(child, os.WNOHANG)
        if gone:
            children.remove(child)
            ends[child] = os.waitstatus_to_exitcode(status)
    return ends


def left(children):
    reap(children)
    return len(children)


def all_gone(children):
    for status in reap(children).values():
        equal(status, 0, "what was read")
    return not children


# Blobs stay open, for to open them the disk is needed, too; of what was read nothing stays.
check_files(slow)
check_files(mnt)
drop_caches(1)
# To open a file, the chunk index is read: a process that has it open does not wait. A quarter opens it then.
opened = {name: os.open(f"{slow}/{name}", os.O_RDONLY) for name in (*files, "pages")}
unopened = set(list(files)[::4])
unread = os.open(f"{mnt}/pages", os.O_RDONLY)
drop_caches(1)
disk.stop()
try:
    impatient = [start(do_not_wait, 1)]
    eventually(lambda: all_gone(impatient), "who must not wait does")
    readers = [start(read_slow, name) for name in files]
    eventually(lambda: all(any(in_system_call(reader, call) for call in READS) for reader in readers),
               "the readers do not wait for the disk that does not answer")
    equal(reap(readers), {}, "those who do not wait for the disk that does not answer")
    others = [start(read_others)]
    eventually(lambda: all_gone(others), "other stores are not used meanwhile")
    killed, readers = readers[::2], readers[1::2]
    # A handler is not run until the read is done.
    for reader in killed:
        os.kill(reader, signal.SIGUSR1)
    check(all(is_pending(reader, signal.SIGUSR1) for reader in killed), "a read is interrupted by a handler")
    for reader in killed:
        os.kill(reader, signal.SIGKILL)
    eventually(lambda: left(killed) == 0, "those who are killed do not go")
    impatient = [start(do_not_wait, PAGES)]
    eventually(lambda: all_gone(impatient), "who must not wait does")
    # Of a file that nobody has read yet.
    eventually(lambda: read_at_once(unread), "nothing is read ahead of other stores")
    others = [start(read_others)]
    eventually(lambda: all_gone(others), "other stores are not used meanwhile")
finally:
    disk.go_on()
eventually(lambda: all_gone(readers), "the readers are not done")
for fd in unread, *opened.values():
    os.close(fd)
check_files(slow)
for directory in (slow, mnt):
    unmount_image(directory)
mountapi.umount("slow")
disk.remove()
