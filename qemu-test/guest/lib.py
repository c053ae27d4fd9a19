# SPDX-License-Identifier: MIT OR Apache-2.0
"""What a case in Python has at hand; lib.sh has the words.

A case fails by any exception: the last line of the traceback is the reason.
What it mounts with mount_image is unmounted at its end.
"""

import atexit
import os
import subprocess
import sys

CASE_DIR = os.environ["CASE_DIR"]
RESULT_DIR = os.environ["RESULT_DIR"]


def _reason(text):
    with open(f"{RESULT_DIR}/reason", "a") as file:
        print(text, file=file)


def fail(reason):
    """The case has failed."""
    raise AssertionError(reason)


def skip(reason):
    """The case cannot be run here."""
    _reason(reason)
    sys.exit(77)


def metric(name, value):
    """A figure for the host."""
    with open(f"{RESULT_DIR}/metrics", "a") as file:
        print(name, value, file=file)


def drop_caches():
    """Pages, dentries and inodes: all that is clean."""
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as file:
        file.write("3")


def build_image(directory, name="image"):
    """An image of a directory; returns what mount_image wants."""
    source = f"{CASE_DIR}/store:{name}"
    subprocess.run(["puzzlefs", "build", directory, source], check=True)
    return source


def mount_image(source, directory=f"{CASE_DIR}/mnt", options="ro"):
    """Mount by mount(8); returns the directory."""
    os.makedirs(directory, exist_ok=True)
    subprocess.run(["mount", "-t", "puzzlefs", "-o", options, source, directory], check=True)
    atexit.register(_unmount, directory)
    return directory


def _unmount(directory):
    os.chdir("/")
    if os.path.ismount(directory) and subprocess.run(["umount", directory]).returncode:
        _reason(f"cannot unmount {directory}")
        os._exit(1)


def _excepthook(kind, value, traceback):
    _reason(f"{kind.__name__}: {value}" if str(value) else kind.__name__)
    sys.__excepthook__(kind, value, traceback)


sys.excepthook = _excepthook
