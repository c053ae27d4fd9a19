#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# An image of 40 layers, each made of random changes to the tree below it: files added, removed,
# changed, replaced, linked and renamed, directories removed, made opaque, made again. Compared
# with the tree that the changes come to, as this case keeps it.
#
# For format 3 alone. Images of format 4 have no layers of metadata.
#
# timeout: 120
import ctypes
import errno
import os
import stat
import struct
from dataclasses import replace

import mountapi
from case import CASE_DIR, check, drop_caches, equal, refused, seeded_random
from metadata import Chunk, Inode, Store

LAYERS, CHANGES, ROOT = 40, 25, 1
FORMATS = {"file": stat.S_IFREG, "dir": stat.S_IFDIR, "lnk": stat.S_IFLNK, "fifo": stat.S_IFIFO,
           "sock": stat.S_IFSOCK}
random = seeded_random()
store = Store(f"{CASE_DIR}/store")
contents = {store.add(blob): blob
            for blob in (random.randbytes(random.randrange(1, 9000)) for _ in range(60))}


class Tree:
    """The tree as it is now, and the inodes that the layer that is being made has of it."""

    def __init__(self):
        self.names = {ROOT: {}}     # of each directory: name -> inode number
        self.inodes = {ROOT: Inode(ROOT, "dir", 0o755)}
        self.next = ROOT + 1
        self.layer = {ROOT: self.inodes[ROOT]}
        self.ghosts = set()         # (directory, name) of what is gone
        self.removed = {}           # inode number -> (directory, name) of what a whiteout removed

    def finish_layer(self):
        layer, self.layer = self.layer, {}
        # Entries in any order: the reference builder's whiteouts come first.
        for inode in layer.values():
            random.shuffle(inode.entries)
        return [layer[ino] for ino in sorted(layer)]

    def _part(self, directory):
        """This layer's part of a directory; the rest of it is below."""
        if directory not in self.layer:
            self.layer[directory] = replace(self.inodes[directory], entries=[], look_below=True)
        return self.layer[directory]

    def _enter(self, directory, name, ino):
        part = self._part(directory)
        part.entries = [entry for entry in part.entries if entry[0] != name] + [(name, ino)]
        self.names[directory][name] = ino

    def _gone(self, directory, name):
        del self.names[directory][name]
        self.ghosts.add((directory, name))

    def _rewrite(self, directory):
        """All of a directory in this layer: what is below does not show."""
        part = self._part(directory)
        part.look_below, part.entries = False, list(self.names[directory].items())

    def _links(self, ino):
        return [(d, n) for d, names in self.names.items() for n, other in names.items() if other == ino]

    def _new(self, ino, kind):
        mode = 0o777 if kind == "lnk" else random.choice((0o644, 0o755, 0o1777, 0o4711))
        inode = Inode(ino, kind, mode, uid=random.randrange(70_000))
        if kind == "file":
            inode.chunks = [Chunk(blob, len(contents[blob]))
                            for blob in random.sample(list(contents), random.randrange(3))]
        elif kind == "lnk":
            inode.target = b"target-%d" % random.randrange(1000)
        inode.xattrs = [(b"user.n", b"%d" % random.randrange(1000))] if kind in ("file", "dir") else []
        self.inodes[ino] = self.layer[ino] = inode
        return inode

    def _wipe(self, ino):
        """An inode that has no name any more, and what is under it."""
        for child in self.names.pop(ino, {}).values():
            if child in self.inodes and not self._links(child):
                self._wipe(child)
        del self.inodes[ino]
        self.layer[ino] = Inode(ino, "wht")

    def some(self, *kinds, whatever=False):
        """An entry of one of these kinds, that this layer has not touched."""
        found = [(d, n, i) for d, names in self.names.items() for n, i in names.items()
                 if self.inodes[i].kind in kinds and (whatever or i not in self.layer)]
        return random.choice(found) if found else None

    # ------------------------------------------------ the changes

    def add(self):
        # A number may come back, as something else, but only in its old place: where a whiteout hid
        # an entry for it, that entry shows again.
        again = [(d, n, i) for i, (d, n) in self.removed.items()
                 if i not in self.layer and d in self.names and n not in self.names[d]]
        if again and random.random() < 0.3:
            directory, name, ino = random.choice(again)
            del self.removed[ino]
        else:
            directory, name = random.choice(list(self.names)), b"n%d" % random.randrange(150)
            if name in self.names[directory]:
                return
            ino, self.next = self.next, self.next + 1
        kind = random.choice(("file", "file", "file", "dir", "dir", "lnk", "fifo", "sock"))
        inode = self._new(ino, kind)
        if kind == "dir":
            self.names[ino] = {}
            # Nothing is below it, or a whiteout: it may look.
            inode.look_below = random.random() < 0.5
        self._enter(directory, name, ino)

    def change(self):
        if found := self.some("file", "lnk"):
            self._new(found[2], self.inodes[found[2]].kind)

    def change_kind(self):
        # What was a file is a directory that looks below, where no directory is.
        if found := self.some("file", "fifo"):
            inode = self._new(found[2], "dir")
            inode.look_below = True
            self.names[found[2]] = {}
            directory, name, ino = found
            for other, link in self._links(ino):
                if (other, link) != (directory, name):
                    self._gone(other, link)
                    self._rewrite(other)

    def change_directory(self):
        if found := self.some("dir"):
            part = self._part(found[2])
            part.mode, part.uid = random.choice((0o700, 0o2775)), random.randrange(1000)
            self.inodes[found[2]] = replace(part, entries=[])

    def remove(self):
        found = self.some("file", "lnk", "fifo", "sock", "dir")
        # Most of the tree shall stay.
        if not found or len(self.names.get(found[2], ())) > 5:
            return
        directory, name, ino = found
        # One name of several goes by writing the directory anew; the last one by a whiteout, with
        # an entry for it or without.
        last = len(self._links(ino)) == 1
        if not last:
            self._gone(directory, name)
            self._rewrite(directory)
            return
        if random.random() < 0.5:
            self._enter(directory, name, ino)
        self._gone(directory, name)
        self._wipe(ino)
        self.removed[ino] = directory, name

    def replace(self):
        # The inode stays, without a name: the upper entry hides the lower one.
        if (found := self.some("file", "lnk")) and len(self._links(found[2])) == 1:
            directory, name, old = found
            ino, self.next = self.next, self.next + 1
            del self.inodes[old]
            self._new(ino, random.choice(("file", "lnk")))
            self._enter(directory, name, ino)

    def link(self):
        if found := self.some("file", whatever=True):
            self._enter(random.choice(list(self.names)), b"link%d" % self.next, found[2])
            self.next += 1

    def rename(self):
        if found := self.some("file", "lnk", "fifo"):
            directory, name, ino = found
            self._gone(directory, name)
            self._rewrite(directory)
            self._enter(random.choice(list(self.names)), b"renamed%d" % self.next, ino)
            self.next += 1

    def opaque(self):
        if (found := self.some("dir")) and len(self.names[found[2]]) > 1:
            for name in list(self.names[found[2]]):
                ino = self.names[found[2]][name]
                if random.random() < 0.3 and self.inodes[ino].kind != "dir":
                    self._gone(found[2], name)
                    if not self._links(ino):
                        del self.inodes[ino]
            self._rewrite(found[2])


libc = ctypes.CDLL(None, use_errno=True)


def getdents(fd, size):
    """Entries from a descriptor's position to the end, by calls with so large a buffer."""
    buffer, entries = ctypes.create_string_buffer(size), []
    while True:
        count = libc.syscall(217, fd, buffer, size)
        check(count >= 0, f"getdents64: {os.strerror(ctypes.get_errno())}")
        if not count:
            return entries
        at = 0
        while at < count:
            ino, off, length, kind = struct.unpack_from("<QqHB", buffer, at)
            name = buffer.raw[at + 19:at + length].split(b"\0")[0]
            entries.append((name, ino, kind, off))
            at += length


def compare_directory(path, ino):
    """What readdir gives, from any place on; what lookups give."""
    names = tree.names[ino]
    wanted = {name: (child, FORMATS[tree.inodes[child].kind] >> 12) for name, child in names.items()}
    fd = os.open(path, os.O_RDONLY)
    entries = getdents(fd, 32_768)
    shown = [entry for entry in entries if entry[0] not in (b".", b"..")]
    equal(len(shown), len(wanted), f"number of entries of {path}")
    equal({name: (child, kind) for name, child, kind, _ in shown}, wanted, f"entries of {path}")
    equal([entry[1] for entry in entries if entry[0] == b"."], [ino], f"number of {path}/.")
    os.lseek(fd, 0, os.SEEK_SET)
    equal(getdents(fd, 64), entries, f"entries of {path}, a few at a time")
    for at in {random.randrange(len(entries)) for _ in range(4)}:
        os.lseek(fd, entries[at][3], os.SEEK_SET)
        equal(getdents(fd, 512), entries[at + 1:], f"entries of {path} after the one at {at}")
    os.close(fd)


def compare(path, ino):
    inode, found = tree.inodes[ino], os.lstat(path)
    equal((found.st_ino, found.st_mode, found.st_uid),
          (ino, FORMATS[inode.kind] | inode.mode, inode.uid), f"stat of {path}")
    if inode.xattrs:
        equal(os.getxattr(path, "user.n"), inode.xattrs[0][1], f"attribute of {path}")
    if inode.kind == "file":
        with open(path, "rb") as file:
            equal(file.read() == b"".join(contents[c.blob] for c in inode.chunks), True,
                  f"contents of {path}")
    elif inode.kind == "lnk":
        equal(os.readlink(path), inode.target, f"target of {path}")
    elif inode.kind == "dir":
        compare_directory(path, ino)
        # Lookups in no order, hidden names between them.
        names = list(tree.names[ino]) + [n for d, n in tree.ghosts if d == ino and n not in tree.names[ino]]
        random.shuffle(names)
        for name in names:
            below = path + b"/" + name
            if name in tree.names[ino]:
                compare(below, tree.names[ino][name])
            else:
                with refused(errno.ENOENT, f"{below}, which is gone"):
                    os.lstat(below)


tree, layers = Tree(), []
changes = [tree.add] * 8 + [tree.change] * 3 + [tree.change_kind, tree.change_directory, tree.remove,
                                                tree.remove,
                                                tree.remove, tree.replace, tree.replace, tree.link,
                                                tree.rename, tree.opaque]
mnt = os.fsencode(f"{CASE_DIR}/mnt")
os.mkdir(mnt)
for number in range(1, LAYERS + 1):
    for _ in range(CHANGES if number > 1 else 6 * CHANGES):
        random.choice(changes if number > 1 else [tree.add])()
    layers.insert(0, tree.finish_layer())
    if number in (1, 2, 3, LAYERS // 2, LAYERS):
        mountapi.mount(store.path, mnt, f"rootfs={store.add_layers(layers)}")
        compare(mnt, ROOT)
        drop_caches()
        compare(mnt, ROOT)
        mountapi.umount(mnt)
        print(f"{number} layers: {len(tree.inodes)} inodes, {len(tree.ghosts)} names gone")
check(len(tree.inodes) > 100 and len(tree.ghosts) > 50, "too little to compare")
