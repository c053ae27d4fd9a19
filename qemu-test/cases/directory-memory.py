#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# A directory whose entries are not in order needs an index, as large as the image wants it: the
# memory control group of whoever looks into it is charged for it.
#
# For format 3 alone. Format 4 keeps the entries of directories sorted and needs no index of them.
#
# timeout: 60
import os
import subprocess
import sys

import mountapi
from case import CASE_DIR, equal, eventually, skip
from metadata import Inode, Store

ENTRIES = 50_000
group = "/sys/fs/cgroup/directory-memory"
with open("/sys/fs/cgroup/cgroup.controllers") as controllers:
    if "memory" not in controllers.read().split():
        skip("no memory controller")
with open("/sys/fs/cgroup/cgroup.subtree_control", "w") as control:
    control.write("+memory")

store = Store(f"{CASE_DIR}/store")
mnt = f"{CASE_DIR}/mnt"
os.mkdir(mnt)
names = [(b"%06d" % number, 2) for number in reversed(range(ENTRIES))]
rootfs = store.add_image([Inode(1, "dir", 0o755, entries=[(b"many", 3)]), Inode(2, "fifo"),
                          Inode(3, "dir", 0o755, entries=names)])
mountapi.mount(store.path, mnt, f"rootfs={rootfs}")


def charged():
    """Kernel memory that the group is charged for, in bytes."""
    with open(f"{group}/memory.stat") as stat:
        return next(int(line.split()[1]) for line in stat if line.startswith("kernel "))


def look(what):
    """One more process of the group looks at something, and ends."""
    program = 'import os, sys; open(sys.argv[1], "w").write("0"); os.lstat(sys.argv[2])'
    subprocess.run([sys.executable, "-c", program, f"{group}/cgroup.procs", f"{mnt}/{what}"], check=True)


def settled():
    """The same, after two looks that charged the group for nothing. A reader of memory.stat sums up the
    processors' counts only if enough has changed since the last time, as a process that starts does."""
    counts = [-2, -1]

    def same():
        look("")
        counts.append(charged())
        return counts[-1] == counts[-2]
    eventually(same, f"the group is charged for something else: {counts}")
    return counts[-1]


os.mkdir(group)
try:
    before = settled()
    look("many")
    # The index has four bytes an entry.
    eventually(lambda: charged() - before > ENTRIES * 3, f"{before} bytes are charged before an index of "
               f"{ENTRIES} entries, and no more with it")
    equal(len(os.listdir(f"{mnt}/many")), ENTRIES, "entries")
finally:
    mountapi.umount(mnt)
    os.rmdir(group)
