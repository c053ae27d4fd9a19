#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Draws the figures of a benchmark as bars, by gnuplot.

usage: charts.py reading|building|slow-disks DATA.json CHART.svg
"""

import json
import os
import statistics
import subprocess
import sys

import slow
from report import SYSTEMS, WORKLOADS

OURS, PEERS = 0x2F6DB5, 0xB8B8B8
# The size of a page and of a panel, in pixels: a panel's height without bars, and for each of them.
WIDTH, HEIGHT, BAR = 960, 70, 22
# How many panels are beside each other: names of builders are long.
COLUMNS = {"reading": 2, "building": 1, "slow-disks": 2}


def reading(results):
    """Panels: what is measured, its unit, and each system's figure with its least and greatest."""
    systems = dict(sorted(results["systems"].items(), key=lambda item: (SYSTEMS + [item[0]]).index(item[0])))
    for what in "mount", "cold-walk", "cold-read", "warm-read", "cold-random":
        yield WORKLOADS[what], "s", bars({name: [value / 1e6 for value in of[what]]
                                          for name, of in systems.items() if what in of})
    yield "cached after a cold read", "MB", bars({name: [value / 1e6 for value in of["memory"]]
                                                  for name, of in systems.items() if "memory" in of})
    for what, title, unit in (("read", "ten versions, read all", "s"),
                              ("memory", "ten versions, memory", "MB")):
        yield title, unit, bars({name: [of[what] / 1e6] for name, of in results.get("versions", {}).items()
                                 if what in of})


def building(results):
    builders, series = results["builders"], results["series"]
    yield "size", "MB", bars({name: [of["size"] / 1e6] for name, of in builders.items()})
    yield "ten versions, size", "MB", bars({name: [of["sizes"][-1] / 1e6] for name, of in series.items()})
    for way in "warm", "cold":
        yield f"build, {way}", "s", bars({name: [one["wall"] for one in of[way]]
                                          for name, of in builders.items()})
    yield "peak memory", "MB", bars({name: [max(one["memory"] for one in of["cold"] + of["warm"]) / 1e6]
                                     for name, of in builders.items()})


def slow_disks(results):
    for delay, systems in results["delays"].items():
        for what in "python", "read", "readers", "random":
            yield f"{slow.WORKLOADS[what]}, {delay} ms per request", "s", bars(
                {name: [time / 1e6 for time in of[what]["time"]]
                 for name, of in systems.items() if what in of})


def bars(figures):
    return [(name, statistics.median(values), min(values), max(values))
            for name, values in figures.items() if values]


def script(chart, panels, columns):
    """What gnuplot is told."""
    rows = [panels[at:at + columns] for at in range(0, len(panels), columns)]
    heights = [HEIGHT + BAR * max(len(bars) for *_, bars in row) for row in rows]
    total = sum(heights)
    for number, (*_, bars) in enumerate(panels):
        yield f"$panel{number} << END"
        for at, (label, value, least, most) in enumerate(bars):
            colour = OURS if label.startswith("puzzlefs") else PEERS
            yield f'"{label}" {len(bars) - at} {value} {least} {most} {colour}'
        yield "END"
    yield f"set terminal svg size {WIDTH},{total} font 'sans-serif,11' background rgb 'white'"
    yield f"set output '{chart}'"
    yield "set multiplot"
    yield "set style fill solid; set border 3; set tics nomirror out; set grid xtics lc rgb '#dddddd'"
    yield "unset key; set pointintervalbox 0"
    number, below = 0, total
    for row, height in zip(rows, heights):
        below -= height
        for column, (title, unit, bars) in enumerate(row):
            most = max(bar[3] for bar in bars)
            yield f"set size {1 / columns},{height / total}; set origin {column / columns},{below / total}"
            yield f"set title '{title} ({unit})'"
            yield f"set xrange [0:{most * 1.05 or 1}]; set yrange [0.4:{len(bars) + 0.6}]"
            yield (f"plot $panel{number} using ($3/2):2:($3/2):(0.35):6:ytic(1) "
                   f"with boxxyerror lc rgb variable, "
                   f"'' using 3:2:4:5 with xerrorbars pt -1 lc rgb '#404040'")
            number += 1
    yield "unset multiplot"


KINDS = {"reading": reading, "building": building, "slow-disks": slow_disks}


def main():
    kind, data, chart = sys.argv[1:]
    with open(data) as file:
        results = json.load(file)
    panels = [panel for panel in KINDS[kind](results) if panel[2]]
    if not panels:
        raise SystemExit(f"{data}: no figures for a chart")
    subprocess.run(["gnuplot"], input="\n".join(script(f"{chart}.new", panels, COLUMNS[kind])), text=True,
                   check=True)
    os.rename(f"{chart}.new", chart)


if __name__ == "__main__":
    main()
