#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Faults while reads are in flight: the disk holds requests back, and answers none of them before the fault is
# there. One reader waits for a direct read, others for bytes that are prefetched for it. The disk has an
# error, the pack is truncated or replaced, readers are killed or frozen, memory is reclaimed, filesystems
# are frozen or unmounted, the module is unloaded. Each reader gets the right bytes or EIO, and the next one
# the right bytes.
#
# timeout: 300
# klog-allow: puzzlefs: image|I/O error
import contextlib
import errno
import os
import shutil
import signal
import subprocess

import devmapper
import mountapi
import packs
import tracing
from case import (CASE_DIR, PAGE, build_image, check, drop_caches, equal, eventually, in_memory,
                  in_system_call, is_mounted, mount_image, run, seeded_random, sha256, start, unmount_image,
                  write_file)

MODULE = "/payload/puzzlefs.ko"
MS_NOATIME = 1024
PREAD, UMOUNT, TRUNCATE = 17, 166, 76
EIO = 100 + errno.EIO

random = seeded_random()
words = [word.encode() for word in "chunk blob frame seek table inode extent folio".split()]
# In the order of the pack. Two are not more than is prefetched for a reader that begins. Those that are read
# while a fault occurs lie far from the ends of the pack, where the metadata is.
noise = {f"{number}": random.randbytes(random.randrange(45_000, 60_000)) for number in range(10, 50)}
text = {f"{number}": b" ".join(random.choices(words, k=30_000)) for number in range(10, 50)}
READ, CUT = ("30", "31", "32"), "36"
# For many readers, each of which moves forward through a pack: of several chunks.
STREAMS = 8
streams = {f"{number:02}": random.randbytes(3 << 20) for number in range(STREAMS)}

disk = devmapper.Disk(f"{CASE_DIR}/disk", 128)
# Nothing is written in the background.
run("mkfs.ext4", "-q", "-O", "^has_journal", "-E", "lazy_itable_init=0", disk.path)
below = f"{CASE_DIR}/below"
os.mkdir(below)
mountapi.mount(disk.path, below, flags=MS_NOATIME, fs_type="ext4")
STORE = f"{below}/store"
for name, contents in (("noise", noise), ("text", text), ("streams", streams)):
    os.mkdir(name)
    for file, data in contents.items():
        write_file(f"{name}/{file}", data)
images = {"noise": (build_image("noise", "--compress=0", tag="noise", store=STORE), noise),
          "text": (build_image("text", "--compress", tag="text", store=STORE), text),
          "streams": (build_image("streams", "--compress=0", tag="streams", store=STORE), streams)}
other = build_image("noise")
mnt, other_mnt = f"{CASE_DIR}/mnt", f"{CASE_DIR}/other"


def blobs():
    return [entry.path for entry in os.scandir(f"{STORE}/blobs/sha256")]


def drop_blobs():
    """No page of a blob is in memory afterwards, but the chunk index is: readers wait for chunks alone."""
    def are_dropped():
        drop_caches(1)
        for path in blobs():
            with open(path, "rb", buffering=0) as file:
                if in_memory(file.fileno()):
                    return False
        return True
    eventually(are_dropped, "pages of blobs stay in memory")
    for entry in os.scandir(f"{STORE}/.puzzlefs/chunks"):
        with open(entry.path, "rb") as file:
            file.read()


class Mount:
    """An image that is mounted, whose files are open and whose contents are on the disk alone."""

    def __init__(self, image, options):
        source, self.contents = images[image]
        self.what = f"{image}, {options}"
        mount_image(source, mnt, options=options)
        self.open()

    def open(self):
        self.files = {name: os.open(f"{mnt}/{name}", os.O_RDONLY) for name in self.contents}
        self.inodes = {name: os.fstat(file).st_ino for name, file in self.files.items()}
        drop_blobs()

    def close(self):
        for file in self.files.values():
            os.close(file)
        self.files = {}

    def read(self, name):
        """The bytes of a file, until its end or an error, which is returned too."""
        got = b""
        with contextlib.suppress(OSError):
            while more := os.pread(self.files[name], len(self.contents[name]), len(got)):
                got += more
            return got, 0
        try:
            os.pread(self.files[name], 1, len(got))
        except OSError as error:
            return got, error.errno
        return got, None

    def reader(self, name, group=None):
        """Starts a process that reads a file; its status is 0 if all is right, or 100 more than the error."""
        child = os.fork()
        if child:
            return child
        status = 1
        try:
            if group:
                write_file(f"{group}/cgroup.procs", str(os.getpid()).encode())
            got, number = self.read(name)
            if number:
                status = 100 + number if self.contents[name].startswith(got) else 2
            elif got == self.contents[name]:
                status = 0
        finally:
            os._exit(status)

    def readers(self, group=None):
        """The disk is stopped: one reader has a direct read in flight, and the two others wait for bytes that
        are being prefetched for the first."""
        disk.stop()
        tracing.begin()
        first, *others = READ
        children = [self.reader(first, group)]
        eventually(lambda: tracing.named(tracing.seen(), "prefetch") and in_system_call(children[0], PREAD),
                   f"{self.what}: nothing is prefetched for a reader that waits")
        children += [self.reader(name) for name in others]
        self.wait(children)
        return children

    def wait(self, children):
        eventually(lambda: all(in_system_call(child, PREAD) for child in children),
                   f"{self.what}: the readers do not wait for the disk")

    def check_all(self, when):
        """The next reads give the right bytes, from the disk."""
        drop_caches(1)
        for name, contents in self.contents.items():
            equal(self.read(name) == (contents, 0), True, f"{self.what}: {when}: the contents of {name}")

    def end(self):
        """It can be unmounted."""
        self.close()
        unmount_image(mnt)


def status_of(child, what):
    """How a process ends, which it does by itself."""
    ended = []

    def has_ended():
        gone, status = os.waitpid(child, os.WNOHANG)
        if gone:
            ended.append(os.waitstatus_to_exitcode(status))
        return gone
    eventually(has_ended, f"{what}: a process does not end")
    return ended[0]


def expect(children, *statuses):
    equal([status_of(child, "the readers") for child in children], list(statuses), "how the readers end")


def blocked(work, call, *arguments):
    """Starts a process that does something which waits for the disk."""
    child = start(work, *arguments)
    eventually(lambda: in_system_call(child, call), f"{work}: does not wait for the disk")
    return child


def write_now(path, value):
    """Writes to a file of the kernel's, in a process: this must not wait for the disk."""
    equal(status_of(start(write_file, path, value), path), 0, path)


def references():
    with open("/sys/module/puzzlefs/refcnt") as file:
        return int(file.read())


def unload():
    """Unloads the module, and loads it again."""
    eventually(lambda: references() == 0, "the module is still in use")
    run("rmmod", "puzzlefs")
    run("insmod", MODULE)


def check_other():
    """Another store can be used meanwhile."""
    def use():
        mount_image(other, other_mnt)
        for name, contents in noise.items():
            with open(f"{other_mnt}/{name}", "rb") as file:
                equal(file.read() == contents, True, f"{name} of another store")
        unmount_image(other_mnt)
    equal(status_of(start(use), "other stores"), 0, "another store is used")


@contextlib.contextmanager
def group(**limits):
    path = "/sys/fs/cgroup/in-flight"
    write_file("/sys/fs/cgroup/cgroup.subtree_control", b"+memory")
    os.mkdir(path)
    try:
        for key, value in limits.items():
            write_file(f"{path}/{key.replace('_', '.')}", value)
        yield path
    finally:
        write_file(f"{path}/cgroup.kill", b"1")

        def is_removed():
            with contextlib.suppress(OSError):
                os.rmdir(path)
            return not os.path.exists(path)
        eventually(is_removed, "the control group has tasks")


def events_of(path, name):
    with open(path) as file:
        return dict(line.split() for line in file)[name]


def place_of(name):
    """The pack with a file's last chunk, and the chunk's place in it."""
    extent = packs.extents_of(STORE, noise[name])[-1]
    return f"{STORE}/blobs/sha256/{extent.blob}", extent.offset, extent.length


def rename(old, new):
    """Renames a file on the disk, while that is stopped: all that is needed is in memory."""
    equal(status_of(start(os.rename, old, new), "a rename"), 0, "a rename")


# ---------------------------------------------------------------- the faults, and the files that have errors

def all_is_well(mount):
    children = mount.readers()
    disk.go_on()
    expect(children, 0, 0, 0)


def disk_fails(mount):
    """All that is in flight fails."""
    lost = [places for blob in blobs() for places in devmapper.ranges_of(blob)]
    children = mount.readers()
    disk.fail(lost)
    expect(children, EIO, EIO, EIO)
    disk.fail([])
    return READ


def one_block_fails(mount):
    """Of the second file. The third one was to be read by the same request."""
    pack, offset, length = place_of(READ[1])
    middle = (offset + length // 2) // PAGE * PAGE
    lost = list(devmapper.ranges_of(pack, middle, PAGE))
    drop_blobs()
    children = mount.readers()
    disk.fail(lost)
    expect(children, 0, EIO, 0)
    disk.fail([])
    return READ[1:2]


def pack_is_truncated(mount):
    """Behind what is in flight: the truncation waits for that."""
    pack, offset, length = place_of(CUT)
    with open(pack, "rb") as file:
        whole = file.read()
    drop_blobs()
    children = mount.readers()
    cut = blocked(os.truncate, TRUNCATE, pack, offset + length // 2)
    disk.go_on()
    expect(children, 0, 0, 0)
    equal(status_of(cut, "truncation"), 0, "truncation")
    drop_caches(1)
    got, number = mount.read(CUT)
    equal((noise[CUT].startswith(got), number), (True, errno.EIO), "a file whose chunk is cut")
    got, number = mount.read(READ[2])
    equal((got == noise[READ[2]], number), (True, 0), "a file before that")
    with open(pack, "r+b") as file:
        file.write(whole)
    return [CUT]


def pack_is_replaced(mount):
    pack, *_ = place_of(READ[2])
    shutil.copyfile(pack, f"{pack}.kept")
    write_file(f"{pack}.new", bytes(os.path.getsize(pack)))
    drop_blobs()
    os.rename(f"{pack}.new", f"{pack}.newer")
    os.stat(pack)
    children = mount.readers()
    rename(f"{pack}.newer", pack)
    disk.go_on()
    expect(children, 0, 0, 0)
    os.rename(f"{pack}.kept", pack)


def store_is_gone(mount):
    os.rename(STORE, f"{STORE}.gone")
    os.rename(f"{STORE}.gone", STORE)
    children = mount.readers()
    rename(STORE, f"{STORE}.gone")
    disk.go_on()
    expect(children, 0, 0, 0)
    mount.check_all("the store is gone")
    os.rename(f"{STORE}.gone", STORE)


def waiting_readers_are_killed(mount):
    """The one that waits for prefetched bytes, then the one for which they are prefetched."""
    first, second, third = mount.readers()
    for reader in second, first:
        os.kill(reader, signal.SIGKILL)
        equal(status_of(reader, "a killed reader"), -signal.SIGKILL, "how a killed reader ends")
    # They wait for the same bytes.
    others = [mount.reader(name) for name in READ]
    mount.wait([third, *others])
    disk.go_on()
    expect([third, *others], 0, 0, 0, 0)


def caches_are_dropped(mount):
    children = mount.readers()
    write_now("/proc/sys/vm/drop_caches", b"3")
    disk.go_on()
    write_now("/proc/sys/vm/drop_caches", b"3")
    expect(children, 0, 0, 0)


def lower_filesystem_is_frozen(mount):
    # It has something to write.
    write_file(f"{below}/dirty", bytes(PAGE))
    children = mount.readers()
    freeze = start(run, "fsfreeze", "--freeze", below)
    disk.go_on()
    equal(status_of(freeze, "fsfreeze"), 0, "fsfreeze")
    try:
        expect(children, 0, 0, 0)
        write_file("/proc/sys/vm/drop_caches", b"1")
        for name, contents in mount.contents.items():
            equal(mount.read(name) == (contents, 0), True, f"{name} of a frozen filesystem")
    finally:
        run("fsfreeze", "--unfreeze", below)


def reader_is_frozen(mount):
    """It ends its read first: others wait for the same pages."""
    with group() as path:
        first, *others = mount.readers(path)
        write_now(f"{path}/cgroup.freeze", b"1")
        others.append(mount.reader(READ[0]))
        mount.wait([first, *others])
        disk.go_on()
        expect(others, 0, 0, 0)
        eventually(lambda: events_of(f"{path}/cgroup.events", "frozen") == "1", "the reader is not frozen")
        equal(os.waitpid(first, os.WNOHANG)[0], 0, "the frozen reader has ended")
        write_file(f"{path}/cgroup.freeze", b"0")
        expect([first], 0)


def is_busy_and_unmounted_lazily(mount):
    children = mount.readers()
    refused = start(run, "umount", mnt)
    check(status_of(refused, "umount") != 0, "a busy image is unmounted")
    check(status_of(start(run, "rmmod", "puzzlefs"), "rmmod") != 0, "the module of a mount is unloaded")
    lazily = start(mountapi.umount, mnt, mountapi.MNT_DETACH)
    equal(status_of(lazily, "umount --lazy"), 0, "umount --lazy")
    check(not is_mounted(mnt), "it is still mounted")
    check(status_of(start(run, "rmmod", "puzzlefs"), "rmmod") != 0, "the module of readers is unloaded")
    disk.go_on()
    expect(children, 0, 0, 0)
    mount.check_all("unmounted lazily")
    mount.close()
    tracing.end()
    unload()
    mount_image(images["noise"][0], mnt)
    mount.open()


def is_unmounted(mount):
    """Nobody waits for what is in flight: the readers were killed."""
    children = mount.readers()
    for child in children:
        os.kill(child, signal.SIGKILL)
    expect(children, *[-signal.SIGKILL] * 3)
    unmount_in_flight(mount)


def is_unmounted_during_readahead(mount):
    """The work queue of the store reads, because a reader must not wait."""
    disk.stop()
    fd = mount.files[READ[0]]
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    try:
        os.preadv(fd, [bytearray(PAGE)], 0, os.RWF_NOWAIT)
        check(False, "a read that must not wait has read from a disk that is stopped")
    except BlockingIOError:
        pass
    unmount_in_flight(mount)


def unmount_in_flight(mount):
    mount.close()
    unmounting = start(mountapi.umount, mnt)
    eventually(lambda: not is_mounted(mnt) and in_system_call(unmounting, UMOUNT), "umount does not wait")
    check(status_of(start(run, "rmmod", "puzzlefs"), "rmmod") != 0, "the module is unloaded")
    check_other()
    check(in_system_call(unmounting, UMOUNT), "umount does not wait for what is in flight")
    disk.go_on()
    equal(status_of(unmounting, "umount"), 0, "umount")
    tracing.end()
    unload()
    mount_image(images["noise"][0], mnt)
    mount.open()


tracing.make_instance()
everywhere = (all_is_well, disk_fails, store_is_gone, waiting_readers_are_killed, caches_are_dropped,
              lower_filesystem_is_frozen, reader_is_frozen)
of_noise = (one_block_fails, pack_is_truncated, pack_is_replaced)
last = (is_busy_and_unmounted_lazily, is_unmounted, is_unmounted_during_readahead)
for image, options, faults in (("noise", "verify=none", everywhere + of_noise + last),
                               ("noise", "verify=digest", everywhere + of_noise),
                               ("text", "verify=digest", everywhere)):
    for fault in faults:
        print(f"{image}, {options}: {fault.__name__}")
        mount = Mount(image, options)
        try:
            failing = fault(mount) or []
        finally:
            disk.go_on()
        tracing.end()
        equal({event.ino for event in tracing.named(tracing.seen(), "error")},
              {mount.inodes[name] for name in failing}, f"{mount.what}: the files that have errors")
        mount.check_all(fault.__name__)
        mount.end()
os.rmdir(tracing.INSTANCE)

# Several readers whose memory is limited, each of which moves forward through a pack; then the same, while
# all is reclaimed again and again.
wanted = {name: sha256(f"streams/{name}") for name in streams}


def read_with_little_memory(drops):
    with group(memory_max=b"16M") as path:
        disk.stop()
        readers = [subprocess.Popen(["sh", "-c", 'echo $$ >"$0"/cgroup.procs && exec sha256sum "$1"', path,
                                     f"{mnt}/{name}"], stdout=subprocess.PIPE) for name in streams]
        disk.go_on()
        while drops and any(reader.poll() is None for reader in readers):
            write_file("/proc/sys/vm/drop_caches", b"3")
        equal({name: reader.communicate()[0].split()[:1] for name, reader in zip(streams, readers)},
              {name: [digest.encode()] for name, digest in wanted.items()}, "what the readers read")
        equal(events_of(f"{path}/memory.events", "oom_kill"), "0", "readers killed for memory")
        check(drops or int(events_of(f"{path}/memory.events", "max")) > 0, "the limit was never reached")


for options in ("verify=none", "verify=digest"):
    for drops in (False, True):
        mount = Mount("streams", options)
        read_with_little_memory(drops)
        mount.check_all("with little memory")
        mount.end()
mountapi.umount(below)
disk.remove()
