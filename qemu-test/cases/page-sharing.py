#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Files of equal contents have one page cache, whichever mount of a store they are in, if they are
# verified alike; each keeps its own path, inode and permissions.
#
# timeout: 60
# formats: 3 4
# klog-allow: puzzlefs: image [0-9a-f]+ inode [0-9]+: offset
# kernels: every
import errno
import glob
import mmap
import os
import subprocess

from case import (CASE_DIR, FORMAT, build_image, check, counters, drop_caches, equal, eventually, mount_image,
                  refused, run, seeded_random, slab_objects, write_file)

SIZE = 3_000_001
# In format 4, chunks of metadata count, too: with up to 256 KiB of the pack that follow them.
METADATA = 0 if FORMAT == 3 else 300 << 10
random = seeded_random()
content = random.randbytes(SIZE)
for version in "one", "two":
    os.makedirs(f"{version}/dir-{version}")
    write_file(f"{version}/dir-{version}/{version}", content)
    write_file(f"{version}/other", random.randbytes(300_000))
    write_file(f"{version}/empty", b"")
    os.chmod(f"{version}/dir-{version}/{version}", 0o640 if version == "one" else 0o604)
# Raw, because compressed bytes count.
images = {version: build_image(version, "--compress=0", tag=version) for version in ("one", "two")}


def mounted(version, name, options="ro"):
    return mount_image(images[version], f"{CASE_DIR}/{name}", options)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def check_read(mnt, wanted, what):
    """The mount has read so many bytes of data."""
    found = counters(mnt)["bytes_read"]
    check(wanted <= found <= wanted + METADATA, f"{what}: {found}, should be {wanted}")


one, two = mounted("one", "a"), mounted("two", "b")
first, second = f"{one}/dir-one/one", f"{two}/dir-two/two"
equal(read(first), content, "the first file")
equal(read(second), content, "the second file")
check_read(one, SIZE, "bytes read by the first mount")
after = counters(two)
check_read(two, 0, "bytes read by the second mount")
equal(after["files_shared"], 1, "files shared by the second")
check(after["pages_shared"] >= SIZE // mmap.PAGESIZE, f"pages shared: {after['pages_shared']}")
equal(read(f"{one}/empty"), b"", "an empty file")
equal(read(f"{one}/other"), read("one/other"), "the first image's other")
equal(read(f"{two}/other"), read("two/other"), "the second image's other")

# Each is what it was.
for path in first, second:
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapping:
        equal(mapping[:], content, f"a map of {path}")
        status, opened = os.stat(path), os.fstat(file.fileno())
        equal((opened.st_dev, opened.st_ino, opened.st_mode), (status.st_dev, status.st_ino, status.st_mode),
              path)
        equal(os.readlink(f"/proc/self/fd/{file.fileno()}"), path, "the path of the file")
        with open("/proc/self/maps") as maps:
            line = next((line for line in maps if line.rstrip().endswith(path)), None)
        check(line, f"no map of {path}")
        equal(int(line.split()[4]), status.st_ino, "the inode in maps")
equal(os.stat(first).st_mode & 0o777, 0o640, "the mode of the first")
equal(os.stat(second).st_mode & 0o777, 0o604, "the mode of the second")

# Nothing is shared with a mount that verifies in another way, or does not want it.
verified, alone = mounted("one", "verified", "ro,verify=digest"), mounted("one", "alone", "ro,noshare")
for mnt in verified, alone:
    equal(read(f"{mnt}/dir-one/one"), content, mnt)
    check(counters(mnt)["bytes_read"] >= SIZE and not counters(mnt)["files_shared"],
          f"{mnt}: {counters(mnt)}")
with open("/proc/self/mounts") as mounts:
    options = {line.split()[1]: line.split()[3].split(",") for line in mounts}
check("noshare" in options[alone] and "noshare" not in options[one], f"{options[alone]}, {options[one]}")
remount = subprocess.run(["mount", "-i", "-o", "remount,share", alone], capture_output=True, text=True,
                         check=False)
check(remount.returncode and "share cannot be changed by a remount" in remount.stderr,
      f"a remount that shares: {remount}")

# A map outlives the mount that its pages were read by, and what reads on is the other's own.
with open(second, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapping:
    run("umount", one)
    equal(mapping[:], content, "the map after the other mount has gone")
drop_caches()
with open(second, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapping:
    equal(mapping[:], content, "a map, read by the mount that is left")
check_read(two, SIZE + 300_000, "bytes read by the mount that is left")
one = mounted("one", "a")
equal(read(first), content, "the first file, mounted again")
check_read(one, 0, "bytes read after the mount had gone and come back")

# Each reader of the pages sees the damage, through any mount. Packs of format 4 stay open.
drop_caches()
for blob in glob.glob(f"{CASE_DIR}/store/blobs/sha256/*"):
    if os.path.getsize(blob) > 1000:
        os.rename(blob, f"{CASE_DIR}/{os.path.basename(blob)}")
for path in (first, second) if FORMAT == 3 else ():
    drop_caches()
    with refused(errno.EIO, path):
        read(path)
for blob in glob.glob(f"{CASE_DIR}/[0-9a-f]*"):
    if len(os.path.basename(blob)) == 64:
        os.rename(blob, f"{CASE_DIR}/store/blobs/sha256/{os.path.basename(blob)}")
for path in first, second:
    equal(read(path), content, f"{path}, with its blobs back")

for mnt in one, two, verified, alone:
    run("umount", mnt)
# They are freed after a grace period of RCU.
eventually(lambda: slab_objects() == 0, "inodes remain")
