# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Containers of one image, started through CRI by containerd 2, with its overlayfs and EROFS snapshotters
# and ours: the pull, and each step of a pod.
#
# timeout: 7200
# klog-allow: overlayfs:|puzzlefs:|erofs:|loop\d+:
#
# Not a test: nothing is compared with a limit. `qemu-test/bench/containers` prints the tables.
# /payload/images has the image `debian` in `store`, and in `ordinary` with one gzip layer. The file `plan`
# has the number of rounds and of pods.

import os
import shutil
import subprocess
import time

import cri
from case import CASE_DIR, drop_caches, equal, metric, run
from containerd import (CONFIG, CONTAINERD_SOCKET, CRI_CONFIG_NEW, RUN, STORE, Containerd, Registry,
                        Snapshotter, address, build_and_push, loopback_up, use_new_containerd)

IMAGES = "/payload/images"
COMMAND = "import json, socket, ssl"
# The differ of each snapshotter. containerd tries the one after the other.
DIFFERS = {"puzzlefs": ["puzzlefs-diff", "walking"], "overlayfs": ["walking"], "erofs": ["erofs", "walking"]}


def config_of(system):
    """Returns the configuration of containerd for a snapshotter."""
    text = CONFIG + CRI_CONFIG_NEW
    for ours, other in (
            ('snapshotter = "puzzlefs"', f'snapshotter = "{system}"'),
            ('["puzzlefs-diff", "walking"]', str(DIFFERS[system]).replace("'", '"')),
            ('differ = "puzzlefs-diff"', f'differ = "{DIFFERS[system][0]}"'),
            ("/team/pause:1", f"/{repository(system)}/pause:1")):
        equal(ours in text, True, f"a place of the configuration for {ours}")
        text = text.replace(ours, other)
    return text


def repository(system):
    return "team" if system == "puzzlefs" else "ordinary"


def image_of(system, name):
    return {"image": address("1", name).replace("/team/", f"/{repository(system)}/")}


def push(source, name):
    run("skopeo", "--insecure-policy", "copy", "-q", source,
        f"docker://{image_of('overlayfs', name)['image']}")


def push_images():
    """Puts both images into the registry, in both kinds."""
    build_and_push("1", 10_000, "pause")
    run("puzzlefs", "export", "-q", "--oci", f"{CASE_DIR}/pause", f"{CASE_DIR}/store:pause-1")
    push(f"oci:{CASE_DIR}/pause", "pause")
    run("puzzlefs", "push", "-q", f"{IMAGES}/store:debian", f"docker://{address('1', 'debian')}")
    push(f"oci:{IMAGES}/ordinary", "debian")


def measure(system, number, pods):
    """Pulls the image and runs pods with one container each, one after the other."""
    snapshotter = Snapshotter()
    if system == "puzzlefs":
        snapshotter.use_registry()
        snapshotter.start()
    containerd, call = Containerd(config_of(system)), cri.Client(CONTAINERD_SOCKET)
    containerd.start(lambda: call.answers("ListImages"))

    def timed(step, method, **fields):
        start = time.monotonic()
        answer = call(method, **fields)
        metric(f"{system}.{step}.{number}", time.monotonic() - start)
        return answer

    # The sandbox's image is not part of the pull.
    call("PullImage", image=image_of(system, "pause"))
    drop_caches()
    timed("pull", "PullImage", image=image_of(system, "debian"))
    metric(f"{system}.disk.{number}", disk_usage(system))
    for pod in range(pods):
        if pod == 0:
            drop_caches()
        run_pod(system, call, timed, pod)
    timed("remove-image", "RemoveImage", image=image_of(system, "debian"))
    call("RemoveImage", image=image_of(system, "pause"))
    call.channel.close()
    containerd.end()
    if system == "puzzlefs":
        snapshotter.end()
        shutil.rmtree(os.path.dirname(STORE))
    shutil.rmtree(f"{CASE_DIR}/containerd")


def disk_usage(system):
    """Returns the size of what containerd and the snapshotter keep, in bytes."""
    paths = [f"{CASE_DIR}/containerd"] + ([os.path.dirname(STORE)] if system == "puzzlefs" else [])
    return sum(int(run("du", "-sxk", path).split()[0]) << 10 for path in paths)


def run_pod(system, call, timed, number):
    """Runs a pod. The steps of the first one have names of their own."""
    def step(name):
        return f"first-{name}" if number == 0 else name

    network = {"namespace_options": {"network": cri.NODE}}
    config = {"metadata": {"name": f"pod-{number}", "uid": str(number), "namespace": "bench"},
              "log_directory": f"{CASE_DIR}/logs",
              "linux": {"cgroup_parent": "/containerd-case", "security_context": network}}
    pod = timed(step("sandbox"), "RunPodSandbox", config=config).pod_sandbox_id
    container = timed(step("create"), "CreateContainer", pod_sandbox_id=pod, sandbox_config=config, config={
        "metadata": {"name": "container"}, "image": image_of(system, "debian"),
        "command": ["/bin/sleep", "3600"], "linux": {"security_context": network}}).container_id
    timed(step("start"), "StartContainer", container_id=container)
    done = timed(step("python"), "ExecSync", container_id=container, timeout=90,
                 cmd=("python3", "-c", COMMAND))
    equal((done.stderr, done.exit_code), (b"", 0), f"outcome of python3 with {system}")
    timed(step("stop"), "StopContainer", container_id=container, timeout=0)
    timed(step("remove"), "RemoveContainer", container_id=container)
    call("StopPodSandbox", pod_sandbox_id=pod)
    call("RemovePodSandbox", pod_sandbox_id=pod)


with open(f"{IMAGES}/plan") as plan:
    rounds, pods_of_a_round = map(int, plan.read().split())
# An emulated guest unpacks a layer slowly.
cri.DEADLINE = 1200
loopback_up()
os.makedirs(RUN, exist_ok=True)
for module in "erofs", "overlay":
    subprocess.run(["modprobe", module], check=True)
use_new_containerd()
registry = Registry()
registry.start()
push_images()
for round_number in range(rounds):
    for name in DIFFERS:
        measure(name, round_number, pods_of_a_round)
registry.kill()
