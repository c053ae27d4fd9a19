# SPDX-License-Identifier: MIT OR Apache-2.0
"""Compressed blobs: the zstd seekable format, written by its specification."""

import struct
import subprocess

# XXH64's constants.
P = (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5)
M = (1 << 64) - 1


def rotl(x, r):
    return (x << r | x >> (64 - r)) & M


def xxh64(data):
    """XXH64 with seed 0, after its specification."""
    def one(acc, lane):
        return rotl((acc + lane * P[1]) & M, 31) * P[0] & M
    at = 0
    if len(data) >= 32:
        v = [(P[0] + P[1]) & M, P[1], 0, -P[0] & M]
        while at + 32 <= len(data):
            v = [one(a, lane) for a, lane in zip(v, struct.unpack_from("<4Q", data, at))]
            at += 32
        h = sum(map(rotl, v, (1, 7, 12, 18))) & M
        for a in v:
            h = ((h ^ one(0, a)) * P[0] + P[3]) & M
    else:
        h = P[4]
    h = (h + len(data)) & M
    while at + 8 <= len(data):
        h = (rotl(h ^ one(0, struct.unpack_from("<Q", data, at)[0]), 27) * P[0] + P[3]) & M
        at += 8
    if at + 4 <= len(data):
        h = (rotl(h ^ struct.unpack_from("<I", data, at)[0] * P[0] & M, 23) * P[1] + P[2]) & M
        at += 4
    for byte in data[at:]:
        h = rotl(h ^ byte * P[4] & M, 11) * P[0] & M
    h = (h ^ h >> 33) * P[1] & M
    h = (h ^ h >> 29) * P[2] & M
    return h ^ h >> 32


def compress(data):
    return subprocess.run(["zstd", "-q", "-3", "-c"], input=data, stdout=subprocess.PIPE, check=True).stdout


def seekable(contents, checksums=False, table=None):
    """A blob of these frames' contents; `table` changes the entries."""
    frames = [compress(data) for data in contents]
    entries = [(len(frame), len(data), xxh64(data) & 0xFFFFFFFF if checksums else None)
               for frame, data in zip(frames, contents)]
    return of_frames(frames, table(entries) if table else entries, checksums)


def of_frames(frames, entries, checksums=False):
    """A blob of these frames, with a table of these entries."""
    packed = b"".join(struct.pack("<II", *e[:2]) + (struct.pack("<I", e[2]) if checksums else b"")
                      for e in entries)
    footer = struct.pack("<IBI", len(entries), 0x80 if checksums else 0, 0x8F92EAB1)
    return b"".join(frames) + struct.pack("<II", 0x184D2A5E, len(packed) + 9) + packed + footer
