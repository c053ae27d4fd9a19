#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Makes a file of data and prints the tables of the figures that `qemu-test/bench/slow` took.

usage: slow.py KERNEL DATA.json METRICS

METRICS has a line for each measurement, "SYSTEM.WORKLOAD.DELAY.ROUND MICROSECONDS REQUESTS BYTES SLEEPS". The
tables keep their order of systems.
"""

import json
import statistics
import sys

WORKLOADS = {
    "mount": "mount",
    "walk": "walk",
    "random": "300 x 4 KiB",
    "python": "python",
    "readers": "8 readers",
    "read": "read all",
    "limit": "dd",
}
FIGURES = ["time", "requests", "bytes", "sleeps"]


def read_metrics(path):
    """Figures by delay, system, workload and figure: a list with one value a round."""
    delays = {}
    with open(path, encoding="ascii") as file:
        for line in file:
            key, *values = line.split()
            system, workload, delay, _round = key.rsplit(".", 3)
            figures = delays.setdefault(delay, {}).setdefault(system, {}).setdefault(workload, {})
            for name, value in zip(FIGURES, values, strict=True):
                figures.setdefault(name, []).append(int(value))
    return delays


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


def table(systems, cell):
    columns = [name for name in WORKLOADS if any(name in of for of in systems.values())]
    yield "| system | " + " | ".join(WORKLOADS[name] for name in columns) + " |"
    yield "| --- |" + " --- |" * len(columns)
    for system, of in systems.items():
        yield "| " + " | ".join([system, *(cell(of[name]) if name in of else "" for name in columns)]) + " |"


def main():
    kernel, data, metrics = sys.argv[1:]
    delays = read_metrics(metrics)
    rounds = max(len(figures["time"]) for systems in delays.values() for of in systems.values()
                 for figures in of.values())
    with open(data, "w", encoding="ascii") as file:
        json.dump({"kernel": kernel, "rounds": rounds, "unit": "microseconds, bytes", "delays": delays},
                  file, indent=1, sort_keys=True)
        file.write("\n")
    for delay, systems in delays.items():
        print(f"\n## {delay} ms per read\n\nMilliseconds:\n")
        print("\n".join(table(systems, milliseconds)))
        print("\nRequests that reached the disk / MB / sleeps of the reader:\n")
        print("\n".join(table(systems, counts)))


if __name__ == "__main__":
    main()
