#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Builds images with each builder in turn, and measures it.

usage: build.py ROUNDS PART...

| part | trees |
| --- | --- |
| series | the ten versions of one root filesystem in /mnt/series |
| builders | /mnt/sample |
| large | the ten versions side by side, and copies of their larger files with other bytes |
| million | a million small files, and a sparse file of 100 GB |

Writes building.json and building.md to /mnt/bench. Parts of an earlier building.json stay.
"""

import json
import os
import random
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

SAMPLE, SERIES, BENCH = "/mnt/sample", "/mnt/series", "/mnt/bench"
OUT, ALL, ASIDE = f"{BENCH}/out", f"{BENCH}/all", f"{BENCH}/aside"
# Files of this size have a copy in the large tree.
COPIED_FROM = 100_000
VERSIONS = [f"{SERIES}/{number}" for number in range(1, 11)]
PUZZLEFS, REFERENCE = f"{BENCH}/puzzlefs", f"{BENCH}/reference"
SQUASHFS = ["-comp", "zstd", "-Xcompression-level", "3", "-quiet", "-no-progress"]
EROFS_ZSTD = ["-zzstd,3", "-C65536"]


# Each builds a tree; those that have a store build into the one that is there, if there is one.
def puzzlefs(*options):
    return lambda tree, tag: [PUZZLEFS, "build", "-q", *options, tree, f"{OUT}/store:{tag}"]


def reference(*options):
    return lambda tree, tag: [REFERENCE, "build", *options, tree, f"{OUT}/store:{tag}"]


def erofs(*options):
    return lambda tree, tag: ["mkfs.erofs", "--quiet", *options, f"{OUT}/{tag}", tree]


def squashfs(tree, tag):
    return ["mksquashfs", tree, f"{OUT}/{tag}", *SQUASHFS, "-noappend"]


def tar(tree, tag):
    return ["sh", "-c", f"tar -C {tree} --xattrs -c . | zstd -q -f -3 -T0 -o {OUT}/{tag}"]


def casync(tree, tag):
    return ["casync", "make", f"--store={OUT}/store.castr", f"{OUT}/{tag}.caidx", tree]


BUILDERS = {
    "puzzlefs --format 4 --compress=0": puzzlefs("--format", "4", "--compress=0"),
    "puzzlefs --format 3": puzzlefs("--format", "3"),
    "reference": reference(),
    "mkfs.erofs": erofs(),
    "puzzlefs --format 4": puzzlefs("--format", "4"),
    "puzzlefs --format 3 --compress": puzzlefs("--format", "3", "--compress"),
    "reference -c": reference("-c"),
    "mksquashfs -comp zstd -Xcompression-level 3": squashfs,
    "mkfs.erofs -zzstd,3 -C65536": erofs(*EROFS_ZSTD),
    "tar, zstd -3 -T0": tar,
    "casync make": casync,
}
# Of all versions in one image.
TOGETHER = {
    "mkfs.erofs --chunksize=4096, all in one": erofs("--chunksize=4096"),
    "mkfs.erofs -zzstd,3 -C65536 -Ededupe, all in one": erofs(*EROFS_ZSTD, "-Ededupe"),
}


def size_of(path):
    """The bytes of all files beneath a path, those with several names once."""
    seen = {}
    for directory, _, names in os.walk(path):
        for name in names:
            stat = os.lstat(os.path.join(directory, name))
            seen[stat.st_dev, stat.st_ino] = stat.st_size
    return sum(seen.values())


def clear():
    """An empty OUT, and nothing that is still to be written. Stores are set aside till the end:
    ext4 searches long for an inode where it has just freed thousands."""
    if os.path.isdir(OUT):
        for entry in os.scandir(OUT):
            if entry.is_file():
                os.remove(entry)
        os.makedirs(ASIDE, exist_ok=True)
        os.rename(OUT, tempfile.mkdtemp(dir=ASIDE))
    os.mkdir(OUT)
    os.sync()


def run(command):
    """Wall time, that until all is on the disk, and processor time in seconds; peak memory in bytes
    (of a pipeline's, the largest)."""
    start = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as child:
        said = child.stderr.read()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    wall = time.monotonic() - start
    if child.returncode:
        sys.exit(f"{' '.join(command)}: exit status {child.returncode}\n{said.decode()}")
    subprocess.run(["sync", "-f", OUT], check=True)
    durable = time.monotonic() - start
    return {"wall": wall, "durable": durable, "cpu": usage.ru_utime + usage.ru_stime,
            "memory": usage.ru_maxrss * 1024}


def drop_caches():
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as file:
        file.write("3")


def read_all(tree):
    """So that nobody is the first to read the tree."""
    subprocess.run(["sh", "-c", f"find {tree} -type f -print0 | xargs -0 cat >/dev/null"], check=True)


def sample(builders, rounds):
    """For each builder a build with nothing in the page cache, one with all, and that once more
    over what it made."""
    results = {name: {"cold": [], "warm": [], "again": []} for name in builders}
    for _ in range(rounds):
        for name, command in builders.items():
            of = results[name]
            clear()
            drop_caches()
            of["cold"].append(run(command(SAMPLE, "t")))
            read_all(SAMPLE)
            clear()
            of["warm"].append(run(command(SAMPLE, "t")))
            of["size"] = size_of(OUT)
            of["again"].append(run(command(SAMPLE, "t")))
    return results


def series(builders):
    """The ten versions, one after the other."""
    results = {}
    for name, command in builders.items():
        clear()
        runs, sizes = [], []
        for number, tree in enumerate(VERSIONS, 1):
            runs.append(run(command(tree, f"v{number}")))
            sizes.append(size_of(OUT))
        results[name] = {"sizes": sizes, **total(runs)}
    copy_versions(ALL)
    for name, command in TOGETHER.items():
        clear()
        runs = [run(command(ALL, "all"))]
        results[name] = {"sizes": [size_of(OUT)], **total(runs)}
    shutil.rmtree(ALL)
    return results


def copy_versions(target):
    """All versions side by side. They share files by hard links, which are not of the filesystems."""
    for tree in VERSIONS:
        shutil.copytree(tree, f"{target}/{os.path.basename(tree)}", symlinks=True,
                        ignore=lambda directory, names: [name for name in names if special(directory, name)])


def special(directory, name):
    path = os.path.join(directory, name)
    return not (os.path.isdir(path) or os.path.isfile(path) or os.path.islink(path))


def total(runs):
    sums = {what: sum(one[what] for one in runs) for what in ("wall", "durable", "cpu")}
    return {**sums, "memory": max(one["memory"] for one in runs)}


# Of the large tree.
LARGE = {
    "puzzlefs --format 4": puzzlefs("--format", "4"),
    "puzzlefs --format 4 --parent none": puzzlefs("--format", "4", "--parent", "none"),
    "puzzlefs --format 4 --compress=0": puzzlefs("--format", "4", "--compress=0"),
    "mksquashfs -comp zstd -Xcompression-level 3": squashfs,
}


def large():
    """A large tree: built, and built once more without a change."""
    make_large(ALL)
    entries = sum(len(directories) + len(names) for _, directories, names in os.walk(ALL))
    results = {"bytes": size_of(ALL), "entries": entries, "builders": {}}
    for name, command in LARGE.items():
        clear()
        read_all(ALL)
        one = {"first": run(command(ALL, "t")), "size": size_of(OUT)}
        one |= manifest_of(f"{OUT}/store", "t")
        one["again"] = run(command(ALL, "t"))
        results["builders"][name] = one
        remove(OUT)
    remove(ALL)
    return results


def make_large(tree):
    """The versions, of which most data is shared, and their larger files with another number added to
    each byte, of which none is."""
    copy_versions(tree)
    for number, version in enumerate(VERSIONS, 1):
        table = bytes((byte + number) % 256 for byte in range(256))
        for directory, _, names in sorted(os.walk(version)):
            for name in sorted(names):
                path = os.path.join(directory, name)
                if os.path.islink(path) or not os.path.isfile(path) or os.path.getsize(path) < COPIED_FROM:
                    continue
                target = os.path.join(tree, "copies", os.path.relpath(path, SERIES))
                os.makedirs(os.path.dirname(target), exist_ok=True)
                with open(path, "rb") as source, open(target, "wb") as copy:
                    copy.write(source.read().translate(table))


def remove(path):
    shutil.rmtree(path)
    os.mkdir(path)


def manifest_of(store, tag):
    """The number of layers and the bytes of a manifest, if there is a store."""
    if not os.path.isdir(store):
        return {}
    with open(f"{store}/index.json") as file:
        images = json.load(file)["manifests"]
    image, = (one for one in images if one["annotations"]["org.opencontainers.image.ref.name"] == tag)
    with open(f"{store}/blobs/{image['digest'].replace(':', '/')}") as file:
        return {"layers": len(json.load(file)["layers"]), "manifest": image["size"]}


def million():
    """A million files of up to 2,000 bytes, and a file of 100 GB with three pieces of data."""
    clear()
    # In memory: what is measured is not a filesystem with many files.
    with tempfile.TemporaryDirectory(prefix="puzzlefs-bench-", dir="/dev/shm") as tree:
        return build_large(f"{tree}/many", f"{tree}/sparse", f"{OUT}/store")


def build_large(many, sparse, store):
    draw = random.Random(1)
    for number in range(1_000_000):
        directory = f"{many}/{number // 100_000}/{number // 1000}"
        if number % 1000 == 0:
            os.makedirs(directory)
        with open(f"{directory}/file-{number}", "wb") as file:
            file.write(draw.randbytes(draw.randrange(2000)))
    os.mkdir(sparse)
    with open(f"{sparse}/file", "wb") as file:
        for at in 0, 50 << 30, (100 << 30) - 100_000:
            file.seek(at)
            file.write(draw.randbytes(100_000))
    results = {}
    for name, which in ("a million files", many), ("100 GB, sparse", sparse):
        for way in ["--format", "3"], ["--format", "3", "--compress"], ["--format", "4"]:
            one = run([PUZZLEFS, "build", "-q", *way, which, f"{store}:t"])
            listed = subprocess.run([PUZZLEFS, "inspect", "--json", f"{store}:t"], check=True,
                                    capture_output=True)
            report = json.loads(listed.stdout)
            one["metadata"] = report.get("rootfs_bytes") or report["metadata_stored_bytes"]
            one["size"] = size_of(store)
            results[" ".join([name, *way])] = one
            shutil.rmtree(store)
    return results


def row(*cells):
    return "| " + " | ".join(cells) + " |"


def megabytes(size, digits=1):
    return f"{size / 1e6:.{digits}f} MB"


def median_of(runs, what):
    values = [one[what] for one in runs]
    middle = statistics.median(values)
    return middle, max(max(values) - middle, middle - min(values))


def table_of_sample(results):
    yield row("builder", "size", "warm", "and on the disk", "processor", "cold", "once more", "peak memory")
    yield "|" + " --- |" * 8
    for name, of in results.items():
        def seconds(way, what="wall"):
            return "{:.2f} ± {:.2f} s".format(*median_of(of[way], what))
        cpu = f"{median_of(of['warm'], 'cpu')[0]:.2f} s"
        memory = max(one["memory"] for one in of["cold"] + of["warm"])
        yield row(f"`{name}`", megabytes(of["size"]), seconds("warm"), seconds("warm", "durable"), cpu,
                  seconds("cold"), seconds("again"), megabytes(memory, 0))


def table_of_series(results):
    yield row("builder", "the first", "all ten", "all, wall", "and on the disk", "processor", "peak memory")
    yield "|" + " --- |" * 7
    for name, of in results.items():
        sizes = of["sizes"]
        first = megabytes(sizes[0]) if len(sizes) > 1 else ""
        yield row(f"`{name}`", first, megabytes(sizes[-1]),
                  *(f"{of[what]:.1f} s" for what in ("wall", "durable", "cpu")), megabytes(of["memory"], 0))


def table_of_large(results):
    yield row("builder", "size", "layers", "manifest", "wall", "processor", "peak memory", "again, wall",
              "again, processor", "again, peak memory")
    yield "|" + " --- |" * 10
    for name, of in results.items():
        layers = [str(of["layers"]), f"{of['manifest']:,} bytes"] if "layers" in of else ["", ""]
        yield row(f"`{name}`", megabytes(of["size"]), *layers,
                  *(cell for way in ("first", "again")
                    for cell in (f"{of[way]['wall']:.1f} s", f"{of[way]['cpu']:.1f} s",
                                 megabytes(of[way]["memory"], 0))))


def table_of_million(results):
    yield row("tree", "store", "metadata", "wall", "processor", "peak memory")
    yield "|" + " --- |" * 6
    for name, of in results.items():
        yield row(name, megabytes(of["size"]), megabytes(of["metadata"]), f"{of['wall']:.1f} s",
                  f"{of['cpu']:.1f} s", megabytes(of["memory"], 0))


def page(results):
    rounds = results["rounds"]
    yield f"""<!-- SPDX-License-Identifier: MIT OR Apache-2.0 -->
<!-- Written by `make bench-build`. -->
Images of one Debian root filesystem of {megabytes(results['sample_bytes'], 0)}; {os.cpu_count()} CPUs,
{rounds} rounds, each round measures every builder. Times are wall time: the median, and the largest deviation
from it.

| column | meaning |
| --- | --- |
| warm | the source is in the page cache |
| and on the disk | warm, plus `sync -f`. PuzzleFS syncs before it exits: `sync -f` finds nothing to do |
| processor | CPU time, warm |
| cold | nothing is in the page cache |
| once more | warm, over the previous result |
| peak memory | of the builder; less than {megabytes(results['script_bytes'], 0)} (the script) is hidden |

`reference` is the reference implementation, 0.2.

![Bars of the figures below](building.svg)
"""
    yield from table_of_sample(results.get("builders", {}))
    if "series" in results:
        yield f"""
Ten versions of one Debian root filesystem of {megabytes(results['series_bytes'], 0)}, built in order.
PuzzleFS, the reference and casync build into one store. The other builders make one image per version, and
the table shows sums. The versions are states of a Debian 12: in nine steps, every package that the archive
holds in several versions goes from the oldest to the newest (`qemu-test/steps/series`).
"""
        yield from table_of_series(results["series"])
    if "large" in results:
        tree = results["large"]
        yield f"""
A tree of {megabytes(tree['bytes'], 0)} and {tree['entries']:,} entries (`LARGE=1 make bench-build`): the ten
versions side by side, and copies of their files of at least {COPIED_FROM:,} bytes, in which all bytes differ.
*Again* is a second build of the unchanged tree over the first one, with the tree in the page cache.
"""
        yield from table_of_large(tree["builders"])
    if "million" in results:
        yield """
Large trees (`MILLION=1 make bench-build`), in memory:
"""
        yield from table_of_million(results["million"])


def main():
    rounds, *parts = sys.argv[1:]
    builders = {name: command for name, command in BUILDERS.items() if shutil.which(command(SAMPLE, "t")[0])
                and re.search(os.environ.get("BUILDERS", ""), name)}
    results = {}
    if os.path.exists(f"{BENCH}/building.json"):
        with open(f"{BENCH}/building.json") as file:
            results = json.load(file)
    results |= {"rounds": int(rounds), "unit": "seconds, bytes", "processors": os.cpu_count(),
                "sample_bytes": size_of(SAMPLE), "series_bytes": size_of(VERSIONS[-1]),
                # Of a child that has less, the system counts what it was forked from.
                "script_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    measure = {"series": lambda: series(builders), "builders": lambda: sample(builders, int(rounds)),
               "large": large, "million": million}
    for part in parts:
        results[part] = measure[part]()
        # The figures stay if a later part fails.
        write(results)


def write(results):
    with open(f"{BENCH}/building.json", "w") as file:
        json.dump(results, file, indent=1)
        file.write("\n")
    with open(f"{BENCH}/building.md", "w") as file:
        file.writelines(line + "\n" for line in page(results))


if __name__ == "__main__":
    main()
