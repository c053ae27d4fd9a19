# SPDX-License-Identifier: MIT OR Apache-2.0
"""Stores without chunks, and fetchers that bring them by /dev/puzzlefs."""

import errno
import os
import struct
from dataclasses import dataclass

import mountapi
import packs
from case import CASE_DIR, end, eventually, start

DEVICE = "/dev/puzzlefs"
REQUEST, ANSWER = struct.Struct("<Q32sII"), struct.Struct("<Qii")


@dataclass
class Request:
    """A request as the module gives it."""
    id: int
    digest: bytes
    length: int
    flags: int


class Fetcher:
    """An open device, attached to a store."""

    def __init__(self, store, flags=0):
        self.fd = os.open(DEVICE, os.O_RDWR | flags)
        os.write(self.fd, os.fsencode(store))

    def requests(self, most=64):
        """The next requests, of which there is at least one."""
        data = os.read(self.fd, most * REQUEST.size)
        return [Request(*fields) for fields in REQUEST.iter_unpack(data)]

    def answer(self, *requests, error=0):
        os.write(self.fd, b"".join(ANSWER.pack(request.id, error, 0) for request in requests))

    def close(self):
        os.close(self.fd)


class LazyStore:
    """A store that lacks all chunks of an image. `chunks` has them, by their digests."""

    def __init__(self, name, content, encode=packs.zstd):
        self.store = packs.Store(f"{CASE_DIR}/{name}", encode)
        self.root = content.add_image(self.store)
        self.chunks, self.store.pending = self.store.pending, {}
        self.path, self.log = self.store.path, f"{CASE_DIR}/{name}.log"

    def mount(self, mnt, options="fetch=wait"):
        mountapi.mount(self.path, mnt, ",".join([f"rootfs={self.root}", options]))

    def bring(self, digest):
        """Puts a chunk into the store."""
        self.store.add_loose(self.chunks[digest])

    def serve(self):
        """Answers all requests, and logs them."""
        fetcher = Fetcher(self.path)
        with open(self.log, "ab", buffering=0) as log:
            log.write(b"attached\n")
            while True:
                for request in fetcher.requests():
                    log.write(f"{request.digest.hex()} {request.length} {request.flags}\n".encode())
                    if request.digest in self.chunks:
                        self.bring(request.digest)
                        fetcher.answer(request)
                    else:
                        fetcher.answer(request, error=errno.ENOENT)

    def start_fetcher(self):
        """A fetcher in a child process, which is attached."""
        before = self.logged().count("attached")
        child = start(self.serve)
        eventually(lambda: self.logged().count("attached") > before, "the fetcher is not attached")
        return child

    def stop_fetcher(self, child):
        end(child, "the fetcher")

    def logged(self):
        """The lines of the log."""
        try:
            with open(self.log, encoding="ascii") as log:
                return log.read().splitlines()
        except FileNotFoundError:
            return []

    def requested(self):
        """The digests that were requested, in order."""
        return [bytes.fromhex(line.split()[0]) for line in self.logged() if line != "attached"]
