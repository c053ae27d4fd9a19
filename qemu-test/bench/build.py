#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Builds images of /mnt/sample with each builder in turn, and measures it.

usage: build.py ROUNDS

Writes building.json and building.md to /mnt/bench.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import time

SAMPLE, BENCH = "/mnt/sample", "/mnt/bench"
OUT = f"{BENCH}/out"
BUILDERS = {
    "puzzlefs": [f"{BENCH}/puzzlefs", "build", "-q", SAMPLE, f"{OUT}/x:t"],
    "reference": [f"{BENCH}/reference", "build", SAMPLE, f"{OUT}/x:t"],
    "mkfs.erofs": ["mkfs.erofs", "--quiet", f"{OUT}/x", SAMPLE],
    "puzzlefs --compress": [f"{BENCH}/puzzlefs", "build", "-q", "--compress", SAMPLE, f"{OUT}/x:t"],
    "reference -c": [f"{BENCH}/reference", "build", "-c", SAMPLE, f"{OUT}/x:t"],
    "mksquashfs -comp zstd -Xcompression-level 3":
        ["mksquashfs", SAMPLE, f"{OUT}/x", "-comp", "zstd", "-Xcompression-level", "3", "-quiet", "-no-progress"],
    "mkfs.erofs -zzstd,3 -C65536": ["mkfs.erofs", "--quiet", "-zzstd,3", "-C65536", f"{OUT}/x", SAMPLE],
    "tar | zstd -3 -T0": ["sh", "-c", f"tar -C {SAMPLE} --xattrs -c . | zstd -q -3 -T0 >{OUT}/x"],
}


def size_of(path):
    if os.path.isfile(path):
        return os.path.getsize(path)
    return sum(os.lstat(os.path.join(directory, name)).st_size
               for directory, _, names in os.walk(path) for name in names)


def run(command):
    """Wall time and processor time in seconds, peak memory in bytes, size of what was made."""
    shutil.rmtree(OUT, ignore_errors=True)
    os.mkdir(OUT)
    start = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    wall = time.monotonic() - start
    if child.returncode:
        sys.exit(f"{' '.join(command)}: exit status {child.returncode}")
    return {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "memory": usage.ru_maxrss * 1024,
            "size": size_of(f"{OUT}/x")}


def main():
    rounds = int(sys.argv[1])
    builders = {name: command for name, command in BUILDERS.items()
                if shutil.which(command[0])}
    results = {name: [] for name in builders}
    # Nobody is the first to read the tree.
    subprocess.run(["tar", "-C", SAMPLE, "-cf", "/dev/null", "--checkpoint=1000000", "."], check=True)
    subprocess.run(["sh", "-c", f"find {SAMPLE} -type f -print0 | xargs -0 cat >/dev/null"], check=True)
    for _ in range(rounds):
        for name, command in builders.items():
            results[name].append(run(command))
    with open(f"{BENCH}/building.json", "w") as file:
        json.dump({"rounds": rounds, "unit": "seconds, bytes", "processors": os.cpu_count(), "builders": results},
                  file, indent=1)
        file.write("\n")
    lines = ["| builder | size | wall | processor | peak memory |", "| --- | --- | --- | --- | --- |"]
    for name, runs in results.items():
        walls = [one["wall"] for one in runs]
        wall = statistics.median(walls)
        spread = max(max(walls) - wall, wall - min(walls))
        # A pipeline's processes are not all waited for here.
        whole = "|" not in name
        cpu = f"{statistics.median(one['cpu'] for one in runs):.1f} s" if whole else ""
        memory = f"{max(one['memory'] for one in runs) / 1e6:.0f} MB" if whole else ""
        lines.append(f"| `{name.replace('|', 'and')}` | {runs[-1]['size'] / 1e6:.1f} MB | "
                     f"{wall:.1f} ± {spread:.1f} s | {cpu} | {memory} |")
    with open(f"{BENCH}/building.md", "w") as file:
        print(f"""<!-- SPDX-License-Identifier: MIT OR Apache-2.0 -->
<!-- Written by `make bench-build`. -->
Images of one Debian root filesystem of {size_of(SAMPLE) / 1e6:.0f} MB, its files in the page cache; {os.cpu_count()}
processors, {rounds} rounds, all builders in turn. Wall time: the median, and the farthest round
from it. `reference` is the reference implementation, 0.2.

""" + "\n".join(lines), file=file)


if __name__ == "__main__":
    main()
