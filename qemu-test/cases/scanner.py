#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# A virus scanner (fanotify permission events) watches an image and its store. It reads each file
# that is opened or accessed, or denies every file of the store. No reader of the image hangs, no
# reader gets an error, and a read of the image sends no event for a file of the store.
#
# timeout: 300
import ctypes
import itertools
import mmap
import os
import select
import signal
import stat
import struct

from case import (CASE_DIR, build_image, check, drop_caches, equal, fail, metric, mount_image, run,
                  seeded_random, start, unmount_image, write_file)

DEADLINE = 20  # seconds
CLASS_CONTENT = 0x4
ADD, ADD_MOUNT, ADD_FILESYSTEM = 0x1, 0x11, 0x101
OPEN_PERM, ACCESS_PERM, OPEN_EXEC_PERM = 0x10000, 0x20000, 0x40000
ALL_PERM = OPEN_PERM | ACCESS_PERM | OPEN_EXEC_PERM
ON_CHILD, ON_DIRECTORY = 0x8000000, 0x40000000
ALLOW, DENY = 1, 2
EVENT = struct.Struct("<IBBHQii")
RESPONSE = struct.Struct("<iI")
AT_FDCWD = -100

libc = ctypes.CDLL(None, use_errno=True)
STORE = f"{CASE_DIR}/store"
FILES = {"raw": ("one/f", "one/g", "one/h"), "text": ("one/text",)}


def call(name, *arguments):
    result = getattr(libc, name)(*arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def tree(*roots):
    """All directories and regular files below these."""
    for root in roots:
        for directory, _, files in os.walk(root):
            yield directory
            yield from (f"{directory}/{name}" for name in files)


class Listener:
    """A process that answers fanotify's permission events, and writes down which there were."""

    def __init__(self, how, mask, roots, deny):
        self.log = os.memfd_create("events")
        self.deny = deny
        marked = tree(*roots) if how == ADD else roots
        self.group = call("fanotify_init", CLASS_CONTENT, os.O_RDONLY | os.O_LARGEFILE)
        # The child answers for the opens of this process, which come after the marks.
        paths = [os.fsencode(path) for path in marked]
        mask |= ON_DIRECTORY | (0 if how == ADD_MOUNT or how == ADD_FILESYSTEM else ON_CHILD)
        for path in paths:
            call("fanotify_mark", self.group, how, ctypes.c_uint64(mask), AT_FDCWD, path)
        self.child = start(self.answer)
        os.close(self.group)

    def answer(self):
        signal.alarm(10 * DEADLINE)
        while True:
            events = os.read(self.group, 4096)
            while events:
                length, _, _, _, mask, fd, _ = EVENT.unpack_from(events)
                events = events[length:]
                path = os.readlink(f"/proc/self/fd/{fd}")
                os.write(self.log, f"{mask:#x} {path}\n".encode())
                denied = self.deny and path.startswith(f"{STORE}/")
                if not denied and stat.S_ISREG(os.fstat(fd).st_mode):
                    at = 0
                    while more := len(os.pread(fd, 1 << 16, at)):
                        at += more
                os.write(self.group, RESPONSE.pack(fd, DENY if denied else ALLOW))
                os.close(fd)

    def stop(self):
        """Ends the process; gives the paths of the events. Pending events are allowed by its end."""
        os.kill(self.child, signal.SIGKILL)
        ended(self.child, "the listener, killed")
        size = os.lseek(self.log, 0, os.SEEK_END)
        events = os.pread(self.log, size, 0).decode().splitlines()
        os.close(self.log)
        return [event.split(" ", 1)[1] for event in events]


def ended(child, who):
    """Waits for a child process, until the deadline; gives its status."""
    fd = os.pidfd_open(child)
    done = select.select([fd], [], [], DEADLINE)[0]
    os.close(fd)
    if not done:
        with open(f"/proc/{child}/stack") as stack:
            where = stack.read()
        fail(f"{who} still waits after {DEADLINE} s: {where}")
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def read_all(root, names):
    """Reads files by read(2) and by a map, and lists their directory."""
    for name in names:
        with open(f"{root}/{name}", "rb") as file:
            check(file.read() == contents[name], name)
        drop_caches(1)
        with open(f"{root}/{name}", "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as view:
            check(view[:] == contents[name], f"{name}, mapped")
    check(set(names) <= {f"one/{entry}" for entry in os.listdir(f"{root}/one")}, "the names")


def watched(what, how, mask, deny, roots, work, *arguments):
    """Has a child process do something while a listener watches; gives the paths of its events."""
    drop_caches()
    listener = Listener(how, mask, roots, deny)
    child = start(work, *arguments)
    try:
        status = ended(child, f"{what}: the reader")
    finally:
        events = listener.stop()
    equal(status, 0, f"{what}: the reader's exit status")
    return events


def of_store(events):
    return sorted({path for path in events if path.startswith(f"{STORE}/")})


random = seeded_random()
os.makedirs("src/one")
contents = {}
for number, name in enumerate(FILES["raw"]):
    contents[name] = random.randbytes(300_000 + number)
contents["one/text"] = b"".join(b"%d\n" % number for number in range(100_000))
for name, data in contents.items():
    write_file(f"src/{name}", data)
for tag, options in ("raw", ("--compress=0",)), ("zstd", ("--compress",)):
    build_image("src", *options, tag=tag)
run("puzzlefs", "enable-verity", STORE)
# A mount of its own, so that a mark on the mount is one on the store alone.
run("mount", "--bind", STORE, STORE)
for directory in "upper", "work", "merged":
    os.mkdir(directory)

HOWS = {"mount": ADD_MOUNT, "filesystem": ADD_FILESYSTEM, "inode": ADD}
count = 0
for tag, verify in itertools.product(("raw", "zstd"), ("none", "digest", "fsverity")):
    mnt = mount_image(f"{STORE}:{tag}", options=f"ro,verify={verify}")
    run("mount", "-t", "overlay", "overlay", "-o", f"lowerdir={mnt},upperdir=upper,workdir=work", "merged")
    masks = {"all": ALL_PERM}
    if verify == "none" and tag == "raw":
        masks |= {"open": OPEN_PERM, "access": ACCESS_PERM}
    for (mask_name, mask), (how_name, how), deny in itertools.product(masks.items(), HOWS.items(),
                                                                      (False, True)):
        where = "merged" if mask_name == "all" and deny else mnt
        name = f"{tag}, verify={verify}, {mask_name} events by {how_name}, {'denied' if deny else 'scanned'}"
        events = watched(name, how, mask, deny, (mnt, STORE), read_all, where, contents)
        equal(of_store(events), [], f"{name}: events for files of the store")
        check(where == "merged" or any(path.startswith(f"{mnt}/") for path in events),
              f"{name}: no event for the image")
        count += 1
    run("umount", "merged")
    unmount_image()
metric("scanner_runs", count)

# The kernel's part of a mount sends no event: a listener that denies the whole store does not see it.
rootfs = run("puzzlefs", "resolve", f"{STORE}:raw").strip()
mnt = f"{CASE_DIR}/mnt"
command = "mount", "-i", "-t", "puzzlefs", "-o", f"rootfs={rootfs}", STORE, mnt
events = watched("a mount by digest", ADD_FILESYSTEM, ALL_PERM, True, (STORE,), run, *command)
equal(of_store(events), [], "events of a mount by digest")
unmount_image()
# mount.puzzlefs reads the index and the manifest as the process that mounts, with events.
command = "mount", "-t", "puzzlefs", f"{STORE}:raw", mnt
events = of_store(watched("a mount by tag", ADD_FILESYSTEM, ALL_PERM, False, (STORE,), run, *command))
unmount_image()
check(f"{STORE}/index.json" in events, f"no event for the index in {events}")
check(f"{STORE}/blobs/sha256/{rootfs}" not in events, "an event for the metadata")
metric("scanner_mount_events", len(events))
print("\n".join(["Events of a mount by tag:", *events]))
run("umount", STORE)
