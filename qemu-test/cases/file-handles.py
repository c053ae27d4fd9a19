#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# File handles name the same inodes after everything was forgotten, and none of another image.
#
# formats: 3 4
# timeout: 40
# kernels: every
import ctypes
import errno
import os
import stat

from case import build_image, check, drop_caches, equal, mount_image, refused, unmount_image, write_file

AT_FDCWD, AT_HANDLE_CONNECTABLE, AT_HANDLE_FID, MAX_HANDLE_SZ = -100, 0x002, 0x200, 128
libc = ctypes.CDLL(None, use_errno=True)


class Handle(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_uint), ("type", ctypes.c_int), ("handle", ctypes.c_ubyte * MAX_HANDLE_SZ)]

    def key(self):
        return self.type, bytes(self.handle[:self.bytes])


def handle_of(path, flags=0):
    handle, mount_id = Handle(bytes=MAX_HANDLE_SZ), ctypes.c_int()
    if libc.name_to_handle_at(AT_FDCWD, os.fsencode(path), ctypes.byref(handle), ctypes.byref(mount_id),
                              flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return handle


def open_handle(mount, handle, flags=os.O_RDONLY):
    fd = libc.open_by_handle_at(mount, ctypes.byref(handle), flags)
    if fd < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return fd


deep = "a/b/c/d/e/f/g"
os.makedirs(f"src/{deep}")
names = [".", "a", "a/b/c", deep, f"{deep}/file", "file", "link", "fifo", "hard"]
write_file(f"src/{deep}/file", b"deep")
write_file("src/file", b"top")
os.link("src/file", "src/hard")
os.symlink("file", "src/link")
os.mkfifo("src/fifo")
os.mkdir("other-src")
write_file("other-src/file", b"of another image")
image, other = build_image("src"), build_image("other-src", tag="other")

mnt = mount_image(image)
handles = {name: handle_of(f"{mnt}/{name}") for name in names}
connectable = handle_of(f"{mnt}/{deep}/file", AT_HANDLE_CONNECTABLE)
equal(len({h.key() for h in handles.values()}), len(names) - 1, "different handles")
equal(handles["file"].key(), handles["hard"].key(), "two names of one inode: handles")
numbers = {name: os.lstat(f"{mnt}/{name}").st_ino for name in names}

for forget in ("nothing", "caches", "mount"):
    if forget == "caches":
        drop_caches()
    elif forget == "mount":
        unmount_image(mnt)
        mnt = mount_image(image)
    root = os.open(mnt, os.O_RDONLY)
    for name, handle in handles.items():
        fd = open_handle(root, handle, os.O_PATH if name in ("link", "fifo") else os.O_RDONLY)
        equal(os.fstat(fd).st_ino, numbers[name], f"{name}: inode number, {forget} forgotten")
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            # A directory is connected to the root, whatever was forgotten between.
            path = os.path.normpath(f"{mnt}/{name}")
            equal(os.readlink(f"/proc/self/fd/{fd}"), path, f"path, {forget} forgotten")
            equal(sorted(os.listdir(fd)), sorted(os.listdir(f"src/{name}")), f"{name}: entries")
        elif stat.S_ISREG(os.fstat(fd).st_mode):
            with open(f"src/{name}", "rb") as source:
                equal(os.pread(fd, 100, 0), source.read(), f"{name}: contents")
        os.close(fd)
    fd = open_handle(root, connectable)
    equal(os.readlink(f"/proc/self/fd/{fd}"), f"{mnt}/{deep}/file", f"connectable, {forget} forgotten")
    os.close(fd)

    # What is no handle of this image is stale, and that without a word in the log.
    for low, high in ((0, 0), (999, 0), (0xffffffff, 0xffffffff), (2, 1)):
        stale = Handle.from_buffer_copy(handles["file"])
        stale.handle[:8] = [*low.to_bytes(4, "little"), *high.to_bytes(4, "little")]
        with refused(errno.ESTALE, f"inode {high:x}{low:08x}"):
            os.close(open_handle(root, stale))
    for kind in (0x01, 0x02, 0x83, 0x7f):
        stale = Handle.from_buffer_copy(handles["file"])
        stale.type = kind
        with refused(errno.ESTALE, f"a handle of type {kind}"):
            os.close(open_handle(root, stale))
    for length in (0, 4, 8, 11):
        short = Handle.from_buffer_copy(handles["file"])
        short.bytes = length
        try:
            os.close(open_handle(root, short))
            check(False, f"a handle of {length} bytes was taken")
        except OSError as error:
            check(error.errno in (errno.ESTALE, errno.EINVAL), f"a handle of {length} bytes: {error}")
    os.close(root)

unmount_image(mnt)
mnt = mount_image(other)
root = os.open(mnt, os.O_RDONLY)
for name, handle in handles.items():
    with refused(errno.ESTALE, f"{name}: handle of another image"):
        os.close(open_handle(root, handle, os.O_PATH))
os.close(root)
