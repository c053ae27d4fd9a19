#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Metadata chunks of format 4 that are missing, damaged or malformed: what is wrong with the root stops the
# mount; what is wrong with a block costs what lies in it, EIO or EUCLEAN, and a line that names it.
#
# timeout: 120
# klog-allow: puzzlefs: image [0-9a-f]{64}
import errno
import os
import struct

import mountapi
from case import CASE_DIR, Differences, check, name_of, refused
from chunked import Node, Store, message
from damage import kernel_log, wait_for_log

store = Store(f"{CASE_DIR}/store")
mnt = f"{CASE_DIR}/mnt"
os.mkdir(mnt)
differences = Differences()


def outcome(function, *arguments):
    try:
        function(*arguments)
        return "success"
    except OSError as error:
        return name_of(error.errno)


def tree():
    """Two blocks: the root with a good file, and the bad block."""
    bad = Node("file", 0o600)
    directory = Node("dir", 0o755, entries={b"file": bad})
    good = Node("file")
    root = Node("dir", 0o755, entries={b"bad": directory, b"good": good})
    return [[root, good], [directory, bad]]


def block_digest(rootfs):
    """The digest of the second block."""
    with open(store.blob(bytes.fromhex(rootfs)), "rb") as file:
        root = file.read()
    children = 8 + 8 + 24 + 8 + 8
    return root[children + 48:children + 80]


def word(at, value):
    """Replaces a word of a block, counted from the beginning of its list of inodes."""
    def change(number, content):
        first = 8 + 8 + 8 + 8 * 8 + 8
        at_byte = first + 8 * at
        return content if number == 0 else content[:at_byte] + value + content[at_byte + 8:]
    return change


# The root.
digest = "12" * 32
for what, rootfs, error in [
        ("no such root", digest, errno.ENOENT),
        ("a block", block_digest(store.add_image(tree())).hex(), errno.EUCLEAN),
        ("a root without children",
         store.add(message(1, [bytes(4), bytes(8), bytes(8)], [(6, [])])).hex()[:64], errno.EUCLEAN),
        ("a root of another version",
         store.add(message(1, [bytes(4), bytes(8), bytes(8)], [(6, [])]).replace(b"\4\0\1\0", b"\5\0\1\0"))
         .hex()[:64], errno.EUCLEAN)]:
    with mountapi.Context() as context:
        context.set("source", store.path)
        context.set("rootfs", rootfs)
        with refused(error, what):
            context.create()
        said = context.log()
        check(said and rootfs in said[0], f"{what}: the context's log has {said}")


def is_named(rootfs, chunk):
    return any(rootfs in line and chunk in line for line in kernel_log())


# A block: missing, with other bytes, and back again.
wait_for_log()
rootfs = store.add_image(tree())
blob = store.blob(block_digest(rootfs))
with open(blob, "rb") as file:
    content = file.read()
for what, change in [("missing", None), ("with other bytes", bytes(len(content))), ("short", content[:-8])]:
    os.rename(blob, f"{blob}.away")
    if change is not None:
        with open(blob, "wb") as file:
            file.write(change)
    mountapi.mount(store.path, mnt, f"rootfs={rootfs}")
    for attempt in ("first", "second"):
        found = outcome(os.stat, f"{mnt}/bad")
        differences.compare(found, "EIO", f"a block that is {what}, the {attempt} time")
    differences.compare(outcome(os.stat, f"{mnt}/good"), "success", f"a block that is {what}: another one")
    check(is_named(rootfs, block_digest(rootfs).hex()), f"a block that is {what}: no line names it")
    os.rename(f"{blob}.away", blob)
    differences.compare(outcome(os.stat, f"{mnt}/bad/file"), "success", f"a block that was {what}")
    mountapi.umount(mnt)

# A block that violates a rule, under the right digest.
wait_for_log()
for what, change in {
        "no link": word(0, struct.pack("<HHI", 0o40755, 0, 0)),
        "an unknown type": word(7, struct.pack("<HHI", 0o30600, 0, 1)),
        "a range that does not lie in its list": word(5, struct.pack("<II", 0, 2)),
        "elements in no range": word(5, struct.pack("<II", 0, 0)),
        "a byte behind the message": lambda number, content: content + bytes(8 * number),
        "no inodes": lambda number, content: content if number == 0 else
        message(3, [bytes(4)], [(7, [])] + 6 * [(2, [])] + [b""]),
        "fewer inodes than the root states": lambda number, content: content if number == 0 else
        message(3, [bytes(4)],
                [(7, [content[8 + 8 + 8 + 64 + 8 + 56:][:56]])] + 6 * [(2, [])] + [b""])}.items():
    rootfs = store.add_image(tree(), change=change)
    mountapi.mount(store.path, mnt, f"rootfs={rootfs}")
    differences.compare(outcome(os.stat, f"{mnt}/bad"), "EUCLEAN", what)
    differences.compare(sorted(os.listdir(mnt)), ["bad", "good"], f"{what}: the root")
    check(is_named(rootfs, block_digest(rootfs).hex()), f"{what}: no line names the block")
    mountapi.umount(mnt)

# References between blocks.
entries = 8 + 8 + 8 + 8 * 8 + 8 + 2 * 56 + 8
for what, entry in {"another type": struct.pack("<BBHii", 3, 8, 0, 1, 0),
                    "no such slot": struct.pack("<BBHii", 3, 4, 2, 1, 0),
                    "no such block": struct.pack("<BBHii", 3, 4, 0, 2, 0),
                    "a block before the first": struct.pack("<BBHii", 3, 4, 0, -1, 0)}.items():
    def refer(number, content, entry=entry):
        return content if number else content[:entries + 4] + entry + content[entries + 16:]
    mountapi.mount(store.path, mnt, f"rootfs={store.add_image(tree(), change=refer)}")
    differences.compare(outcome(os.stat, f"{mnt}/bad"), "EUCLEAN", f"an entry with {what}")
    differences.compare(outcome(os.stat, f"{mnt}/good"), "success", f"an entry with {what}: another one")
    mountapi.umount(mnt)
differences.end()
