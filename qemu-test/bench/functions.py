# SPDX-License-Identifier: MIT OR Apache-2.0
"""Sums the instructions that bench/instructions.c counted by block, by function."""

import base64
import bisect
import re
import zlib

# A compiler's copies of a function.
SUFFIX = re.compile(r"\.(isra|part|constprop|cold|llvm)\b.*$")
# In a mangled name of Rust (v0): what distinguishes equal names, and references back; then identifiers.
NUMBER = re.compile(r"[sB][0-9A-Za-z]*_")
IDENTIFIER = re.compile(r"(\d+)_?")


def readable(name):
    """A name without what the compiler adds; of a mangled one of Rust, the identifiers in it."""
    name = SUFFIX.sub("", name)
    if not name.startswith("_R"):
        return name
    words, at = [], 2
    while at < len(name):
        if match := NUMBER.match(name, at):
            at = match.end()
        elif match := IDENTIFIER.match(name, at):
            at = match.end() + int(match[1])
            words.append(name[match.end():at])
        else:
            at += 1
    return "::".join(filter(None, words))


def symbols(lines):
    """Addresses and names of the functions, both in the order of addresses."""
    text = zlib.decompress(base64.b64decode("".join(part for _, part in sorted(lines)))).decode()
    pairs = sorted((int(address, 16), name) for address, name in map(str.split, text.splitlines()))
    return [address for address, _ in pairs], [name for _, name in pairs]


def read(path, addresses, names):
    """For each run of the reader, instructions by function; those of programs are of "programs"."""
    runs = []
    with open(path, encoding="ascii") as file:
        for line in file:
            if line == "run\n":
                runs.append({})
                continue
            address, count = line.split()
            at = bisect.bisect_right(addresses, int(address, 16)) - 1
            name = readable(names[at]) if at >= 0 else "programs"
            runs[-1][name] = runs[-1].get(name, 0) + int(count)
    return runs
