#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Makes a file of data and prints a page of the figures that `qemu-test/bench/containers` took.

usage: containers_page.py KERNEL DATA.json METRICS COMMAND

METRICS has a line "SYSTEM.STEP.ROUND VALUE" for each measurement: bytes for the step `disk`, seconds for all
others. COMMAND makes the figures again.
"""

import json
import statistics
import sys

SYSTEMS = ["puzzlefs", "overlayfs", "erofs"]
ONCE = {"pull": "pull", "disk": "on disk", "remove-image": "remove the image"}
STEPS = {"sandbox": "sandbox", "create": "create", "start": "start", "python": "python", "stop": "stop",
         "remove": "remove"}
STARTING = ["sandbox", "create", "start"]
INTRODUCTION = """<!-- SPDX-License-Identifier: MIT OR Apache-2.0 -->
<!-- Written by `make bench-containers`. -->
One Debian root filesystem as an image in Debian's `docker-registry` on the loopback interface, pulled by
containerd 2 through CRI, in one guest of Linux {kernel}. Rounds: {rounds}; each round measures every
snapshotter. Cells are medians and the largest deviation from them. Emulation distorts absolute times; compare
ratios.

| row | snapshotter | image |
| --- | --- | --- |
| `puzzlefs` | `puzzlefs-snapshotter` | `puzzlefs push` |
| `overlayfs` | containerd's | `puzzlefs export --oci`: one gzip layer |
| `erofs` | containerd's: it converts layers to EROFS images with `mkfs.erofs` | the same |

    {command}
"""


def read_metrics(path):
    """Returns the values of each system and step."""
    figures = {}
    with open(path, encoding="ascii") as file:
        for line in file:
            key, value = line.split()
            system, step, _round = key.split(".")
            figures.setdefault(system, {}).setdefault(step, []).append(float(value))
    return figures


def seconds(values):
    median = statistics.median(values)
    return f"{median:.2f} ± {max(abs(value - median) for value in values):.2f}"


def cell(step, values):
    return f"{statistics.median(values) / 1e6:.0f} MB" if step == "disk" else seconds(values)


def table(head, rows):
    yield "| " + " | ".join(head) + " |"
    yield "|" + " --- |" * len(head)
    for cells in rows:
        yield "| " + " | ".join(cells) + " |"


def page(figures):
    yield "\n## The image\n\nSeconds. *On disk* is what containerd and the snapshotter keep.\n"
    yield from table(["snapshotter", *ONCE.values()],
                     [[system, *(cell(step, figures[system][step]) for step in ONCE)] for system in SYSTEMS])
    yield ("\n## The first pod after the pull\n\nSeconds, with all caches dropped before. *python* runs "
           "`python3 -c 'import json, socket, ssl'`\nin the container.\n")
    yield from table(["snapshotter", *STEPS.values()],
                     [[system, *(seconds(figures[system][f"first-{step}"]) for step in STEPS)]
                      for system in SYSTEMS])
    yield ("\n## Further pods\n\nSeconds, one pod after the other. *Containers per minute* is 60 s divided "
           "by the sum of\nthe means of sandbox, create and start.\n")
    rows = []
    for system in SYSTEMS:
        of = figures[system]
        each = sum(statistics.mean(of[step]) for step in STARTING)
        rows.append([system, *(seconds(of[step]) for step in STEPS), f"{60 / each:.0f}"])
    yield from table(["snapshotter", *STEPS.values(), "containers per minute"], rows)


def main():
    kernel, data, metrics, command = sys.argv[1:]
    figures = read_metrics(metrics)
    rounds = len(figures["puzzlefs"]["pull"])
    with open(data, "w", encoding="ascii") as file:
        json.dump({"kernel": kernel, "rounds": rounds, "unit": "seconds, bytes", "systems": figures}, file,
                  indent=1)
        file.write("\n")
    print(INTRODUCTION.format(kernel=kernel, rounds=rounds, command=command), end="")
    print("\n".join(page(figures)))


if __name__ == "__main__":
    main()
