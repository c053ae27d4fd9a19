# SPDX-License-Identifier: MIT OR Apache-2.0
"""What cases in Python have at hand beside guest/lib.py, whose words are here too."""

import contextlib
import ctypes
import errno
import glob
import hashlib
import mmap
import os
import random
import signal
import subprocess
import sys
import threading
import time
import traceback

import lib
from lib import CASE_DIR, RESULT_DIR, fail, metric, mount_image, skip

__all__ = ["CASE_DIR", "RESULT_DIR", "fail", "metric", "mount_image", "skip"]

PAGE = 4096

# The option of `puzzlefs build` for the format of images that the case is run for.
FORMAT = int(os.environ.get("PUZZLEFS_FORMAT", "4"))
BUILD_FORMAT = [] if FORMAT == 4 else [f"--format={FORMAT}"]


def _explain(kind, value, trace):
    """A reason that says where in the case, which tells more than where in a helper."""
    traceback.print_exception(kind, value, trace)
    lines = [f.lineno for f in traceback.extract_tb(trace) if f.filename == sys.argv[0]]
    where = f"line {lines[-1]}: " if lines else ""
    what = str(value) if kind is AssertionError else f"{kind.__name__}: {value}"
    with open(f"{RESULT_DIR}/reason", "a", errors="backslashreplace") as file:
        print(where + what.replace("\n", " | "), file=file)


sys.excepthook = _explain


def equal(actual, expected, what="value"):
    if actual != expected:
        fail(f"{what}: {_short(actual)}, should be {_short(expected)}")


def _short(value, most=200):
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}... ({len(text)} characters)"


class Differences:
    """Comparisons that all are made before the case fails, so that its output has all differences."""

    def __init__(self):
        self.found = []

    def compare(self, actual, expected, what):
        if actual != expected:
            self.found.append(f"{what}: {_short(actual)}, should be {_short(expected)}")
            print(self.found[-1])

    def end(self):
        check(not self.found, f"{len(self.found)} outcomes differ, the first: {self.found[:1]}")


def check(condition, what):
    if not condition:
        fail(what)


@contextlib.contextmanager
def refused(number, what):
    """The body must fail with this errno."""
    try:
        yield
    except OSError as error:
        if error.errno != number:
            fail(f"{what}: {name_of(error.errno)}, should be {name_of(number)}")
    else:
        fail(f"{what}: should have failed with {name_of(number)}, but did not")


def name_of(number):
    return errno.errorcode.get(number, str(number))


def run(*command, **options):
    """Runs a command that has to succeed; returns what it said on stdout."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False, **options)
    if done.returncode:
        said = (done.stderr + done.stdout).decode(errors="backslashreplace").strip()
        fail(f"{' '.join(map(str, command))}: status {done.returncode}: {said[-400:]}")
    return done.stdout.decode(errors="surrogateescape")


def build_image(tree, *options, tag="image", store=None):
    """Builds an image, with options of puzzlefs build; returns what mount(8) wants as its source."""
    store = store or f"{CASE_DIR}/store"
    run("puzzlefs", "build", "--quiet", *BUILD_FORMAT, *options, tree, f"{store}:{tag}")
    return f"{store}:{tag}"


def frames(size):
    """The option of puzzlefs build for frames of a size. In format 4, each chunk is a frame."""
    return [f"--frame-size={size}"] if FORMAT == 3 else []


def unmount_image(directory=f"{CASE_DIR}/mnt"):
    run("umount", directory)


def is_mounted(directory):
    with open("/proc/self/mounts", "rb") as mounts:
        return any(line.split()[1] == os.fsencode(directory) for line in mounts)


def drop_caches(what=3):
    """Drops clean pages (1), dentries and inodes (2), or all of these (3)."""
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as file:
        file.write(str(what))


def meminfo():
    """What /proc/meminfo says, in bytes (and in numbers, of huge pages)."""
    with open("/proc/meminfo") as file:
        lines = [line.replace(":", "").split() for line in file]
    return {name: int(value) << 10 if unit else int(value) for name, value, *unit in lines}


def drain_free_pages():
    """Has all processors give back the free pages that they keep ready, which MemFree does not count."""
    write_file("/proc/sys/vm/compact_memory", b"1")


def counters(directory):
    """What /proc/self/mountstats counts of a mount."""
    with open("/proc/self/mountstats") as file:
        records = file.read().split("\ndevice ")
    record = next(r for r in records if f" mounted on {directory} " in r)
    check("with fstype puzzlefs statvers=1.0" in record, record)
    return {key.strip(): int(value) for key, value in
            (line.split(":") for line in record.splitlines()[1:] if ":" in line)}


def slab_objects(cache="puzzlefs"):
    """How many objects of a slab cache are in use, to the best of the allocator's
    knowledge: what lies ready for reuse in per-processor caches is handed back first."""
    with contextlib.suppress(OSError), open(f"/sys/kernel/slab/{cache}/shrink", "w") as file:
        file.write("1")
    with open("/proc/slabinfo") as table:
        for line in table:
            words = line.split()
            if words[0] == cache:
                return int(words[1])
    return 0


def shrink_slabs():
    """Has all slab caches give back slabs that are empty, and in the debug kernel what KASAN holds back of
    freed objects."""
    for cache in glob.glob("/sys/kernel/slab/*/shrink"):
        write_file(cache, b"1")


# Only a failing case waits for so long: it is many times what a busy machine takes.
DEADLINE = 40


def eventually(condition, what, seconds=DEADLINE):
    """Waits until a condition holds, and fails with `what` if it does not. No case sleeps for a
    guessed time: it waits for the condition that the time is for. More seconds than usual can be given."""
    seconds = max(seconds, DEADLINE)
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            fail(f"{what}, even after {seconds} s")
        time.sleep(0.05)


def in_system_call(process, number):
    """Returns true if a process is blocked in a system call."""
    with open(f"/proc/{process}/syscall") as file:
        return file.read().split()[0] == str(number)


def is_pending(process, number):
    """Returns true if a signal waits to be delivered to a process."""
    with open(f"/proc/{process}/status") as file:
        pending = [int(line.split()[1], 16) for line in file if line.startswith(("SigPnd:", "ShdPnd:"))]
    return any(mask >> (number - 1) & 1 for mask in pending)


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def same_file(path, other, block=1 << 20):
    """Two files have the same bytes."""
    with open(path, "rb", buffering=0) as one, open(other, "rb", buffering=0) as two:
        at = 0
        while True:
            a, b = one.read(block), two.read(block)
            if a != b:
                differ = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
                fail(f"{path!r} and {other!r} differ at byte {at + differ}")
            if not a:
                return
            at += len(a)


_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int,
                       ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
_libc.readahead.argtypes = [ctypes.c_int, ctypes.c_long, ctypes.c_size_t]


def mapped(fd, offset, length, flags=mmap.MAP_PRIVATE):
    """What a map of a file shows; past the file's end too, to the end of its last page, which
    the module mmap does not give. A page that cannot be read kills the process."""
    start = offset - offset % PAGE
    with map_of(fd, start, offset + length - start, flags) as address:
        return ctypes.string_at(address + offset - start, length)


@contextlib.contextmanager
def map_of(fd, start, length, flags=mmap.MAP_SHARED):
    """A map of a file to read; gives its address."""
    address = _libc.mmap(None, length, mmap.PROT_READ, flags, fd, start)
    _checked(address == ctypes.c_void_p(-1).value)
    try:
        yield address
    finally:
        _libc.munmap(address, length)


def _checked(failed):
    if failed:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def in_memory(fd):
    """How many pages of a file are in the page cache, by mincore(2)."""
    size = os.fstat(fd).st_size
    pages = (ctypes.c_ubyte * ((size + PAGE - 1) // PAGE))()
    with map_of(fd, 0, size) as address:
        _checked(_libc.mincore(address, size, pages))
    return sum(page & 1 for page in pages)


def readahead(fd, offset, length):
    """readahead(2)."""
    _checked(_libc.readahead(fd, offset, length))


def write_file(path, contents=b""):
    with open(path, "wb") as file:
        file.write(contents)


_seed = None


def seeded_random():
    """A random generator. Its seed is printed and, with a case that failed, shown;
    puzzlefs.seed=N on the kernel's command line or PUZZLEFS_SEED=N brings it back."""
    global _seed
    if _seed is None:
        _seed = os.environ.get("PUZZLEFS_SEED") or _told("seed")
        _seed = _seed or str(int.from_bytes(os.urandom(4), "little"))
        print(f"seed {_seed}: run again with PUZZLEFS_SEED={_seed}")
    return random.Random(int(_seed))


def rounds():
    """How often a case that draws at random does so: what its line `# rounds:` says, or else
    puzzlefs.rounds=N on the kernel's command line, which PUZZLEFS_ROUNDS=N puts there."""
    with open(sys.argv[0]) as case:
        usual = next(line.split(":", 1)[1] for line in case if line.startswith("# rounds:"))
    return int(_told("rounds") or usual)


def _told(key):
    """What the host told on the kernel's command line."""
    with open("/proc/cmdline") as cmdline:
        words = [word.split("=", 1)[1]
                 for word in cmdline.read().split() if word.startswith(f"puzzlefs.{key}=")]
    return words[0] if words else None


def in_threads(*functions):
    """Runs functions at once, each in a thread; the first failure of any is raised."""
    failures = []

    def guarded(function):
        try:
            function()
        except BaseException as error:  # pylint: disable=broad-except
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(f,)) for f in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def start(work, *arguments):
    """A child process that does something, and ends with 0 if that went well."""
    child = os.fork()
    if child:
        return child
    try:
        work(*arguments)
        os._exit(0)
    except BaseException:  # pylint: disable=broad-except
        traceback.print_exc()
    finally:
        os._exit(2)


def end(child, who):
    """Kills a child process, which has to be there still, and to go."""
    os.kill(child, signal.SIGKILL)
    status = None

    def is_gone():
        nonlocal status
        gone, status = os.waitpid(child, os.WNOHANG)
        return gone
    eventually(is_gone, f"{who} is killed, and does not go")
    equal(os.waitstatus_to_exitcode(status), -signal.SIGKILL, f"the status of {who}, who is killed")


def ends_well(child, who):
    """Waits for the end of a child process."""
    status = None

    def has_ended():
        nonlocal status
        ended, status = os.waitpid(child, os.WNOHANG)
        return ended
    eventually(has_ended, f"{who} waits")
    equal(os.waitstatus_to_exitcode(status), 0, f"the status of {who}")


def turns(work, most, stuck):
    """Has a child process call `work` again and again, `most` times or until a call takes `stuck`
    seconds; gives the child and how many calls there were. `work` makes the function to call."""
    reader, writer = os.pipe()

    def repeat():
        function = work()
        while True:
            function()
            os.write(writer, b".")

    child = start(repeat)
    os.close(writer)
    os.set_blocking(reader, False)
    count, last = 0, time.monotonic()
    while count < most and time.monotonic() - last < stuck:
        try:
            more = len(os.read(reader, most))
            check(more, "the child goes on, or waits")
            count, last = count + more, time.monotonic()
        except BlockingIOError:
            time.sleep(0.01)
    return child, count


def as_user(uid, function):
    """Runs a function in a child process of an unprivileged user; returns what it returns, or
    the errno it fails with."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            try:
                answer = ("value", function())
            except OSError as error:
                answer = ("errno", error.errno)
            os.write(writer, repr(answer).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    check(text, f"the process of user {uid} died")
    kind, value = eval(text)  # noqa: S307 our own repr
    if kind == "errno":
        raise OSError(value, os.strerror(value))
    return value
