#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Chunks, packs and pages of the chunk index that are damaged, missing or truncated: exactly the pages of
# files that need them are lost, or the chunk is found elsewhere.
#
# timeout: 300
# klog-allow: puzzlefs: (image|chunk index of)
import contextlib
import errno
import os

import damage
import mountapi
import packs
from case import CASE_DIR, PAGE, check, drop_caches, equal, run, seeded_random

random = seeded_random()
content = packs.Content(random)
content.add("big", [content.data(random.randrange(30_000, 90_000)) for _ in range(12)])
content.add("holes", [5000, random.randbytes(70_001), 100_003])
bundle = random.randbytes(90_000)
for number in range(6):
    content.add(f"small-{number}", [(bundle, number * 15_000, 15_000)])
store = packs.Store(f"{CASE_DIR}/store", packs.zstd)
root = content.add_image(store)
chunks, store.pending = store.pending, {}
mnt = f"{CASE_DIR}/mnt"
os.mkdir(mnt)


def digest_of(whole):
    return packs.digest_of(store.encode(whole))


data = {digest_of(whole) for _, node in content.files.values() for _, whole, _ in node.extents if whole}
metadata_pack = store.add_pack(chunks=[chunks[digest] for digest in chunks if digest not in data])
pack = store.add_pack(chunks=[chunks[digest] for digest in data])
store.write_index(metadata_pack, pack, pages=4)
places = {place.digest: place for place in packs.places_in(store.blob(pack))}


def lost_pages(name, lost):
    """The pages of a file that need one of these chunks."""
    expected, node = content.files[name]
    ends = [start for start, _, _ in node.extents[1:]] + [len(expected)]
    return {page for (start, whole, _), end in zip(node.extents, ends)
            if whole is not None and digest_of(whole) in lost
            for page in range(start // PAGE, -(-end // PAGE))}


def expect_lost(lost, what, verify="digest"):
    """These chunks are lost, and no others, after a new mount."""
    drop_caches()
    mountapi.mount(store.path, mnt, f"rootfs={root},verify={verify}")
    for name, (expected, _) in content.files.items():
        bad = lost_pages(name, lost)
        fd = os.open(f"{mnt}/{name}", os.O_RDONLY)
        for page in random.sample(range(-(-len(expected) // PAGE)), -(-len(expected) // PAGE)):
            at = page * PAGE
            try:
                got = os.pread(fd, PAGE, at)
            except OSError as error:
                check(error.errno == errno.EIO and page in bad, f"{what}: {name}: page {page}: {error}")
            else:
                check(page not in bad, f"{what}: {name}: page {page} can be read")
                check(got == expected[at:at + PAGE], f"{what}: {name}: page {page} differs")
        os.close(fd)
    mountapi.umount(mnt)


def log_lines():
    """The lines that the module wrote."""
    return [line for line in os.popen("dmesg --nopager").read().splitlines() if "puzzlefs: " in line]


@contextlib.contextmanager
def says(what, text):
    """While the body runs, the kernel's log gets a line with this text."""
    damage.wait_for_log()
    before = len(log_lines())
    yield
    lines = log_lines()[before:]
    check(any(text in line for line in lines), f"{what}: {text!r} is not in {lines}")


@contextlib.contextmanager
def changed(path, at=None):
    """The file is gone, or the byte at an offset is another one, as long as the body runs."""
    os.rename(path, "kept")
    if at is not None:
        with open("kept", "rb") as file:
            data = bytearray(file.read())
        data[at] ^= 1
        packs.replace(path, data)
    yield
    os.rename("kept", path)


expect_lost(set(), "nothing")
first = digest_of(content.files["big"][1].extents[0][1])
for wanted in (first, digest_of(bundle)):
    place = places[wanted]
    for at in (place.offset, place.offset + place.length - 1):
        with changed(store.blob(pack), at), \
                says("a damaged chunk", f"chunk {wanted.hex()}: its contents have another digest"):
            expect_lost({wanted}, "a damaged chunk")
expect_lost(set(), "the chunks are back")

with changed(store.blob(pack)):
    with says("a missing pack", "the store does not have it"):
        expect_lost(data, "a missing pack")
    store.add_loose(chunks[first])
    expect_lost(data - {first}, "a missing pack and a loose chunk")
    packs.replace(store.blob(first), chunks[first][:-1])
    with says("a missing pack", "the store does not have it"):
        expect_lost(data, "a missing pack and a loose chunk that is too short")
    os.remove(store.blob(first))

with open(store.blob(pack), "rb") as file:
    whole_pack = file.read()
cut = places[first].offset + places[first].length - 1
packs.replace(store.blob(pack), whole_pack[:cut])
with says("a truncated pack", "it ends too early"):
    expect_lost({place.digest for place in places.values() if place.offset + place.length > cut},
                "a truncated pack")
packs.replace(store.blob(pack), whole_pack)
expect_lost(set(), "the pack is back")

# A damaged page hides the chunks of the pack, but no loose ones.
table = store.table(store.tables)
home = packs.home_of(first, 4)
hidden = {digest for digest in data if packs.home_of(digest, 4) == home}
equal(os.path.getsize(table), 4 * PAGE, "the size of the table")
with changed(table, home * PAGE + 100):
    with says("a damaged page", f"page {home}: the checksum is wrong; reindex rebuilds it"):
        expect_lost(hidden, "a damaged page")
    for digest in hidden:
        store.add_loose(chunks[digest])
    expect_lost(set(), "a damaged page, and its chunks are loose")
    for digest in hidden:
        os.remove(store.blob(digest))

# A newer table has records with another length, which are wrong: the older table is right.
def put_index(*tables):
    """An index of the two packs, with tables of these places, the newest first."""
    numbers = []
    for places_of_table in tables[::-1]:
        store.tables += 1
        pages = packs.table_of(places_of_table, [metadata_pack, pack])
        packs.replace(store.table(store.tables), b"".join(pages))
        numbers.insert(0, (store.tables, len(pages), len(places_of_table)))
    packs.replace(f"{store.index}/catalogue", packs.catalogue_of([metadata_pack, pack], numbers))


every = packs.places_in(store.blob(metadata_pack)) + list(places.values())
# Nothing states the length of the root.
wrong = [packs.Place(place.digest, place.offset, place.length - 1, place.pack)
         for place in every if place.digest.hex() != root and place.length > 1]
put_index(wrong, every)
expect_lost(set(), "records with another length")
# One with the place of another chunk is found, and the chunk's digest is checked, under fs-verity, too.
misplaced = packs.Place(first, places[digest_of(bundle)].offset, places[first].length, pack)
put_index([misplaced], every)
with says("a record with another place", f"chunk {first.hex()}: its contents have another digest"):
    expect_lost({first}, "a record with another place")
for blob in os.listdir(f"{store.path}/blobs/sha256"):
    run("fsverity", "enable", f"{store.path}/blobs/sha256/{blob}")
expect_lost({first}, "a record with another place, and fs-verity", "fsverity")
put_index(every)
expect_lost(set(), "the right places, and fs-verity", "fsverity")

# Without an index there are no packs; nor is anything taken for a catalogue but a regular file.
for digest in chunks:
    if digest not in data:
        store.add_loose(chunks[digest])
catalogue = f"{store.index}/catalogue"
damaged = {
    "an empty catalogue": lambda: packs.replace(catalogue, b""),
    "a catalogue of another version": lambda: packs.replace(catalogue, b"PZFSCATA" + bytes(24)),
    "no catalogue": lambda: None,
    "a symbolic link": lambda: os.symlink(f"{store.index}/kept", catalogue),
    "a FIFO": lambda: os.mkfifo(catalogue),
    "a directory": lambda: os.mkdir(catalogue),
}
for what, make in damaged.items():
    os.rename(catalogue, f"{store.index}/kept")
    make()
    expect_lost(data, what)
    if what == "a directory":
        os.rmdir(catalogue)
    os.rename(f"{store.index}/kept", catalogue)
    expect_lost(set(), f"after {what}")
os.rename(f"{store.path}/.puzzlefs", "elsewhere")
os.symlink(f"{CASE_DIR}/elsewhere", f"{store.path}/.puzzlefs")
expect_lost(data, "an index behind a symbolic link")
