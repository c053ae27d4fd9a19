#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# The tree of an image of format 4, whose blocks were made by hand: names, attributes, links, long lists.
#
# timeout: 120
import errno
import os
import stat

import mountapi
from case import CASE_DIR, check, equal, refused
from chunked import Node, Store

store = Store(f"{CASE_DIR}/store")
mnt = f"{CASE_DIR}/mnt"
os.mkdir(mnt)

large = b"v" * 2000
linked = Node("file", 0o640, uid=1, gid=2, mtime=(1_600_000_000, 7), links=2)
names = [b"entry-%05d" % number for number in range(1000)]
deep = Node("dir", 0o755, links=2, entries={b"other": linked})
many = Node("dir", 0o755, links=2, long=100, entries={name: linked for name in names})
many.entries[names[500]] = deep
root = Node("dir", 0o755, links=3, entries={
    b"linked": linked,
    b"symlink": Node("link", 0o777, target=b"many/entry-00500"),
    b"fifo": Node("fifo"),
    b"socket": Node("sock"),
    b"null": Node("chr", 0o666, device=(1, 3)),
    b"disk": Node("blk", 0o660, device=(4095, 1048575)),
    b"marked": Node("dir", 0o2750, links=2,
                    xattrs={b"user.small": b"value", b"user.large": large, b"trusted.overlay.opaque": b"y"}),
    b"many": many,
    b"name\xff\n": Node("file", 0o4755),
})
blocks = [[root] + [root.entries[name] for name in sorted(root.entries) if name not in (b"many", b"linked")],
          [linked], [many], [deep]]


def look(options=""):
    mountapi.mount(store.path, mnt, f"rootfs={rootfs}{options}")
    equal(sorted(os.listdir(mnt.encode())), sorted(root.entries), "the root")
    for name, node in root.entries.items():
        found = os.lstat(os.path.join(mnt.encode(), name))
        equal((stat.S_IFMT(found.st_mode) >> 12, stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid,
               found.st_mtime_ns, found.st_nlink),
              (node.type(), node.mode, node.uid, node.gid, node.mtime[0] * 10**9 + node.mtime[1],
               node.links), name)
    equal(os.readlink(f"{mnt}/symlink"), "many/entry-00500", "the target")
    for name in (b"null", b"disk"):
        device = os.stat(os.path.join(mnt.encode(), name)).st_rdev
        equal((os.major(device), os.minor(device)), root.entries[name].device, name)
    equal(os.stat(f"{mnt}/linked").st_ino, os.stat(f"{mnt}/symlink/other").st_ino, "a hard link")
    equal(sorted(os.listdir(f"{mnt}/many".encode())), names, "a long directory")
    with refused(errno.ENOENT, "a name behind all"):
        os.stat(f"{mnt}/many/f")
    with refused(errno.ENOENT, "a name before all"):
        os.stat(f"{mnt}/many/a")
    equal(os.stat(f"{mnt}/symlink/..").st_ino, os.stat(f"{mnt}/many").st_ino, "the parent")
    space = os.statvfs(mnt)
    equal(space.f_files, sum(len(block) for block in blocks), "the number of inodes")
    equal(os.getxattr(f"{mnt}/marked", "user.small"), b"value", "an attribute")
    equal(os.getxattr(f"{mnt}/marked", "user.large"), large, "a large attribute")
    with refused(errno.ENODATA, "an attribute that is not there"):
        os.getxattr(f"{mnt}/marked", "user.other")
    escaped = "trusted.overlay.overlay.opaque" if options else "trusted.overlay.opaque"
    equal(sorted(os.listxattr(f"{mnt}/marked")), sorted(["user.small", "user.large", escaped]), "the names")
    equal(os.getxattr(f"{mnt}/marked", escaped), b"y", "a marker")
    mountapi.umount(mnt)


for level in (0, 1):
    rootfs = store.add_image(blocks, level=level)
    look()
    look(",escape_overlay")

# The number of an inode depends on the order of the blocks alone.
mountapi.mount(store.path, mnt, f"rootfs={rootfs}")
equal(os.stat(mnt).st_ino, 1, "the number of the root")
equal(os.stat(f"{mnt}/linked").st_ino, len(blocks[0]) + 1, "the number of the first inode of a block")
check(os.stat(f"{mnt}/linked").st_size == 0, "an empty file")
mountapi.umount(mnt)
