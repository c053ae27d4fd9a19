# SPDX-License-Identifier: MIT OR Apache-2.0
"""The system calls that mount, called directly: errno and log as the kernel gives them."""

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND = 1, 2, 4, 8, 32, 4096
MNT_DETACH = 2

_MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT, _FSPICK = 429, 430, 431, 432, 433
_SET_FLAG, _SET_STRING, _SET_BINARY, _SET_FD, _CREATE, _RECONFIGURE = 0, 1, 2, 5, 6, 7
_MOVE_MOUNT_F_EMPTY_PATH = 4


def _checked(result):
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _syscall(*arguments):
    return _checked(_libc.syscall(*arguments))


def _bytes(text):
    return None if text is None else os.fsencode(text)


def mount(source, directory, options="", flags=MS_RDONLY, fs_type="puzzlefs"):
    """mount(2)."""
    _checked(_libc.mount(_bytes(source), _bytes(directory), _bytes(fs_type),
                         ctypes.c_ulong(flags), _bytes(options)))


def umount(directory, flags=0):
    """umount2(2)."""
    _checked(_libc.umount2(_bytes(directory), flags))


class Context:
    """A filesystem context: fsopen(2), fsconfig(2), fsmount(2)."""

    def __init__(self, fs_type="puzzlefs", pick=None):
        if pick is None:
            self.fd = _syscall(_FSOPEN, _bytes(fs_type), 1)
        else:
            # AT_FDCWD, FSPICK_CLOEXEC
            self.fd = _syscall(_FSPICK, -100, _bytes(pick), 1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.fd)

    def set(self, key, value=None):
        if value is None:
            _syscall(_FSCONFIG, self.fd, _SET_FLAG, _bytes(key), None, 0)
        else:
            _syscall(_FSCONFIG, self.fd, _SET_STRING, _bytes(key), _bytes(value), 0)

    def set_binary(self, key, value):
        _syscall(_FSCONFIG, self.fd, _SET_BINARY, _bytes(key), value, len(value))

    def set_fd(self, key, fd):
        _syscall(_FSCONFIG, self.fd, _SET_FD, _bytes(key), None, fd)

    def create(self):
        _syscall(_FSCONFIG, self.fd, _CREATE, None, None, 0)

    def reconfigure(self):
        _syscall(_FSCONFIG, self.fd, _RECONFIGURE, None, None, 0)

    def attach(self, directory):
        tree = _syscall(_FSMOUNT, self.fd, 1, 0)
        try:
            _syscall(_MOVE_MOUNT, tree, b"", -100, _bytes(directory), _MOVE_MOUNT_F_EMPTY_PATH)
        finally:
            os.close(tree)

    def log(self):
        """All messages so far, each opening with its level: "e ", "w " or "i "."""
        messages = []
        while True:
            try:
                messages.append(os.read(self.fd, 4096).decode(errors="backslashreplace").strip())
            except OSError:
                return messages
