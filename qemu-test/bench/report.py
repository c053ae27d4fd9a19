#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Makes a file of data and a page of the figures that a benchmark took.

usage: report.py KERNEL DATA.json PAGE.md PEERS VERSIONS INSTRUCTIONS

PEERS has a line for each figure: "SYSTEM.WORKLOAD.ROUND MICROSECONDS",
"SYSTEM.memory.ROUND BYTES" or "SYSTEM.bytes BYTES"; VERSIONS one for each of
many mounts and of an image of many files: "SYSTEM.WHAT FIGURE". INSTRUCTIONS
has two lines, for before and behind, for each time of PEERS, in their order; or
it does not exist.
"""

import json
import os
import statistics
import sys

WORKLOADS = {
    "mount": "mount",
    "cold-walk": "walk, cold",
    "warm-walk": "walk, warm",
    "cold-read": "read all, cold",
    "warm-read": "read all, warm",
    "cold-readers": "8 readers, cold",
    "cold-random": "500 x 4 KiB, cold",
    "cold-map": "500 pages of a map, cold",
    "cold-python": "start python3, cold",
    "cold-nginx": "start nginx, cold",
}
VERSIONS = ["bytes", "mount", "read", "memory", "again", "memory-again"]
MANY = ["many-bytes", "many-mount", "many-mounted", "many-walk", "many-walked"]
SYSTEMS = ["ext4", "puzzlefs", "puzzlefs-noshare", "puzzlefs-digest", "puzzlefs-fsverity", "puzzlefs-3",
           "erofs", "erofs-share", "composefs", "composefs-fsverity", "puzzlefs-zstd",
           "puzzlefs-zstd-digest", "puzzlefs-3-zstd", "erofs-zstd", "squashfs", "reference-fuse"]


def cell(values):
    """Median, and how far the rounds were from it, in seconds."""
    median = statistics.median(values)
    spread = max(max(values) - median, median - min(values))
    digits = 2 if median < 10e6 else 1
    return f"{median / 1e6:.{digits}f} ± {spread / 1e6:.{digits}f}"


def in_order(systems):
    return sorted(systems, key=lambda name: (SYSTEMS + [name]).index(name))


def table(systems):
    lines = ["| system | size | " + " | ".join(WORKLOADS.values()) + " | cached after |",
             "| --- |" + " --- |" * (len(WORKLOADS) + 2)]
    for name in in_order(systems):
        of = systems[name]
        size = f"{of['bytes'] / 1e6:.1f} MB" if "bytes" in of else ""
        times = [cell(of[workload]) for workload in WORKLOADS]
        memory = f"{statistics.median(of['memory']) / 1e6:.0f} MB"
        lines.append("| " + " | ".join([name, size, *times, memory]) + " |")
    return "\n".join(lines)


def instructions(peers, marks):
    """Millions of instructions by system and by workload: the median of the rounds."""
    with open(peers, encoding="ascii") as file:
        keys = [line.split()[0].split(".") for line in file]
    keys = [(system, what[0]) for system, *what in keys if len(what) == 2 and what[0] != "memory"]
    with open(marks, encoding="ascii") as file:
        counts = [int(line) for line in file]
    if len(counts) != 2 * len(keys):
        raise SystemExit(f"{marks}: {len(counts)} marks for {len(keys)} times")
    systems = {}
    for (system, what), before, behind in zip(keys, counts[::2], counts[1::2]):
        systems.setdefault(system, {}).setdefault(what, []).append((behind - before) / 1e6)
    systems = {system: {what: statistics.median(rounds) for what, rounds in of.items()}
               for system, of in systems.items()}
    # What it takes to set two marks, where programs of their own do it.
    between = systems.pop("marks")["marks"]
    for of in systems.values():
        for what in ("mount", "cold-python", "cold-nginx"):
            of[what] -= between
    return {system: {what: round(count, 1) for what, count in of.items()} for system, of in systems.items()}


def instruction_table(systems):
    if not systems:
        return ""
    lines = []
    for name in in_order(systems):
        counts = [systems[name][workload] for workload in WORKLOADS]
        counts = [f"{count:.1f}" if count < 100 else f"{count:.0f}" for count in counts]
        lines.append("| " + " | ".join([name, *counts]) + " |")
    return f"""
## Instructions

Millions of instructions that the guest executed on both CPUs, in the kernel and in programs: the median of
the rounds. These counts hardly vary between rounds, and do not depend on other load. They show work and not
time: instructions differ in duration, and a waiting process executes none.

| system | {" | ".join(WORKLOADS.values())} |
| --- |{" --- |" * len(WORKLOADS)}
""" + "\n".join(lines)


def figure(what, value):
    """A single figure: seconds, or megabytes."""
    if what.removeprefix("many-") in ("mount", "read", "again", "walk"):
        return f"{value / 1e6:.2f}" if value < 10e6 else f"{value / 1e6:.0f}"
    return f"{value / 1e6:.0f} MB" if value >= 10e6 else f"{value / 1e6:.1f} MB"


def rows(systems, columns):
    names = [name for name in in_order(systems) if all(column in systems[name] for column in columns)]
    return "\n".join("| " + " | ".join([name, *(figure(c, systems[name][c]) for c in columns)]) + " |"
                     for name in names)


def ten_versions(systems):
    lines = rows(systems, VERSIONS)
    return lines and f"""
## Ten versions of an image, mounted at once

The ten versions of a Debian root in [building.md](building.md), all mounted at once and read completely, in
one guest with 8 GB of memory. Then ten more mounts of the last version, read as well. "Memory" is the
decrease of free memory since before the first mount. `erofs-share` is EROFS with fingerprints of its files,
mounted with `inode_share`.

| system | size | mount ten | read all | memory | read ten more mounts | memory |
| --- | --- | --- | --- | --- | --- | --- |
{lines}"""


def many_files(systems):
    lines = rows(systems, MANY)
    return lines and f"""
## An image of 200,000 files

| system | size | mount | memory | walk | memory |
| --- | --- | --- | --- | --- | --- |
{lines}"""


def read_metrics(path):
    """Figures by system and by what they are of; those of rounds in a list."""
    systems = {}
    for line in open(path, encoding="ascii"):
        key, value = line.split()
        system, what, *rounds = key.split(".")
        of = systems.setdefault(system, {})
        if rounds:
            of.setdefault(what, {})[int(rounds[0])] = int(value)
        else:
            of[what] = int(value)
    for of in systems.values():
        for what, values in of.items():
            if isinstance(values, dict):
                of[what] = [values[number] for number in sorted(values)]
    return systems


def main():
    kernel, data, page, peers, versions, marks = sys.argv[1:]
    systems, versions, counts = read_metrics(peers), read_metrics(versions), {}
    systems.pop("marks", None)
    # An emulator counts them, a processor does not.
    if os.path.exists(marks):
        counts = instructions(peers, marks)
    rounds = max(len(of["mount"]) for of in systems.values())
    with open(data, "w") as file:
        json.dump({"kernel": kernel, "rounds": rounds,
                   "unit": "microseconds, bytes, millions of instructions",
                   "systems": systems, "versions": versions, "instructions": counts},
                  file, indent=1, sort_keys=True)
        file.write("\n")
    with open(page, "w") as file:
        print(f"""<!-- SPDX-License-Identifier: MIT OR Apache-2.0 -->
<!-- Written by `make bench`. -->
One Debian root filesystem in one guest of Linux {kernel}, all images on one ext4; {rounds} rounds, each round
measures every system. Cells show seconds: the median, and the largest deviation from it. Emulation distorts
absolute times; compare ratios.

| row | system |
| --- | --- |
| `puzzlefs` | format 4 with `verify=none`; `-digest` and `-fsverity`: with that verification |
| `puzzlefs-3` | format 3 with `verify=none` |
| `erofs` | mounted from a file |
| `squashfs` | mounted through a loop device |
| `composefs`, `composefs-fsverity` | EROFS with the names, overlayfs to the files; `verity=require` |
| `reference-fuse` | the reference implementation with the image of `puzzlefs-3`, measured once |

"Cached after" is the growth of page cache, buffers and reclaimable slab after one complete read.

![Bars of the figures below](reading.svg)

{table(systems)}""", file=file)
        for section in filter(None,
                              [instruction_table(counts), ten_versions(versions), many_files(versions)]):
            print(section, file=file)


if __name__ == "__main__":
    main()
