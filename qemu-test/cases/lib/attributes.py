# SPDX-License-Identifier: MIT OR Apache-2.0
"""statx(2), which Python has not."""

import ctypes
import os
import struct

ATTR_IMMUTABLE, ATTR_VERITY = 0x10, 0x100000
_AT_FDCWD, _AT_SYMLINK_NOFOLLOW = -100, 0x100
_libc = ctypes.CDLL(None, use_errno=True)


def statx(path):
    """All fields, by name; a symbolic link is not followed."""
    buffer = ctypes.create_string_buffer(256)
    if _libc.statx(_AT_FDCWD, os.fsencode(path), _AT_SYMLINK_NOFOLLOW, 0x3fff, buffer):
        raise OSError(ctypes.get_errno(), path)
    raw = buffer.raw
    mask, block_size, attributes = struct.unpack_from("=IIQ", raw, 0)
    links, uid, gid, mode = struct.unpack_from("=IIIH", raw, 16)
    ino, size, blocks, attributes_mask = struct.unpack_from("=QQQQ", raw, 32)
    major, minor, mnt_id = struct.unpack_from("=IIQ", raw, 136)
    return locals()
