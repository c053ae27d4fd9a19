#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Landlock, a security module of Debian's kernel: a process that may only read below one directory
# of an image reads there and nowhere else, by whatever path, and executes nothing there.
#
# formats: 3 4
# timeout: 40
import ctypes
import errno
import os
import struct
import subprocess

from case import as_user, build_image, drop_caches, equal, mount_image, refused, skip, write_file

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
EXECUTE, READ_FILE, READ_DIR = 1, 4, 8
PR_SET_NO_NEW_PRIVS = 38
libc = ctypes.CDLL(None, use_errno=True)


def call(number, *arguments):
    result = libc.syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


with open("/sys/kernel/security/lsm") as lsm:
    modules = lsm.read()
print("security modules:", modules)
if "landlock" not in modules:
    skip(f"no Landlock here (security modules: {modules})")

os.makedirs("src/allowed/below")
os.makedirs("src/other")
for name in ("allowed/file", "allowed/below/file", "other/file"):
    write_file(f"src/{name}", name.encode())
os.link("src/other/file", "src/allowed/link")
os.symlink("../other/file", "src/allowed/symlink")
with open("/bin/true", "rb") as program:
    write_file("src/allowed/true", program.read())
os.chmod("src/allowed/true", 0o755)
mnt = mount_image(build_image("src"))
os.chmod(os.environ["CASE_DIR"], 0o755)


def restrict():
    """May only read what is below mnt/allowed, from now on."""
    ruleset = call(CREATE_RULESET, struct.pack("<Q", EXECUTE | READ_FILE | READ_DIR), ctypes.c_size_t(8), 0)
    directory = os.open(f"{mnt}/allowed", os.O_PATH)
    call(ADD_RULE, ruleset, 1, struct.pack("<Qi", READ_FILE | READ_DIR, directory), 0)
    os.close(directory)
    equal(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0, "prctl")
    call(RESTRICT_SELF, ruleset, 0)


def contents(name):
    fd = os.open(f"{mnt}/{name}", os.O_RDONLY)
    return os.read(fd, 100).decode()


def restricted():
    restrict()
    for name in ("allowed/file", "allowed/below/file"):
        equal(contents(name), name, name)
    # A hard link is below the directory, what a symlink points to is not.
    equal(contents("allowed/link"), "other/file", "the hard link")
    equal(sorted(os.listdir(f"{mnt}/allowed")), ["below", "file", "link", "symlink", "true"], "the listing")
    for name in ("other/file", "allowed/symlink", "allowed/../other/file"):
        with refused(errno.EACCES, name):
            contents(name)
    with refused(errno.EACCES, "a listing of the root"):
        os.listdir(mnt)
    with refused(errno.EACCES, "a program"):
        os.execv(f"{mnt}/allowed/true", ["true"])
    return "done"


for _ in range(2):
    equal(as_user(1234, restricted), "done", "what the restricted process did")
    drop_caches()
equal(subprocess.run([f"{mnt}/allowed/true"], check=False).returncode, 0, "the program, without restriction")
