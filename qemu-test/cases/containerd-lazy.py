# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Containers use images whose data has not arrived. The snapshotter is killed while a reader waits for a
# chunk, and the next one gives it. Images become complete, and removed ones leave nothing.
#
# timeout: 300
# klog-allow: overlayfs:|puzzlefs:

import contextlib
import fcntl
import json
import os
import signal
import subprocess

from case import CASE_DIR, check, drop_caches, equal, eventually, run, sha256
from containerd import (CONFIG, CONTAINERD_SOCKET, NO_CRI_CONFIG, RUN, STORE, Containerd, Registry,
                        Snapshotter, address, build_and_push, ctr, ctr_succeeds, has_nothing, layers,
                        loopback_up, use_new_containerd)

SIZE = 3_000_000

use_new_containerd()
loopback_up()
os.makedirs(RUN, exist_ok=True)
registry, snapshotter, containerd = Registry(), Snapshotter(), Containerd(NO_CRI_CONFIG + CONFIG)
# Readers wait for the registry longer than the case takes.
PLAIN = (*snapshotter.command, "--lazy", "--registry-timeout=60")
SLOW = (*PLAIN, "--limit-rate=64K")


def start_snapshotter(command):
    snapshotter.command = command
    snapshotter.start()
    # containerd connects again after a while.
    if containerd.process:
        eventually(lambda: ctr_succeeds("snapshot", "--snapshotter", "puzzlefs", "ls"), "containerd is lost")


def pull(version):
    ctr("image", "pull", "--snapshotter", "puzzlefs", address(version))


def remove(version):
    ctr("image", "rm", "--sync", address(version))
    eventually(has_nothing, "an image that was removed leaves something")
    equal(snapshotter.metrics()["fetching_images"], 0, "images that are fetched")


def arguments(version, name, *command):
    """Returns the arguments of ctr for a container."""
    return ("run", "--snapshotter", "puzzlefs", "--fifo-dir", f"{RUN}/fifo", "--cgroup",
            f"/containerd-case/{name}", address(version), name, "/bin/busybox", *command)


def remove_container(name):
    eventually(lambda: ctr_succeeds("container", "rm", name), f"the container {name} stays")


def assert_file(version, data, name):
    """A container must see a file as it was built."""
    said = ctr(*arguments(version, name, "sha256sum", f"/{data}"))
    equal(said.split()[0], sha256(f"{CASE_DIR}/tree-app/{data}"), f"the sum of {data} in {name}")
    remove_container(name)


def options():
    """Returns the options of the mounts of images."""
    with open("/proc/self/mounts") as mounts:
        lines = [line.split() for line in mounts if f" {RUN}/images/" in line]
    return [words[3].split(",") for words in lines]


@contextlib.contextmanager
def running(version, name):
    """A container runs meanwhile."""
    ctr("run", "-d", *arguments(version, name, "sleep", "3600")[1:])
    yield
    ctr("task", "rm", "--force", name)
    remove_container(name)


def waits(data):
    """Returns true if a process waits for data of a file, in a way that only a fatal signal ends."""
    for process in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            with open(f"/proc/{process}/cmdline") as file:
                command = file.read().split("\0")
            with open(f"/proc/{process}/stat") as file:
                state = file.read().rsplit(") ", 1)[1][0]
            if command[1:3] == ["sha256sum", f"/{data}"] and state == "D":
                return True
    return False


def is_complete():
    """Returns true if the snapshotter's store has all chunks of its images."""
    images = json.loads(run("puzzlefs", "status", "--json", STORE))["images"]
    return all(image["complete"] for image in images)


registry.start()
snapshotter.use_registry()
start_snapshotter(SLOW)
containerd.start()
build_and_push("1", SIZE)
second = build_and_push("2", SIZE)
whole = sum(layer["size"] for layer in second["layers"])
check(whole > 2 * SIZE, f"the image has {whole} bytes")

# Little is there when the pull returns, and what a container reads arrives.
with snapshotter.pulling("lazy"):
    pull("2")
downloaded = layers(second) & set(ctr("content", "ls", "-q").split())
equal(downloaded, set(), "layers that containerd has downloaded")
fetched = snapshotter.metrics()["fetched_bytes_total"]
check(fetched < SIZE / 2, f"{fetched} bytes are there after the pull")
equal(snapshotter.metrics()["fetching_images"], 1, "images that are fetched")
with running("2", "waiting"):
    check("fetch=wait" in options()[0] and "verify=digest" in options()[0], f"the options are {options()}")
    assert_file("2", "data-1", "first")
fetched = snapshotter.metrics()["fetched_bytes_total"]
check(SIZE < fetched < whole - SIZE / 2, f"{fetched} of {whole} bytes were fetched for a part")

# The registry hangs, a reader waits, and the snapshotter is killed. The next one gives the chunk.
registry.process.send_signal(signal.SIGSTOP)
drop_caches()
command = ["ctr", "--address", CONTAINERD_SOCKET, *arguments("2", "reader", "sha256sum", "/data-2")]
with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as reader:
    eventually(lambda: waits("data-2"), "no reader waits")
    snapshotter.kill()
    registry.kill()
    check(waits("data-2"), "the reader does not wait for the next snapshotter")
    registry.start()
    start_snapshotter((*PLAIN, "--complete=now"))
    said, cause = reader.communicate()
equal(said.decode().split()[:1], [sha256(f"{CASE_DIR}/tree-app/data-2")], f"the sum of data-2: {cause}")
remove_container("reader")

# The image becomes complete. It needs neither the registry nor a mount that waits.
eventually(lambda: snapshotter.metrics()["fetching_images"] == 0, "the image does not become complete")
check(is_complete(), "the store lacks chunks")
run("puzzlefs", "verify", "-q", STORE)
registry.kill()
drop_caches()
with running("2", "complete"):
    check("fetch=wait" not in options()[0], f"the options are {options()}")
    assert_file("2", "data-1", "again")
    assert_file("2", "data-2", "again")
registry.start()
remove("2")

# A removed image is no longer fetched.
snapshotter.end()
start_snapshotter(SLOW)
with snapshotter.pulling("lazy"):
    pull("2")
check(not is_complete(), "the image is complete at once")
remove("2")

# If another process fetches for the store, images are pulled.
snapshotter.end()
with open(f"{STORE}/.puzzlefs/fetcher.lock") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    start_snapshotter(SLOW)
    with snapshotter.pulling("registry"):
        pull("2")
check("another process fetches chunks" in snapshotter.logged(), "the snapshotter does not say why it pulls")
check(is_complete(), "the store lacks chunks after a pull")
assert_file("2", "data-2", "pulled")
remove("2")

containerd.end()
snapshotter.end()
registry.kill()
