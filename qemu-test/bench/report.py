#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Makes NAME.json and NAME.md of the figures that a benchmark took.

usage: report.py KERNEL NAME <METRICS

METRICS has a line for each figure: "SYSTEM.WORKLOAD.ROUND MICROSECONDS",
"SYSTEM.memory.ROUND BYTES" or "SYSTEM.bytes BYTES".
"""

import json
import statistics
import sys

WORKLOADS = {
    "mount": "mount",
    "cold-walk": "walk, cold",
    "warm-walk": "walk, warm",
    "cold-read": "read all, cold",
    "warm-read": "read all, warm",
    "cold-random": "500 x 4 KiB, cold",
}
SYSTEMS = ["ext4", "puzzlefs", "puzzlefs-fsverity", "erofs", "puzzlefs-zstd", "puzzlefs-zstd-digest",
           "erofs-zstd", "squashfs"]


def cell(values):
    """Median, and how far the rounds were from it, in seconds."""
    median = statistics.median(values)
    spread = max(max(values) - median, median - min(values))
    digits = 2 if median < 10e6 else 1
    return f"{median / 1e6:.{digits}f} ± {spread / 1e6:.{digits}f}"


def table(systems):
    names = sorted(systems, key=lambda name: (SYSTEMS + [name]).index(name))
    lines = ["| system | size | " + " | ".join(WORKLOADS.values()) + " | cached after |",
             "| --- |" + " --- |" * (len(WORKLOADS) + 2)]
    for name in names:
        of = systems[name]
        size = f"{of['bytes'] / 1e6:.1f} MB" if "bytes" in of else ""
        times = [cell(of[workload]) for workload in WORKLOADS]
        memory = f"{statistics.median(of['memory']) / 1e6:.0f} MB"
        lines.append("| " + " | ".join([name, size, *times, memory]) + " |")
    return "\n".join(lines)


def main():
    kernel, name = sys.argv[1:]
    systems = {}
    for line in sys.stdin:
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
    rounds = max(len(of["mount"]) for of in systems.values())
    with open(f"{name}.json", "w") as file:
        json.dump({"kernel": kernel, "rounds": rounds, "unit": "microseconds, bytes", "systems": systems},
                  file, indent=1, sort_keys=True)
        file.write("\n")
    with open(f"{name}.md", "w") as file:
        print(f"""<!-- SPDX-License-Identifier: MIT OR Apache-2.0 -->
<!-- Written by `make bench`. -->
One Debian root filesystem, in one guest of Linux {kernel}, all on one ext4; {rounds} rounds, all
systems in turn. Seconds: the median, and the farthest round from it. The guest is emulated:
ratios count, not the figures. `erofs` is mounted from a file, `squashfs` through a loop device.
"Cached after" is what page cache, buffers and reclaimable slab grew by when all was read once.

{table(systems)}""", file=file)


if __name__ == "__main__":
    main()
