#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""A line between this network namespace and a new one, with a delay and a rate.

usage: link.py ROUND_TRIP_MS MBIT

The line has the interface `near`, NEAR, here and `far`, FAR, in the namespace of this process. It prints
`ready` when both are up, and runs until it is stopped. Kernels without netem have this line, too.

Each direction sends packets one after the other at MBIT, and delivers each half of ROUND_TRIP_MS later. A
packet is dropped if QUEUE packets are under way, as by netem's default.
"""

import collections
import fcntl
import os
import select
import struct
import subprocess
import sys
import time

NEAR, FAR = "10.99.0.1", "10.99.0.2"
QUEUE = 1000
# The most packets that are read before others are delivered.
BATCH = 64
# Of linux/if_tun.h: packets without a head of the driver's own.
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000


class Direction:
    """Packets from one interface to the other. The queue is ordered by the time of delivery."""

    def __init__(self, source, target, delay, rate):
        self.source, self.target, self.delay, self.rate = source, target, delay, rate
        self.queue = collections.deque()
        # When the last packet has been sent.
        self.sent = 0.0

    def take(self, now):
        for _ in range(BATCH):
            try:
                packet = os.read(self.source, 65536)
            except BlockingIOError:
                return
            if len(self.queue) < QUEUE:
                self.sent = max(self.sent, now) + len(packet) * 8 / self.rate
                self.queue.append((self.sent + self.delay, packet))

    def deliver(self, now):
        while self.queue and self.queue[0][0] <= now:
            os.write(self.target, self.queue.popleft()[1])


def interface(name, address):
    """Makes an interface in the present namespace."""
    file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(file, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    for command in (["address", "add", f"{address}/24", "dev", name], ["link", "set", name, "up"]):
        subprocess.run(["ip", *command], check=True)
    return file


def main():
    delay, rate = float(sys.argv[1]) / 2000, float(sys.argv[2]) * 1e6
    near = interface("near", NEAR)
    os.unshare(os.CLONE_NEWNET)
    far = interface("far", FAR)
    print("ready", flush=True)
    directions = {near: Direction(near, far, delay, rate), far: Direction(far, near, delay, rate)}
    while True:
        next_times = [direction.queue[0][0] for direction in directions.values() if direction.queue]
        wait = max(0.0, min(next_times) - time.monotonic()) if next_times else None
        readable, _, _ = select.select(list(directions), [], [], wait)
        now = time.monotonic()
        for file in readable:
            directions[file].take(now)
        for direction in directions.values():
            direction.deliver(now)


if __name__ == "__main__":
    main()
