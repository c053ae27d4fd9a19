#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""The version that each package has in a state of the series, as apt's preferences.

usage: series.py LISTS STATE [INSTALLED]

LISTS has the archive's package lists. In state 1 each package is in the oldest version there.
INSTALLED says what that was, a line "PACKAGE VERSION SOURCE" each; its upgrades are made in the
states 2 to 10.
"""

import functools
import glob
import subprocess
import sys
from collections import defaultdict

STATES = 10


def compare(one, other):
    if one == other:
        return 0
    older = subprocess.run(["dpkg", "--compare-versions", one, "lt", other], check=False)
    return -1 if older.returncode == 0 else 1


def versions_of_packages(lists, wanted):
    found = defaultdict(set)
    for path in glob.glob(f"{lists}/*_Packages"):
        with open(path, encoding="utf-8") as file:
            for line in file:
                if line.startswith("Package: "):
                    package = line.split()[1]
                elif line.startswith("Version: ") and (wanted is None or package in wanted):
                    found[package].add(line.split()[1])
    return {package: sorted(versions, key=functools.cmp_to_key(compare))
            for package, versions in found.items() if len(versions) > 1}


def main():
    lists, state, *installed = sys.argv[1:]
    state = int(state)
    source_of = None
    if installed:
        with open(installed[0], encoding="utf-8") as file:
            rows = [line.split() for line in file]
        source_of = {package: source for package, _, source in rows}
    versions = versions_of_packages(lists, source_of)
    wanted = {package: known[0] for package, known in versions.items()}
    if source_of:
        # The first upgrade of each source, then the second ones.
        upgrades = sorted({(nth, source_of[package])
                           for package, known in versions.items() for nth in range(1, len(known))})
        made = upgrades[:len(upgrades) * (state - 1) // (STATES - 1)]
        if not made:
            sys.exit("the archive has one version of each package that is installed: no series")
        for nth, source in made:
            for package, known in versions.items():
                if source_of[package] == source and nth < len(known):
                    wanted[package] = known[nth]
    for package, version in sorted(wanted.items()):
        print(f"Package: {package}\nPin: version {version}\nPin-Priority: 1001\n")


if __name__ == "__main__":
    main()
