#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Extended attributes of all namespaces, on all kinds of files: names and values, long, empty and
# binary; sizes asked for first; who may see which.
#
# formats: 3 4
# timeout: 60
# kernels: every
import contextlib
import ctypes
import errno
import os

from case import as_user, build_image, check, drop_caches, equal, mount_image, refused, run, write_file

# tmpfs takes long values.
run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/mnt")
src = "/mnt/src"
os.makedirs(f"{src}/directory")
write_file(f"{src}/file", b"contents")
write_file(f"{src}/none", b"contents")
write_file(f"{src}/secret", b"contents")
os.chmod(f"{src}/secret", 0o600)
os.symlink("file", f"{src}/symlink")
os.mkfifo(f"{src}/fifo")

everything = {
    "user.plain": b"value",
    "user.empty": b"",
    "user.binary": bytes(range(256)),
    "user." + "n" * 250: b"a name of 255 bytes",
    "user.with space = and\nnewline": b"x",
    "trusted.root-only": b"hidden",
    "trusted.overlay.opaque": b"y",
    "security.label": b"anything\0",
}
wanted = {
    "file": everything,
    "directory": everything | {f"user.many-{n:03}": bytes([n]) * n for n in range(100)},
    "symlink": {"trusted.on-a-symlink": b"1", "security.on-a-symlink": b"2"},
    "fifo": {"trusted.on-a-fifo": b"1"},
    "none": {},
    "secret": {"user.mine": b"1"},
}
for name, attributes in wanted.items():
    for key, value in attributes.items():
        os.setxattr(f"{src}/{name}", key, value, follow_symlinks=False)
try:
    os.setxattr(f"{src}/file", "trusted.long", b"l" * 65536)
    wanted["file"] = wanted["file"] | {"trusted.long": b"l" * 65536}
except OSError as error:
    print(f"no value of 64 KiB here: {error}")
os.setxattr(f"{src}/none", "user.once", b"")
os.removexattr(f"{src}/none", "user.once")

mnt = mount_image(build_image(src))


def attributes_of(path):
    return {key: os.getxattr(path, key, follow_symlinks=False)
            for key in os.listxattr(path, follow_symlinks=False)}


for _ in range(2):
    for name in wanted:
        # The source is the oracle; an LSM may have added its own there.
        got, source = attributes_of(f"{mnt}/{name}"), attributes_of(f"{src}/{name}")
        equal(got, source, f"attributes of {name}")
        equal({k: v for k, v in got.items() if k in wanted[name]}, wanted[name], f"attributes of {name}")
        equal(len(os.listxattr(f"{mnt}/{name}", follow_symlinks=False)), len(got),
              f"listed of {name}, none twice")
    drop_caches()

for name in ("file", "none", "directory"):
    for missing in ("user.nothing", "user.plai", "user.plainx", "trusted.nothing", "security.nothing"):
        with refused(errno.ENODATA, f"{missing} of {name}"):
            os.getxattr(f"{mnt}/{name}", missing)
try:
    os.getxattr(f"{mnt}/file", "nonesuch.x")
except OSError as error:
    check(error.errno in (errno.ENODATA, errno.EOPNOTSUPP), f"a namespace that does not exist: {error}")
else:
    check(False, "a namespace that does not exist has attributes")

# The calls themselves: a size of 0 asks for the size, one too small is refused.

libc = ctypes.CDLL(None, use_errno=True)
path = os.fsencode(f"{mnt}/file")
buffer = ctypes.create_string_buffer(1000)
equal(libc.getxattr(path, b"user.binary", None, 0), 256, "size of a value")
equal(libc.getxattr(path, b"user.binary", buffer, 255), -1, "a buffer too small for a value")
equal(ctypes.get_errno(), errno.ERANGE, "its errno")
equal(libc.getxattr(path, b"user.binary", buffer, 256), 256, "a buffer that just fits")
equal(buffer.raw[:256], bytes(range(256)), "the value")
size = sum(len(key) + 1 for key in attributes_of(f"{mnt}/file"))
equal(libc.listxattr(path, None, 0), size, "size of the list")
equal(libc.listxattr(path, buffer, size - 1), -1, "a buffer too small for the list")
equal(ctypes.get_errno(), errno.ERANGE, "its errno")
equal(libc.listxattr(path, buffer, size), size, "a buffer that just fits the list")

# Who is nobody sees no trusted ones, neither listed nor by name; others as the modes say.
listed = as_user(1234, lambda: os.listxattr(f"{mnt}/file"))
equal(sorted(listed), sorted(k for k in attributes_of(f"{mnt}/file") if not k.startswith("trusted.")),
      "what an unprivileged user sees listed")
equal(as_user(1234, lambda: os.getxattr(f"{mnt}/file", "user.plain")), b"value", "a user attribute for all")
# On a filesystem where it can be had: the source's own answer, for comparison.
for key in ("trusted.root-only", "trusted.nothing"):
    with refused(errno.ENODATA, f"{key} for an unprivileged user"):
        as_user(1234, lambda key=key: os.getxattr(f"{mnt}/file", key))
with refused(errno.EACCES, "a user attribute of an unreadable file"):
    as_user(1234, lambda: os.getxattr(f"{mnt}/secret", "user.mine"))
with contextlib.suppress(OSError):
    os.setxattr(f"{mnt}/file", "user.plain", b"changed")
equal(os.getxattr(f"{mnt}/file", "user.plain"), b"value", "the value after an attempt to change it")
