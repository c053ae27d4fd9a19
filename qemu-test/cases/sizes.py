#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Files that end before, at and after the edges of pages, packs and chunks, of noise and of
# zeros; an empty directory. What a map shows past the end of a file is zeros.
#
# formats: 3 4
# timeout: 60
# kernels: every
import os

from case import PAGE, build_image, equal, mapped, mount_image, same_file, seeded_random, write_file

random = seeded_random()
edges = [PAGE, 16 << 10, 64 << 10, 128 << 10, 192 << 10, 256 << 10, 1 << 20]
sizes = [0, 1, 2, 511, 512, 513] + [edge + off for edge in edges for off in (-1, 0, 1)]

os.mkdir("src")
os.mkdir("src/empty-directory")
for size in sizes:
    write_file(f"src/noise-{size}", random.randbytes(size))
    write_file(f"src/zeros-{size}", bytes(size))
    # Zeros at the end only, and noise at the end only.
    write_file(f"src/mixed-{size}", random.randbytes(size // 2) + bytes(size - size // 2))
    write_file(f"src/dexim-{size}", bytes(size // 2) + random.randbytes(size - size // 2))

mnt = mount_image(build_image("src"))
equal(sorted(os.listdir(mnt)), sorted(os.listdir("src")), "names")
equal(os.listdir(f"{mnt}/empty-directory"), [], "the empty directory")
for name in sorted(os.listdir("src")):
    if name == "empty-directory":
        continue
    size = int(name.split("-")[1])
    stat = os.stat(f"{mnt}/{name}")
    equal(stat.st_size, size, f"size of {name}")
    equal(stat.st_blocks, (size + 511) // 512, f"blocks of {name}")
    same_file(f"src/{name}", f"{mnt}/{name}")
    fd = os.open(f"{mnt}/{name}", os.O_RDONLY)
    if size % PAGE:
        start = size - size % PAGE
        with open(f"src/{name}", "rb") as source:
            source.seek(start)
            equal(mapped(fd, start, PAGE), source.read().ljust(PAGE, b"\0"), f"last page of {name} by map")
    # Reading at and past the end.
    equal(os.pread(fd, 10, size), b"", f"{name} at its end")
    equal(os.pread(fd, 10, size + 12345), b"", f"{name} past its end")
    os.close(fd)
