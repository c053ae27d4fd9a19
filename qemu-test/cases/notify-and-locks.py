#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# What any filesystem has from the VFS works here too: inotify, fanotify, flock, POSIX and open file
# description locks, leases, poll.
#
# formats: 3 4
# timeout: 40
import ctypes
import errno
import fcntl
import os
import select
import signal
import struct

from case import build_image, check, equal, mount_image, refused, write_file

os.makedirs("src/directory")
write_file("src/file", b"contents")
write_file("src/directory/other", b"contents")
mnt = mount_image(build_image("src"))
libc = ctypes.CDLL(None, use_errno=True)
F_GETDELEG, F_SETDELEG = 1039, 1040


def call(name, *arguments):
    result = getattr(libc, name)(*arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def read(path):
    with open(path, "rb") as file:
        return file.read()


# inotify sees what is done with a file and in a directory.
ACCESS, CLOSE_NOWRITE, OPEN = 1, 0x10, 0x20
watcher = call("inotify_init1", os.O_NONBLOCK | os.O_CLOEXEC)
on_file = call("inotify_add_watch", watcher, os.fsencode(f"{mnt}/file"), ACCESS | OPEN | CLOSE_NOWRITE)
on_directory = call("inotify_add_watch", watcher, os.fsencode(f"{mnt}/directory"),
                    ACCESS | OPEN | CLOSE_NOWRITE)
read(f"{mnt}/file")
read(f"{mnt}/directory/other")
events, data = [], os.read(watcher, 8192)
while data:
    watch, mask, _, length = struct.unpack_from("<iIII", data)
    events.append((watch, mask, data[16:16 + length].rstrip(b"\0")))
    data = data[16 + length:]
for mask in (OPEN, ACCESS, CLOSE_NOWRITE):
    check((on_file, mask, b"") in events, f"inotify of a file: no event {mask:#x} in {events}")
    check((on_directory, mask, b"other") in events, f"inotify of a directory: no event {mask:#x} in {events}")
os.close(watcher)

# fanotify, for the whole mount.
try:
    listener = call("fanotify_init", 0x2, os.O_RDONLY)
    call("fanotify_mark", listener, 0x10 | 0x1, ctypes.c_uint64(0x20), -100, os.fsencode(mnt))
    read(f"{mnt}/directory/other")
    event = os.read(listener, 4096)
    mask, fd, pid = struct.unpack_from("<Qii", event, 8)
    equal((mask, pid, os.readlink(f"/proc/self/fd/{fd}")), (0x20, os.getpid(), f"{mnt}/directory/other"),
          "fanotify's event")
    os.close(fd)
    os.close(listener)
except OSError as error:
    check(error.errno in (errno.ENOSYS, errno.EPERM), f"fanotify: {error}")

# flock(2): shared by two, exclusive for one.
one, two = os.open(f"{mnt}/file", os.O_RDONLY), os.open(f"{mnt}/file", os.O_RDONLY)
fcntl.flock(one, fcntl.LOCK_SH | fcntl.LOCK_NB)
fcntl.flock(two, fcntl.LOCK_SH | fcntl.LOCK_NB)
with refused(errno.EAGAIN, "an exclusive flock beside a shared one"):
    fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
# An attempt to convert may cost the lock that there was.
fcntl.flock(two, fcntl.LOCK_UN)
fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
with refused(errno.EAGAIN, "a shared flock beside an exclusive one"):
    fcntl.flock(two, fcntl.LOCK_SH | fcntl.LOCK_NB)
fcntl.flock(one, fcntl.LOCK_UN)

# POSIX locks, and those of an open file description: to read; a lock to write takes a descriptor to write.
for what, command in (("POSIX", fcntl.F_SETLK), ("open file description", 37)):
    def lock(fd, kind, command=command):
        fcntl.fcntl(fd, command, struct.pack("hhlli4x", kind, 0, 0, 0, 0))
    lock(one, fcntl.F_RDLCK)
    lock(two, fcntl.F_RDLCK)
    with refused(errno.EBADF, f"a {what} lock to write"):
        lock(one, fcntl.F_WRLCK)
    lock(one, fcntl.F_UNLCK)
    lock(two, fcntl.F_UNLCK)

# Leases: to read by any number, to write by the only one who has the file open.
for fd in (one, two):
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    equal(fcntl.fcntl(fd, fcntl.F_GETLEASE), fcntl.F_RDLCK, "the lease to read")
with refused(errno.EAGAIN, "a lease to write of a file that is open twice"):
    fcntl.fcntl(one, fcntl.F_SETLEASE, fcntl.F_WRLCK)
fcntl.fcntl(two, fcntl.F_SETLEASE, fcntl.F_UNLCK)
os.close(two)
fcntl.fcntl(one, fcntl.F_SETLEASE, fcntl.F_UNLCK)
fcntl.fcntl(one, fcntl.F_SETLEASE, fcntl.F_WRLCK)
equal(fcntl.fcntl(one, fcntl.F_GETLEASE), fcntl.F_WRLCK, "the lease to write")
# Who opens the file breaks it: its holder gets a signal.
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGIO])
with refused(errno.EWOULDBLOCK, "an open that does not wait for the lease"):
    os.open(f"{mnt}/file", os.O_RDONLY | os.O_NONBLOCK)
check(signal.sigtimedwait([signal.SIGIO], 5), "no signal to the lease's holder")
fcntl.fcntl(one, fcntl.F_SETLEASE, fcntl.F_UNLCK)
os.close(os.open(f"{mnt}/file", os.O_RDONLY | os.O_NONBLOCK))

# Delegations of a directory, as an NFS server takes them (F_SETDELEG, F_GETDELEG).
directory = os.open(f"{mnt}/directory", os.O_RDONLY | os.O_DIRECTORY)
fcntl.fcntl(directory, F_SETDELEG, struct.pack("IHH", 0, fcntl.F_RDLCK, 0))
equal(struct.unpack("IHH", fcntl.fcntl(directory, F_GETDELEG, bytes(8)))[1], fcntl.F_RDLCK, "the delegation")
fcntl.fcntl(directory, F_SETDELEG, struct.pack("IHH", 0, fcntl.F_UNLCK, 0))
os.close(directory)

# poll.
poll = select.poll()
poll.register(one, select.POLLIN)
equal(poll.poll(0), [(one, select.POLLIN)], "poll")
os.close(one)
