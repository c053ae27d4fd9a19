#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Makes a file of data and prints a page of the figures that `qemu-test/bench/lazy` took.

usage: lazy.py KERNEL DATA.json METRICS COMMAND

METRICS has a line for each measurement, "PART.NETWORK.SYSTEM.ROUND NAME=FIGURE...", with times in
microseconds since the measurement began. NETWORK is "RTT_MS/MBIT" or empty. COMMAND makes the figures again.
"""

import json
import math
import statistics
import sys

IMAGES = {"plain": "", "order": ", recorded order"}
# The limits of the targets.
LIMITS = {"transfer": {"plain": 2.0, "order": 1.3}, "pull": 0.5, "bytes": 1.3, "read": 1.1}
PIECE = 64 << 10
# The last columns of tables.
COUNTS = ["requests", "connections", "waits", "CPU"]
# The rows of the tables of starts: systems, and images for the local start.
STARTS = {"pull": ("pull", "plain"), "plain-idle": ("lazy, idle", "plain"),
          "plain-never": ("lazy, never", "plain"), "order-idle": ("lazy, idle, recorded order", "order"),
          "order-never": ("lazy, never, recorded order", "order")}

INTRODUCTION = """<!-- SPDX-License-Identifier: MIT OR Apache-2.0 -->
<!-- Written by `make bench-lazy`. -->
One Debian root filesystem in Debian's `docker-registry`, mounted before its data has arrived, and pulled, in
one guest of Linux {kernel} with two CPUs. Times are in seconds: the median of {rounds} rounds, and the
largest deviation from it. Before each measurement, the store is removed and all caches are dropped.

    {command}

- The registry runs in a network namespace of the guest, with its data in memory. A veth pair leads to it.
  `tc netem` delays each direction by half of the round trip and limits it to the rate. Connections are not
  encrypted.
- The guest is emulated. Registry, fetcher and readers share its CPUs, which are many times slower than those
  of a real machine. *Local* shows the share of the start itself: the same start after a pull, with cold
  caches.
- The guest's disk ignores requests to flush. Data becomes durable faster than on a real disk.
"""
TERMS = {
    "ready": "time from the first command until python3 and nginx have ended, mount included",
    "bytes touched":
        "stored bytes of all chunks, metadata included, that the same start requests with `read_ahead_kb` 0: "
        "those of every page that it accesses, and no others",
    "transfer time": "bytes touched / nominal rate of the link, and nothing else",
    "bytes fetched":
        "all bytes that the client's network interface has received until ready, with headers, the manifest "
        "and the indexes of the packs",
    "requests": "HTTP requests that the registry has answered until ready; of these, `GET /v2/`",
    "connections": "TCP connections that the client has opened until ready",
    "in ranges":
        "ranges that these chunks form in the packs of the image, with gaps up to 8 KiB: the number of "
        "requests if all chunks were known at once",
    "waits": "times that a task waited for a missing chunk (`fetches_awaited`)",
    "time for each wait":
        "ready without the mount, less the same of *local*, divided by the waits",
    "CPU": "CPU time of the guest's two CPUs together; of this, the registry's and the fetcher's",
}
COMMANDS = {
    "pull":
        "`puzzlefs pull -q --tls-verify=false IMAGE STORE:t`, `puzzlefs mount -o ro STORE:t MNT`, then start",
    "lazy, idle":
        "`puzzlefs mount --lazy --complete=idle --tls-verify=false --store STORE:t -o ro IMAGE MNT`, then "
        "start",
    "lazy, never": "the same with `--complete=never`: only chunks arrive that were requested",
    "lazy, now": "the same with `--complete=now`",
    "local": "`puzzlefs mount -o ro,verify=digest STORE:t MNT`, then start",
    "recorded order":
        "the image that `puzzlefs build --order` lays out by `puzzlefs record` of the start; mounted with "
        "`-o prefetch`",
    "start": "`/bin/sh -c \"python3 -c 'import json, socket, ssl' && nginx -V\"` in a chroot of the image",
    "read all": "one thread reads all regular files, 128 KiB at a time (`reader read`)",
    "walk": "one thread calls `lstat` for every name (`reader walk`)",
}
# Of others: the figure, its source, and the part of this page that is closest to it.
PUBLISHED = [
    ("eStargz, image of 2 GB, small working set", "9.4 s after a pull, 0.68 s lazily: ratio 0.07",
     "blog.vertexcover.io, October 2025", "ready, to pull"),
    ("eStargz, image of 8 GB, read completely", "45 to 54 s after a pull, 79 to 88 s lazily: ratio 1.7",
     "blog.vertexcover.io, October 2025", "read all, to pull"),
    ("lazy pull of an unnamed image", "pull 65 times faster, first HTTP response 20 times slower",
     "Hacker News, item 46936501", "none"),
]
UNMEASURED = {
    "PostgreSQL": "the sample image does not contain it",
    "nydus": "no published figure is known to us",
    "EROFS with fanotify or NBD":
        "the package erofs-utils of Debian sid has `mkfs.erofs`, `fsck.erofs` and `dump.erofs`, and no "
        "program for these mounts",
}


def row(*cells):
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def table(*header):
    return [row(*header), "|" + " --- |" * len(header)]


def seconds(microseconds):
    return f"{microseconds / 1e6:.2f}"


def megabytes(size):
    return f"{size / 1e6:.1f} MB"


class Figures:
    """The figures by part, network and system: lists of the rounds by name."""

    def __init__(self, path):
        self.of = {}
        with open(path, encoding="ascii") as file:
            for line in file:
                key, *values = line.split()
                part, network, system, _round = key.split(".")
                figures = self.of.setdefault(part, {}).setdefault(network, {}).setdefault(system, {})
                for value in values:
                    name, figure = value.split("=")
                    figures.setdefault(name, []).append(float(figure))

    def has(self, part):
        return part in self.of

    def networks(self, part):
        return self.of.get(part, {})

    def get(self, part, network, system, name):
        """The median."""
        return statistics.median(self.of[part][network][system][name])

    def spread(self, part, network, system, name):
        """The largest deviation from the median."""
        median = self.get(part, network, system, name)
        return max(abs(value - median) for value in self.of[part][network][system][name])

    def cell(self, *key):
        return f"{seconds(self.get(*key))} ± {seconds(self.spread(*key))}"


def counts(figures, key, lap):
    """The cells of the columns COUNTS until the end of a lap."""
    requests, checks, connections = (f"{figures.get(*key, f'{lap}_{name}'):.0f}"
                                     for name in ("requests", "checks", "connections"))
    cpu = [seconds(figures.get(*key, name)) for name in (f"{lap}_busy", f"{lap}_registry", "fetcher")]
    return f"{requests}; {checks}", connections, f"{figures.get(*key, 'waits'):.0f}", "; ".join(cpu)


def title(network):
    round_trip, rate = network.split("/")
    return f"{round_trip} ms, {rate} Mbit/s"


def transfer_time(figures, network):
    """In microseconds, as a rate in Mbit/s gives it."""
    return figures.get("touched", "", "", "bytes") * 8 / float(network.split("/")[1])


def page_of_links(figures):
    yield "\n## Links and images\n"
    yield from table("link", "round trip of a byte, measured", "throughput of one connection, measured")
    for network in figures.networks("link"):
        round_trip, rate = (figures.get("link", network, "", name) for name in ("round_trip", "rate"))
        yield row(title(network), f"{round_trip / 1e3:.1f} ms", f"{rate:.0f} Mbit/s")
    if not figures.has("touched"):
        return
    yield ""
    yield from table("image", "all chunks", "touched chunks", "ready, local",
                     *(f"transfer time, {title(network)}" for network in figures.networks("start")))
    for image, name in IMAGES.items():
        sizes = [(figures.get(*key, "chunks"), figures.get(*key, "bytes"))
                 for key in (("image", "", image), ("touched", "", ""))]
        yield row(f"zstd{name}", *(f"{count:.0f}, {megabytes(size)}" for count, size in sizes),
                  figures.cell("start-local", "", image, "ready"),
                  *(seconds(transfer_time(figures, network)) for network in figures.networks("start")))


def page_of_start(figures, network):
    yield f"\n## Start, {title(network)}\n"
    yield from table("system", "mounted", "ready", "to transfer time", "to transfer time + local", "to pull",
                     "bytes fetched", "to bytes touched", *COUNTS)
    touched, transfer = figures.get("touched", "", "", "bytes"), transfer_time(figures, network)
    pulled = figures.get("start", network, "pull", "ready")
    for system, (name, image) in STARTS.items():
        key = "start", network, system
        local = figures.get("start-local", "", image, "ready")
        ready, fetched = (figures.get(*key, what) for what in ("ready", "ready_received"))
        yield row(name, figures.cell(*key, "mount"), figures.cell(*key, "ready"), f"{ready / transfer:.2f}",
                  f"{ready / (transfer + local):.2f}", f"{ready / pulled:.2f}", megabytes(fetched),
                  f"{fetched / touched:.2f}", *counts(figures, key, "ready"))
    yield "\nOf the figures with `--complete=never`:\n"
    yield from table("image", "bytes until mounted", "requests until mounted", "chunks requested",
                     "their bytes", "in ranges", "bytes touched", "time for each wait")
    for image, name in IMAGES.items():
        key = "start", network, f"{image}-never"
        ready, mounted, waits, requests, chunks = (
            figures.get(*key, what) for what in ("ready", "mount", "waits", "mount_requests", "chunks"))
        local = [figures.get("start-local", "", image, what) for what in ("mount", "ready")]
        yield row(f"zstd{name}", megabytes(figures.get(*key, "mount_received")), f"{requests:.0f}",
                  f"{chunks:.0f}", megabytes(figures.get(*key, "bytes")),
                  f"{figures.get(*key, 'ranges'):.0f}", megabytes(touched),
                  f"{(ready - mounted - local[1] + local[0]) / max(waits, 1) / 1e3:.0f} ms")


def page_of_read(figures, network):
    yield f"\n## Read all, {title(network)}\n"
    yield from table("system", "mounted", "all read", "to pull", "bytes fetched", *COUNTS)
    pulled = figures.get("read", network, "pull", "read")
    for system in "pull", "idle", "now":
        key = "read", network, system
        yield row(system if system == "pull" else f"lazy, {system}", figures.cell(*key, "mount"),
                  figures.cell(*key, "read"), f"{figures.get(*key, 'read') / pulled:.2f}",
                  megabytes(figures.get(*key, "read_received")), *counts(figures, key, "read"))


def page_of_walk(figures):
    yield """
## Walk of all names

After `mount --lazy --complete=never`. *Local* needs the part `local`: the walk of a complete image with
`verify=digest`.
"""
    yield from table("link", "walk", "local", "metadata that arrived", "in chunks", "in ranges",
                     "metadata / 64 KiB", "time / round trip", "bytes fetched", *COUNTS)
    for network in figures.networks("walk"):
        key = "walk", network, "never"
        metadata = figures.get(*key, "bytes")
        local = figures.cell("local", "walk", "digest", "walk") if figures.has("local") else ""
        yield row(title(network), figures.cell(*key, "walk"), local, f"{metadata / 1e3:.0f} kB",
                  *(f"{figures.get(*key, what):.0f}" for what in ("chunks", "ranges")),
                  f"{metadata / PIECE:.1f}",
                  f"{figures.get(*key, 'walk') / 1e3 / float(network.split('/')[0]):.1f}",
                  f"{figures.get(*key, 'walk_received') / 1e3:.0f} kB", *counts(figures, key, "walk"))


def page_of_local(figures):
    systems = figures.of["local"]["read"]
    yield f"""
## Local data with a fetcher attached

Rounds: {len(systems["fetcher"]["read"])}. The image is complete, and caches are cold. The fetcher is a
process that has attached to the store by `/dev/puzzlefs` and gets no requests. The mount has `fetch=wait`,
which implies `verify=digest`.
"""
    yield from table("workload", "`verify=digest`", "with a fetcher", "ratio")
    names = {"walk": "walk", "read": "read all", "ready": "start"}
    for workload, systems in figures.networks("local").items():
        with_fetcher, without = (figures.get("local", workload, system, workload)
                                 for system in ("fetcher", "digest"))
        yield row(names[workload], *(figures.cell("local", workload, system, workload) for system in systems),
                  f"{with_fetcher / without:.2f}")


def targets(figures):
    """Yields the target, the link, the measured figure, the limit, and true if it is met."""
    for network in figures.networks("start"):
        for image, name in IMAGES.items():
            idle, pulled = (figures.get("start", network, system, "ready")
                            for system in (f"{image}-idle", "pull"))
            ratio, limit = idle / transfer_time(figures, network), LIMITS["transfer"][image]
            yield f"ready, to the transfer time{name}", network, f"{ratio:.2f}", limit, ratio <= limit
            ratio, limit = idle / pulled, LIMITS["pull"]
            yield f"ready, to ready after a pull{name}", network, f"{ratio:.2f}", limit, ratio <= limit
            for complete in "never", "idle":
                fetched = figures.get("start", network, f"{image}-{complete}", "ready_received")
                ratio, limit = fetched / figures.get("touched", "", "", "bytes"), LIMITS["bytes"]
                what = " and in the background" if complete == "idle" else ""
                yield f"bytes fetched on demand{what}, to the bytes touched{name}", network, f"{ratio:.2f}", \
                    limit, ratio <= limit
    for network in figures.networks("read"):
        for complete in "idle", "now":
            ratio = (figures.get("read", network, complete, "read")
                     / figures.get("read", network, "pull", "read"))
            yield f"read all, to pull and read, {complete}", network, f"{ratio:.2f}", LIMITS["read"], \
                ratio <= LIMITS["read"]
    for network in figures.networks("walk"):
        limit = math.ceil(figures.get("walk", network, "never", "bytes") / PIECE)
        count = figures.get("walk", network, "never", "walk_requests")
        yield "requests of a walk, one for each 64 KiB of metadata", network, f"{count:.0f}", limit, \
            count <= limit
    for workload in figures.networks("local"):
        key = "local", workload
        ratio = figures.get(*key, "fetcher", workload) / figures.get(*key, "digest", workload)
        deviation = max(figures.spread(*key, system, workload) for system in ("fetcher", "digest"))
        limit = 1 + deviation / figures.get(*key, "digest", workload)
        yield f"local data with a fetcher, {workload}", "", f"{ratio:.2f}", f"{limit:.2f} (the spread)", \
            ratio <= limit


def page_of_targets(figures):
    yield "\n## Targets\n"
    yield from table("target", "link", "measured", "limit", "result")
    for what, network, measured, limit, is_met in targets(figures):
        yield row(what, title(network) if network else "", measured, limit, "met" if is_met else "**missed**")


def page_of_published(figures):
    """Yields figures of others, and the ratios of this page for the same measure."""
    ours = {"none": []}
    ours["ready, to pull"] = [
        figures.get("start", network, "plain-idle", "ready")
        / figures.get("start", network, "pull", "ready") for network in figures.networks("start")]
    ours["read all, to pull"] = [
        figures.get("read", network, "idle", "read") / figures.get("read", network, "pull", "read")
        for network in figures.networks("read")]
    yield """
## Published figures

Images, links and machines differ, so only the ratios can be compared, and only roughly.
"""
    yield from table("system", "published", "source", "this page", "lazy, idle")
    for system, figure, source, measure in PUBLISHED:
        yield row(system, figure, source, measure, ", ".join(f"{ratio:.2f}" for ratio in ours[measure]))


def page(figures, kernel, rounds, command):
    yield INTRODUCTION.format(kernel=kernel, rounds=rounds, command=command)
    for first, words in ("term", TERMS), ("row", COMMANDS):
        yield from table(first, "meaning")
        yield from (row(*item) for item in words.items())
        yield ""
    yield from table("not measured", "cause")
    yield from (row(*item) for item in UNMEASURED.items())
    yield from page_of_links(figures)
    for network in figures.networks("start"):
        yield from page_of_start(figures, network)
    for network in figures.networks("read"):
        yield from page_of_read(figures, network)
    if figures.has("walk"):
        yield from page_of_walk(figures)
    if figures.has("local"):
        yield from page_of_local(figures)
    yield from page_of_targets(figures)
    yield from page_of_published(figures)


def main():
    kernel, data, metrics, command = sys.argv[1:]
    figures = Figures(metrics)
    rounds = max((len(values) for name, part in figures.of.items() if name != "local"
                  for network in part.values() for system in network.values() for values in system.values()))
    with open(data, "w", encoding="ascii") as file:
        json.dump({"kernel": kernel, "rounds": rounds, "unit": "microseconds, bytes, Mbit/s",
                   "figures": figures.of}, file, indent=1)
        file.write("\n")
    for line in page(figures, kernel, rounds, command):
        print(line)


if __name__ == "__main__":
    main()
