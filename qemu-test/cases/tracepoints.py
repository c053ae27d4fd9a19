#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# The tracepoints puzzlefs:* follow a read: requests, the chunks that they need and where the bytes came from,
# decoding, prefetching. An error names the chunk that is damaged. Histograms count every event.
#
# timeout: 120
# klog-allow: puzzlefs: image
import errno
import mmap
import os
import re

import mountapi
import packs
import tracing
from case import CASE_DIR, PAGE, check, drop_caches, equal, seeded_random
from tracing import EVENTS, INSTANCE, named, traced, write

SOURCES = {"cache", "buffer", "prefetched", "read", "lower"}


def device_of(path):
    device = os.stat(path).st_dev
    return f"{os.major(device)}:{os.minor(device)}"


def prefix(digest):
    return digest[:8].hex()


random = seeded_random()
content = packs.Content(random)
for number in range(30):
    # Some chunks are raw, some are compressed.
    content.add(f"{number:02}", [random.randbytes(60_000 + number), content.data(50_000 + number)])
store = packs.Store(f"{CASE_DIR}/store", packs.zstd)
root = content.add_image(store)
chunks, store.pending = store.pending, {}
stored = {whole: store.encode(whole) for _, node in content.files.values() for _, whole, _ in node.extents}
digests = {whole: packs.digest_of(data) for whole, data in stored.items()}
metadata_pack = store.add_pack(chunks=[chunks[d] for d in chunks if d not in digests.values()])
pack = store.add_pack(chunks=[chunks[digest] for digest in digests.values()])
store.write_index(metadata_pack, pack)
places = {place.digest: place for place in packs.places_in(store.blob(pack))}
pack_size = os.path.getsize(store.blob(pack))
mnt = f"{CASE_DIR}/mnt"
os.mkdir(mnt)


def mount(verify):
    mountapi.mount(store.path, mnt, f"rootfs={root},verify={verify}")
    drop_caches()
    os.listdir(mnt)


def read_all():
    """Reads all files in the order of the pack."""
    for name, (expected, _) in content.files.items():
        with open(f"{mnt}/{name}", "rb") as file:
            equal(file.read() == expected, True, f"the contents of {name}")


def requests_of(events, name):
    """The requests for a file, each with the events of its task up to its end."""
    status = os.stat(f"{mnt}/{name}")
    begins = named(events, "request", ino=status.st_ino, dev=device_of(mnt))
    for begin in begins:
        of_task = [event for event in events[events.index(begin):] if event.task == begin.task]
        ends = [at for at, event in enumerate(of_task) if event.name == "request_end"]
        check(ends, f"{begin} has no end")
        end = of_task[ends[0]]
        equal((end.dev, end.ino, end.offset, end.len), (begin.dev, begin.ino, begin.offset, begin.len),
              f"the end of {begin}")
        yield begin, of_task[1:ends[0]], end


def check_file(events, name, verified):
    """The events of a file that is read for the first time are there, in their order."""
    expected, node = content.files[name]
    asked, within = set(), []
    for begin, inside, end in requests_of(events, name):
        check(begin.len % PAGE == 0 and 0 < begin.folios <= begin.len // PAGE, f"{begin}")
        equal((begin.kind, end.failed), ("readahead", 0), f"{begin}")
        check(0 < end.duration_ns < 10**11, f"{end}")
        check(sum(event.wait_ns for event in inside if event.name in ("chunk", "read")) <= end.duration_ns,
              f"{end} took less time than {inside}")
        asked |= set(range(begin.offset // PAGE, (begin.offset + begin.len) // PAGE))
        within += inside
    equal(asked, set(range(-(-len(expected) // PAGE))), f"the pages of {name} that were asked for")
    for _, whole, _ in node.extents:
        digest, data = digests[whole], stored[whole]
        is_raw = data == whole
        of_chunk = named(within, "chunk", chunk=prefix(digest))
        check(of_chunk, f"{name}: no event of chunk {digest.hex()}")
        for event in of_chunk:
            check(event.source in SOURCES and event.wait_ns >= 0, f"{event}")
            place = places[digest]
            equal((event.file, event.encoding), (prefix(pack), "raw" if is_raw else "zstd"), f"{event}")
            if verified or not is_raw:
                equal((event.offset, event.len), (place.offset, place.length), f"{event}")
            else:
                check(place.offset <= event.offset
                      and event.offset + event.len <= place.offset + place.length, f"{event}")
        first = of_chunk[0]
        check(first.source in ("buffer", "prefetched", "read"), f"the first bytes: {first}")
        check(first.source != "read" or first.wait_ns > 0, f"{first}")
        behind = within[within.index(first):]
        hashed = named(behind, "decode", step="hash", stored_len=len(data), content_len=len(data))
        equal(bool(hashed), verified, f"{name}: chunk {digest.hex()} is hashed")
        decoded = named(behind, "decode", step="zstd", stored_len=len(data), content_len=len(whole))
        equal(bool(decoded), not is_raw, f"{name}: chunk {digest.hex()} is decompressed")
        if hashed and decoded:
            check(behind.index(hashed[0]) < behind.index(decoded[0]), f"{name}: decompressed before hashed")
        check(all(event.duration_ns > 0 for event in hashed + decoded), f"{hashed} {decoded}")


tracing.make_instance()
for verify in ("digest", "none"):
    mount(verify)
    with traced() as events:
        read_all()
    for name in content.files:
        check_file(events, name, verify == "digest")
    # The two chunks of the first file are read together. What follows is prefetched.
    together, prefetches = named(events, "read"), named(events, "prefetch", file=prefix(pack))
    check(all(event.reads and event.len and event.wait_ns for event in together), f"{together}")
    check(together, "no reads were done together")
    check(prefetches, "nothing was prefetched")
    check(all(event.len and event.offset + event.len <= pack_size for event in prefetches), f"{prefetches}")
    check(named(events, "chunk", source="prefetched"), "nothing that was prefetched was used")
    equal(named(events, "error"), [], "errors")
    with traced() as events:
        read_all()
    equal(events, [], "events of reads from the page cache")
    mountapi.umount(mnt)

# A page of a map without readahead.
mount("digest")
with open(f"{mnt}/03", "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as memory:
    memory.madvise(mmap.MADV_RANDOM)
    with traced() as events:
        memory[0]
    requests = list(requests_of(events, "03"))
    equal([(begin.kind, begin.offset) for begin, _, _ in requests], [("read", 0)], "the requests of a fault")
mountapi.umount(mnt)

# While nobody traces, there are no events. A histogram needs no other program.
histogram = f"{EVENTS}/puzzlefs_chunk/trigger"
mount("digest")
write(f"{INSTANCE}/trace", "")
write(histogram, "hist:keys=source,wait_ns.log2:vals=len")
with open(f"{EVENTS}/puzzlefs_chunk/hist") as file:
    check("Hits: 0" in file.read(), "the histogram counts before there are events")
read_all()
with open(f"{EVENTS}/puzzlefs_chunk/hist") as file:
    text = file.read()
write(histogram, "!hist:keys=source,wait_ns.log2:vals=len")
hits = sum(map(int, re.findall(r"hitcount: +(\d+)", text)))
check(hits >= len(digests) and f"Hits: {hits}" in text, f"{hits} events in the histogram: {text}")
mountapi.umount(mnt)
equal(tracing.lines(), [], "events while no event is on")

# A damaged chunk is named, after its bytes were read, and fails its request alone.
name = "20"
bad = digests[content.files[name][1].extents[1][1]]
with open(store.blob(pack), "rb") as file:
    damaged = bytearray(file.read())
damaged[places[bad].offset + 7] ^= 1
packs.replace(store.blob(pack), damaged)
mount("digest")
with traced() as events:
    try:
        with open(f"{mnt}/{name}", "rb") as file:
            file.read()
        check(False, f"{name} can be read")
    except OSError as error:
        equal(error.errno, errno.EIO, "the error")
errors = named(events, "error")
check(errors, "no event of an error")
start = content.files[name][1].extents[1][0]
for event in errors:
    equal((event.image, event.ino, event.digest, event.error),
          (root[:16], os.stat(f"{mnt}/{name}").st_ino, prefix(bad), -errno.EIO), "the error")
    equal(event.cause, "its contents have another digest", "the cause")
    check(start <= event.offset < len(content.files[name][0]), f"{event}: the chunk begins at {start}")
    before = [other for other in events[:events.index(event)] if other.task == event.task]
    check(named(before, "chunk", chunk=prefix(bad)), f"no event of the chunk before {event}")
failed = [end for _, inside, end in requests_of(events, name) if named(inside, "error")]
check(failed and all(end.failed for end in failed), f"the requests that failed: {failed}")
mountapi.umount(mnt)
os.rmdir(INSTANCE)
