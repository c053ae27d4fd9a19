#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Everything that writes is refused with EROFS, and afterwards the tree is what it was.
#
# formats: 3 4
# timeout: 60
# klog-allow: puzzlefs: the filesystem is read-only
import ctypes
import errno
import fcntl
import mmap
import os
import socket
import stat
import subprocess

import mountapi
from case import build_image, drop_caches, equal, fail, mount_image, refused, run, write_file

os.makedirs("src/directory")
os.mkdir("src/empty")
write_file("src/file", b"x" * 10_000)
write_file("src/directory/other", b"other")
os.symlink("file", "src/symlink")
os.mkfifo("src/fifo")
for path in ("src/file", "src/directory"):
    os.setxattr(path, "user.x", b"1")
    os.chmod(path, 0o777)
mnt = mount_image(build_image("src"))
before = run("/payload/inventory", mnt)

libc = ctypes.CDLL(None, use_errno=True)
file, directory, empty, missing = f"{mnt}/file", f"{mnt}/directory", f"{mnt}/empty", f"{mnt}/missing"
fd = os.open(file, os.O_RDONLY)


def raw(name, *arguments):
    if getattr(libc, name)(*arguments) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def utimes(path, **options):
    return lambda: os.utime(path, **options)


calls = {
    "create": lambda: os.open(missing, os.O_WRONLY | os.O_CREAT),
    "create exclusively": lambda: os.open(missing, os.O_RDONLY | os.O_CREAT | os.O_EXCL),
    "create without a name": lambda: os.open(directory, os.O_RDWR | os.O_TMPFILE),
    "open to write": lambda: os.open(file, os.O_WRONLY),
    "open to read and write": lambda: os.open(file, os.O_RDWR),
    "open to append": lambda: os.open(file, os.O_WRONLY | os.O_APPEND),
    "open and truncate": lambda: os.open(file, os.O_RDONLY | os.O_TRUNC),
    "open to write through a link": lambda: os.open(f"{mnt}/symlink", os.O_RDWR),
    "truncate": lambda: os.truncate(file, 0),
    "truncate to the same size": lambda: os.truncate(file, 10_000),
    "unlink": lambda: os.unlink(file),
    "mkdir": lambda: os.mkdir(missing),
    "rmdir": lambda: os.rmdir(empty),
    "rename": lambda: os.rename(file, missing),
    "rename over another": lambda: os.rename(file, f"{mnt}/directory/other"),
    "rename a directory": lambda: os.rename(empty, f"{mnt}/directory/empty"),
    "link": lambda: os.link(file, missing),
    "symlink": lambda: os.symlink("x", missing),
    "mknod": lambda: os.mknod(missing, stat.S_IFCHR | 0o600, os.makedev(1, 3)),
    "mkfifo": lambda: os.mkfifo(missing),
    "chmod": lambda: os.chmod(file, 0o600),
    "chmod of a directory": lambda: os.chmod(directory, 0o700),
    "chmod by descriptor": lambda: os.fchmod(fd, 0o600),
    "chown": lambda: os.chown(file, 1, 1),
    "chown to nobody new": lambda: os.chown(file, -1, -1),
    "chown of a link": lambda: os.lchown(f"{mnt}/symlink", 1, 1),
    "chown by descriptor": lambda: os.fchown(fd, 1, 1),
    "utimensat": utimes(file, ns=(1, 1)),
    "utimensat, now": utimes(file),
    "utimensat of a link": utimes(f"{mnt}/symlink", ns=(1, 1), follow_symlinks=False),
    "futimens": utimes(fd, ns=(1, 1)),
    "setxattr": lambda: os.setxattr(file, "user.new", b"1"),
    "setxattr, replacing": lambda: os.setxattr(file, "user.x", b"2"),
    "setxattr, trusted": lambda: os.setxattr(file, "trusted.x", b"2"),
    "setxattr of an ACL": lambda: os.setxattr(file, "system.posix_acl_access", b"\x02\0\0\0"),
    "fsetxattr": lambda: os.setxattr(fd, "user.new", b"1"),
    "removexattr": lambda: os.removexattr(file, "user.x"),
    "removexattr of an ACL": lambda: os.removexattr(file, "system.posix_acl_access"),
    "bind a socket": lambda: socket.socket(socket.AF_UNIX).bind(f"{mnt}/directory/s"),
}
for name, call in calls.items():
    with refused(errno.EROFS, name):
        call()

# By descriptors that are only for reading; the VFS has its own errors for these.
for name, number, call in (
        ("write", errno.EBADF, lambda: os.write(fd, b"x")),
        ("ftruncate", errno.EINVAL, lambda: os.ftruncate(fd, 0)),
        ("fallocate", errno.EBADF, lambda: raw("fallocate", fd, 0, ctypes.c_long(0), ctypes.c_long(4096))),
        ("punch a hole", errno.EBADF, lambda: raw("fallocate", fd, 3, ctypes.c_long(0), ctypes.c_long(4096))),
        ("map shared, to write", errno.EACCES,
         lambda: mmap.mmap(fd, 4096, mmap.MAP_SHARED, mmap.PROT_WRITE))):
    with refused(number, name):
        call()
libc.mmap.restype = ctypes.c_void_p
address = libc.mmap(None, 4096, mmap.PROT_READ, mmap.MAP_SHARED, fd, ctypes.c_long(0))
with refused(errno.EACCES, "mprotect to write"):
    raw("mprotect", ctypes.c_void_p(address), 4096, mmap.PROT_READ | mmap.PROT_WRITE)
libc.munmap(ctypes.c_void_p(address), 4096)
# FS_IOC_SETFLAGS, and a command that nobody knows.
for command in (0x40086602, 0x12345678):
    try:
        fcntl.ioctl(fd, command, b"\x10\0\0\0\0\0\0\0")
    except OSError as error:
        if error.errno not in (errno.ENOTTY, errno.EROFS, errno.EOPNOTSUPP):
            fail(f"ioctl {command:#x}: {error}")
    else:
        fail(f"ioctl {command:#x} was taken")
# As a swap file.
if libc.swapon(os.fsencode(file), 0) == 0:
    fail("a file of the image became swap space")

# Made writable: neither the superblock nor, with it, the mount.
with refused(errno.EROFS, "mount(2) remount, rw"):
    mountapi.mount(None, mnt, flags=mountapi.MS_REMOUNT)
with mountapi.Context(pick=mnt) as context:
    context.set("rw")
    with refused(errno.EROFS, "fsconfig(2) reconfigure, rw"):
        context.reconfigure()
done = subprocess.run(["mount", "-i", "-o", "remount,rw", mnt], capture_output=True, check=False)
if done.returncode == 0:
    fail("mount -o remount,rw succeeded")
# The attribute of the mount may go; the superblock stays read-only.
subprocess.run(["mount", "-i", "-o", "remount,bind,rw", mnt], capture_output=True, check=False)
with refused(errno.EROFS, "create, after remount,bind,rw"):
    os.open(missing, os.O_WRONLY | os.O_CREAT)
with refused(errno.EROFS, "access(2) to write"):
    raw("access", os.fsencode(file), os.W_OK)
os.fsync(fd)
os.sync()
os.close(fd)

# A program that expects to write says so.
done = subprocess.run(["touch", missing], capture_output=True, check=False, env=os.environ | {"LANG": "C"})
if done.returncode == 0 or b"Read-only file system" not in done.stderr:
    fail(f"touch: status {done.returncode}: {done.stderr}")

equal(run("/payload/inventory", mnt) == before, True, "the tree after all that")
drop_caches()
equal(run("/payload/inventory", mnt) == before, True, "the tree, read again")
