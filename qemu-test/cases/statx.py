#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# statx(2) says what there is, and does not say what there is not: no time of birth, nothing that can
# be changed, no fs-verity digest of the filesystem's own.
#
# formats: 3 4
# timeout: 30
import errno
import fcntl
import os
import struct

from attributes import ATTR_IMMUTABLE, ATTR_VERITY, statx
from case import build_image, check, equal, mount_image, refused, write_file

# All but the time of access, which nobody keeps.
STATX_BASIC_STATS, STATX_BTIME, STATX_DIOALIGN = 0x7ff & ~0x20, 0x800, 0x2000
ATTR_MOUNT_ROOT = 0x2000
FS_IOC_MEASURE_VERITY, FS_IOC_ENABLE_VERITY = 0xc0046686, 0x40806685

os.makedirs("src/dir")
write_file("src/dir/file", b"x" * 5000)
os.chmod("src/dir/file", 0o4750)
os.chown("src/dir/file", 4_000_000_000, 12)
os.chmod("src/dir/file", 0o4750)
os.symlink("file", "src/dir/link")
os.mkfifo("src/fifo")
mnt = mount_image(build_image("src"))
with open("/proc/self/mountinfo") as table:
    mount_id = next(int(line.split()[0]) for line in table if line.split()[4] == mnt)
devices = set()
for name in ("", "dir", "dir/file", "dir/link", "fifo"):
    path = f"{mnt}/{name}".rstrip("/")
    found = statx(path)
    check(found["mask"] & STATX_BASIC_STATS == STATX_BASIC_STATS, f"{name}: mask {found['mask']:x}")
    check(not found["mask"] & (STATX_BTIME | STATX_DIOALIGN),
          f"{name}: says more than there is: {found['mask']:x}")
    equal(found["mnt_id"], mount_id, f"{name}: mount")
    if name != "fifo":
        check(found["attributes"] & found["attributes_mask"] & ATTR_IMMUTABLE, f"{name}: not immutable")
    check(not found["attributes"] & ATTR_VERITY, f"{name}: fs-verity")
    equal(bool(found["attributes"] & ATTR_MOUNT_ROOT), name == "", f"{name}: root of a mount")
    devices.add((found["major"], found["minor"]))
equal(len(devices), 1, "devices")
file = statx(f"{mnt}/dir/file")
equal((file["size"], file["blocks"], file["uid"], file["gid"], file["mode"] & 0o7777, file["links"]),
      (5000, 10, 4_000_000_000, 12, 0o4750, 1), "size, blocks, owner, group, mode, links")

# Without verify=fsverity, nothing is checked against a file's digest: it has none.
with open(f"{mnt}/dir/file", "rb") as file:
    with refused(errno.ENODATA, "FS_IOC_MEASURE_VERITY"):
        fcntl.ioctl(file, FS_IOC_MEASURE_VERITY, bytearray(struct.pack("=HH", 0, 64) + bytes(64)))
    with refused(errno.ENOTTY, "FS_IOC_ENABLE_VERITY"):
        fcntl.ioctl(file, FS_IOC_ENABLE_VERITY, struct.pack("=II", 1, 1) + bytes(120))
