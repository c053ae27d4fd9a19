#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Makes a file of data and prints a page of the figures that `qemu-test/bench/slow` took.

usage: slow.py KERNEL DATA.json METRICS BLOCKS FUNCTIONS COMMAND

METRICS has a line "latency.DELAY MICROSECONDS" for each delay, and one for each measurement, in order of
systems: "SYSTEM.WORKLOAD.DELAY.ROUND", microseconds, requests, bytes, sleeps, and the half-open range of the
reader's runs that belong to it. If FUNCTIONS is not 0, it has lines "symbols.OFFSET BASE64", too, and BLOCKS
has the instructions of each run. COMMAND makes the figures again.
"""

import json
import statistics
import sys
import textwrap

import functions

WORKLOADS = {
    "mount": "mount",
    "walk": "walk",
    "random": "300 x 4 KiB",
    "python": "python",
    "nginx": "nginx",
    "readers": "8 readers",
    "read": "read all",
    "limit": "dd",
}
FIGURES = ["time", "requests", "bytes", "sleeps"]
INTRODUCTION = """<!-- SPDX-License-Identifier: MIT OR Apache-2.0 -->
<!-- Written by `make bench`. -->
One Debian root filesystem in one guest of Linux {kernel}. All images are on one ext4 on a disk in
memory (`null_blk`) that ends each request after a delay. The headings state the measured time of a read of 4
KiB, too, in which one read follows the other. Rounds: {rounds}; each round measures every system. Before each
measurement, all caches are dropped and the image is mounted again. Emulation distorts absolute times; compare
ratios.

| column | workload |
| --- | --- |
| mount | `mount`, to its end |
| walk | one thread calls `lstat` for every name |
| 300 x 4 KiB | one thread reads 4 KiB at 300 random offsets of one large file |
| python | `python3 -c 'import json, socket, ssl'` in a chroot of the image |
| nginx | `nginx -V` in a chroot of the image |
| 8 readers | eight threads read all regular files |
| read all | one thread reads all regular files, 128 KiB at a time |
| dd | `dd bs=1M iflag=direct` reads the files of the image: the limit with one request in flight |

| row | system |
| --- | --- |
| `puzzlefs`, `puzzlefs-zstd` | format 4 with `verify=none`; `-digest`: with `verify=digest` |
| `-order` | laid out by a recorded start-up order of python and nginx, mounted with `prefetch` |
| `puzzlefs-3`, `puzzlefs-3-zstd` | format 3, the same |
| `erofs`, `erofs-zstd` | mounted from a file; `erofs-loop`: through a loop device |
| `erofs-dedupe` | `erofs-zstd` with `-Ededupe` |
| `squashfs` | zstd, mounted through a loop device |
| `composefs` | EROFS with the names, overlayfs to the files |

    {command}

![Bars of the figures below](slow-disks.svg)
"""


def read_metrics(path):
    """Figures by delay, system, workload and figure; the latency by delay; the lines of symbols."""
    delays, latencies, symbols = {}, {}, []
    with open(path, encoding="ascii") as file:
        for line in file:
            key, *values = line.split()
            if key.startswith("symbols."):
                symbols.append((key, values[0]))
                continue
            if key.startswith("latency."):
                latencies[key.removeprefix("latency.")] = int(values[0])
                continue
            system, workload, delay, _round = key.rsplit(".", 3)
            figures = delays.setdefault(delay, {}).setdefault(system, {}).setdefault(workload, {})
            *values, first, end = map(int, values)
            for name, value in zip(FIGURES, values, strict=True):
                figures.setdefault(name, []).append(value)
            figures.setdefault("runs", []).append((first, end))
    return delays, latencies, symbols


def add_functions(delays, runs, wanted):
    """Puts the instructions of each measurement and its largest functions in the place of its runs."""
    for systems in delays.values():
        for of in systems.values():
            for figures in of.values():
                ranges = figures.pop("runs")
                if not wanted:
                    continue
                sums, totals = {}, []
                for first, end in ranges:
                    totals.append(sum(sum(run.values()) for run in runs[first:end]))
                    for run in runs[first:end]:
                        for name, count in run.items():
                            sums[name] = sums.get(name, 0) + count / len(ranges)
                figures["instructions"] = totals
                largest = sorted(sums.items(), key=lambda item: -item[1])
                figures["functions"] = {name: round(count) for name, count in largest[:wanted]}


def milliseconds(figures):
    """Median, and the largest deviation of a round from it."""
    times = [time / 1000 for time in figures["time"]]
    median = statistics.median(times)
    if len(times) == 1:
        return f"{median:,.0f}"
    return f"{median:,.0f} ± {max(abs(time - median) for time in times):,.0f}"


def counts(figures):
    requests, size, sleeps = (statistics.median(figures[name]) for name in FIGURES[1:])
    return f"{requests:,.0f} / {size / 1e6:.1f} / {sleeps:,.0f}"


def millions(count):
    return f"{count / 1e6:.1f}" if count < 100e6 else f"{count / 1e6:,.0f}"


def table(systems, cell):
    columns = [name for name in WORKLOADS if any(name in of for of in systems.values())]
    yield "| system | " + " | ".join(WORKLOADS[name] for name in columns) + " |"
    yield "| --- |" + " --- |" * len(columns)
    for system, of in systems.items():
        yield "| " + " | ".join([system, *(cell(of[name]) if name in of else "" for name in columns)]) + " |"


def function_tables(delay, systems):
    yield f"""
## Instructions by function

Millions of instructions that the guest executed on both CPUs during a measurement at {delay} ms: all, and
those of the largest functions. `programs` stands for everything outside of the kernel. A QEMU plugin counts
them (`qemu-test/bench/instructions.c`)."""
    for workload in WORKLOADS:
        rows = [(system, of[workload]) for system, of in systems.items() if workload in of]
        if not rows or workload == "limit":
            continue
        yield f"\n### {WORKLOADS[workload]}\n\n| system | all | largest functions |\n| --- | --- | --- |"
        for system, figures in rows:
            largest = ", ".join(f"`{name}` {millions(count)}" for name, count in figures["functions"].items())
            yield f"| {system} | {millions(statistics.median(figures['instructions']))} | {largest} |"


def main():
    kernel, data, metrics, blocks, wanted, command = sys.argv[1:]
    wanted = int(wanted)
    delays, latencies, symbols = read_metrics(metrics)
    add_functions(delays, functions.read(blocks, *functions.symbols(symbols)) if wanted else [], wanted)
    every = [figures for systems in delays.values() for of in systems.values() for figures in of.values()]
    rounds = max(len(figures["time"]) for figures in every)
    with open(data, "w", encoding="ascii") as file:
        json.dump({"kernel": kernel, "rounds": rounds, "unit": "microseconds, bytes, instructions",
                   "latencies": latencies, "delays": delays}, file, indent=1)
        file.write("\n")
    # As long as a line of a page can be.
    lines = textwrap.wrap(command, 100, break_long_words=False, break_on_hyphens=False)
    command = " \\\n        ".join(lines)
    print(INTRODUCTION.format(kernel=kernel, rounds=rounds, command=command), end="")
    for delay, systems in delays.items():
        print(f"\n## {delay} ms per request (measured: {latencies[delay] / 1000:.1f} ms)\n")
        print("Milliseconds: the median, and the largest deviation from it.\n")
        print("\n".join(table(systems, milliseconds)))
        print("\nRequests that reached the disk / MB / voluntary context switches of the reader:\n")
        print("\n".join(table(systems, counts)))
    if wanted:
        print("\n".join(function_tables(*list(delays.items())[-1])))


if __name__ == "__main__":
    main()
