# SPDX-License-Identifier: MIT OR Apache-2.0
"""Metadata blobs in which rules of the format are broken, one at a time or many at once, by a
generator of random numbers: the same numbers break them in the same way."""

import copy
import struct

from metadata import KINDS, Chunk, Inode, encode_layers

U64 = (1 << 64) - 1


def everything(blobs):
    """Two layers of inodes, of every kind and in every form; `blobs` are pairs of a digest and a
    size, the last of which is compressed."""
    (raw, size), (compressed, content) = blobs
    stamp = {"mtime": (1_000_000_000, 5), "nlink": 1}
    upper = [
        Inode(1, "dir", 0o755, entries=[(b"gone", 5), (b"new", 9), (b"sub", 3)], look_below=True,
              mtime=(1, 2), nlink=3),
        Inode(3, "dir", 0o755, entries=[(b"z", 9), (b"a", 4), (b"m", 11)], look_below=True, nlink=2),
        Inode(5, "wht"),
        Inode(9, chunks=[Chunk(raw, 100), Chunk(raw, size - 50, 50), Chunk(compressed, content, 0, True)],
              size=size + content + 50, **stamp),
        Inode(11, "fifo"),
    ]
    lower = [
        Inode(1, "dir", 0o755,
              entries=[(b"block", 7), (b"char", 6), (b"deep", 12), (b"gone", 5), (b"link", 8),
                                        (b"same", 4), (b"sub", 3)], nlink=4),
        Inode(3, "dir", 0o755, entries=[(b"b", 4), (b"c", 10)]),
        Inode(4, chunks=[Chunk(compressed, 10, 5, True)],
              xattrs=[(b"user.a", b"1"), (b"user.long", b"v" * 300)]),
        Inode(5, chunks=[Chunk(raw, 10)]),
        Inode(6, "chr", device=(1, 3)),
        Inode(7, "blk", device=(8, 1)),
        Inode(8, "lnk", 0o777, target=b"sub/../same"),
        Inode(10, "sock"),
        Inode(12, "dir", 0o755, entries=[(b"er", 13)]),
        Inode(13, "dir", 0o755, entries=[(b"file", 4)]),
    ]
    return [upper, lower]


def mutant(random, layers):
    """A blob of these layers with something wrong in it: in what it says, in how it says it, or in
    both."""
    what = random.random()
    if what < 0.7:
        layers = copy.deepcopy(layers)
        for _ in range(random.choice((1, 1, 1, 2, 4, 8))):
            _change_model(random, layers)
    blob = bytearray(encode_layers(layers, data_size=random.choice((None, 0, 1 << 20, 1 << 62, U64))))
    if what > 0.4:
        for _ in range(random.choice((1, 1, 2, 4, 8))):
            _change_word(random, blob)
    if random.random() < 0.02:
        return bytes(blob[:random.randrange(len(blob))])
    return bytes(blob)


def _number(random):
    return random.choice((0, 1, 2, 3, 4, 9, 14, 255, 256, 4095, 4096, 65536, 1 << 20, (1 << 31) - 1, 1 << 32,
                          (1 << 63) - 1, 1 << 63, U64 - 1, U64, random.getrandbits(64)))


def _name(random):
    return random.choice((b"", b".", b"..", b"/", b"a/b", b"a\0b", b"\0", b"n" * 255, b"n" * 256,
                          b"n" * 70_000, b"sub", b"same", b"\xff\xfe", random.randbytes(3)))


def _change_model(random, layers):
    layer = random.choice(layers)
    if not layer:
        layers.remove(layer)
        layers.append([Inode(1, "dir", entries=[])])
        return
    at = random.randrange(len(layer))
    inode = layer[at]
    change = random.choice((_ino, _kind, _body, _body, _body, _body, _attributes, None))
    if change:
        change(random, inode)
    else:
        # An inode is missing, or there twice, or they are not in order; a layer is there twice.
        random.choice((lambda: layer.pop(at), lambda: layer.insert(0, inode), layer.reverse,
                       lambda: random.shuffle(layer), lambda: layers.append(layer)))()


def _ino(random, inode):
    inode.ino = _number(random)


def _kind(random, inode):
    inode.kind = random.choice(KINDS)
    inode.discriminant = random.choice((None, None, 9, 0xFFFF))


def _attributes(random, inode):
    what = random.randrange(6)
    if what == 0:
        inode.xattrs = [(random.choice((b"", b"user.", b"user", b".", b"user.a", b"security.x\0",
                                        b"user." + b"n" * 251)),
                         bytes(random.choice((0, 1, 65536, 65537))))
                        for _ in range(random.choice((1, 2, 40)))]
    elif what == 1:
        inode.target = random.choice((b"", b"\0", b"t" * 4095, b"t" * 4096, b"link", b"/"))
    elif what == 2:
        inode.device = (_number(random), _number(random))
    elif what == 3:
        inode.mode = random.getrandbits(16)
        inode.uid = inode.gid = random.choice((0, 1 << 31, (1 << 32) - 1))
    elif what == 4:
        inode.mtime = (random.choice((-(1 << 63), (1 << 63) - 1, -1)),
                       random.choice((0, 10**9, (1 << 32) - 1)))
        inode.nlink = random.choice((0, 1, (1 << 32) - 1))
    else:
        inode.size = _number(random)
        inode.nlink = 1


def _body(random, inode):
    if inode.kind == "dir":
        _entries(random, inode)
    elif inode.chunks:
        chunk = random.choice(inode.chunks)
        what = random.randrange(6)
        if what == 0:
            chunk.length = _number(random)
        elif what == 1:
            chunk.offset = _number(random)
        elif what == 2:
            chunk.compressed = not chunk.compressed
        elif what == 3:
            chunk.blob = random.choice((b"", chunk.blob[:31], chunk.blob + b"x", random.randbytes(32),
                                        bytes(32)))
        else:
            inode.chunks *= random.choice((2, 50))
            inode.nlink = None if what == 4 else inode.nlink
    else:
        _attributes(random, inode)


def _entries(random, inode):
    entries, what = inode.entries, random.randrange(5)
    if what == 0:
        entries.append((_name(random), random.choice((1, 3, 4, 12, 13, inode.ino, _number(random)))))
    elif what == 1:
        random.shuffle(entries)
    elif what == 2:
        inode.look_below = not inode.look_below
    elif entries:
        at = random.randrange(len(entries))
        name, _ = entries[at]
        # Its own parent, a second name of a directory, or nothing at all.
        entries[at] = (name, random.choice((inode.ino, 1, 3, 12, _number(random))))
        if what == 3:
            entries.append(entries[at])


def _change_word(random, blob):
    words = len(blob) // 8
    at, other = random.randrange(1, words) * 8, random.randrange(1, words) * 8
    what = random.randrange(6)
    if what == 0:
        blob[at:at + 8] = blob[other:other + 8]
    elif what == 1:
        blob[at + random.randrange(8)] ^= 1 << random.randrange(8)
    elif what == 2:
        length = min(random.randrange(1, 16) * 8, len(blob) - max(at, other))
        blob[at:at + length] = blob[other:other + length]
    else:
        struct.pack_into("<Q", blob, at, _pointer(random))


def _pointer(random):
    """A word that says something to a reader of messages."""
    offset = random.randrange(-60, 300) << 2 & 0xFFFFFFFF
    size, count = random.randrange(8), random.choice((0, 1, 7, 100, (1 << 29) - 1))
    return random.choice((
        0, _number(random),
        offset | size << 32 | random.randrange(4) << 48,
        offset | 1 | size << 32 | count << 35,
        # A far pointer, and the tag of a list.
        random.randrange(300) << 3 | random.getrandbits(1) << 2 | 2 | random.randrange(3) << 32,
        count << 2 | size << 32 | random.randrange(4) << 48,
    ))
