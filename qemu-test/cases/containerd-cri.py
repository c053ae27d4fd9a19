# SPDX-License-Identifier: MIT OR Apache-2.0
#
# The CRI plugins of containerd 1.7 and 2, without Kubernetes: they pull images without a download, run a pod
# on the host's network with a container, count the space of both, and free the chunks of removed images.
#
# timeout: 240
# klog-allow: overlayfs:|puzzlefs:

import os
import re
import shutil

from case import CASE_DIR, check, equal, eventually
from containerd import (CONFIG, CONTAINERD_SOCKET, CRI_CONFIG, CRI_CONFIG_NEW, ROOT, RUN, Containerd,
                        Registry, Snapshotter, address, build_and_push, ctr, has_nothing, layers, loopback_up,
                        stored, use_new_containerd)
import cri

WRITTEN = 3_000_000


def images():
    return {image.id: image for image in call("ListImages").images}


def used():
    """Returns the number of bytes that images and containers take, according to CRI."""
    filesystem, = call("ImageFsInfo").image_filesystems
    equal(filesystem.fs_id.mountpoint, ROOT, "the directory of images")
    return filesystem.used_bytes.value


def pull_all():
    for name, manifest in manifests.items():
        with snapshotter.pulling("registry"):
            reference = call("PullImage", image={"image": address("1", name)}).image_ref
        sizes = [part["size"] for part in (manifest, manifest["config"], *manifest["layers"])]
        equal(images()[reference].size, sum(sizes), f"the size of {name}")
    content = set(ctr("content", "ls", "-q", namespace="k8s.io").split())
    equal(content & set.union(*map(layers, manifests.values())), set(), "downloaded layers")
    # The statistics lag behind by a second.
    eventually(lambda: abs(used() - stored()) < 200_000, "CRI does not count the bytes of the store")


def run_pod():
    network = {"namespace_options": {"network": cri.NODE}}
    config = {"metadata": {"name": "pod", "uid": "1", "namespace": "case"},
              "log_directory": f"{CASE_DIR}/logs",
              "linux": {"cgroup_parent": "/containerd-case", "security_context": network}}
    before = used()
    pod = call("RunPodSandbox", config=config).pod_sandbox_id
    container = call("CreateContainer", pod_sandbox_id=pod, sandbox_config=config, config={
        "metadata": {"name": "container"}, "image": {"image": address("1")},
        "linux": {"security_context": network}}).container_id
    call("StartContainer", container_id=container)

    def inside(*command):
        done = call("ExecSync", container_id=container, cmd=("/bin/busybox", *command), timeout=60)
        equal((done.stderr, done.exit_code), (b"", 0), f"outcome of {command}")
        return done.stdout.decode()

    def written():
        layer = call("ContainerStats", container_id=container).stats.writable_layer
        return layer.used_bytes.value

    equal(inside("cat", "/version"), "1", "the version in the container")
    equal(inside("readlink", "/proc/self/ns/net").strip(), os.readlink("/proc/self/ns/net"), "the network")
    inside("dd", "if=/dev/zero", "of=/written", f"bs={WRITTEN}", "count=1", "status=none")
    eventually(lambda: WRITTEN <= written() < WRITTEN + 100_000, "CRI does not count bytes that are written")
    eventually(lambda: abs(used() - before - WRITTEN) < 200_000, "CRI does not add bytes that are written")
    equal(snapshotter.metrics()["mounted_images"], 2, "mounted images")

    call("StopContainer", container_id=container, timeout=0)
    call("RemoveContainer", container_id=container)
    call("StopPodSandbox", pod_sandbox_id=pod)
    call("RemovePodSandbox", pod_sandbox_id=pod)
    eventually(lambda: abs(used() - before) < 100_000, "CRI counts a container that was removed")


def remove_all():
    whole = stored()
    call("RemoveImage", image={"image": address("1")})
    eventually(lambda: stored() < whole - 1_900_000, "the chunks of an image that was removed remain")
    call("RemoveImage", image={"image": address("1", "pause")})
    equal(images(), {}, "images")
    eventually(has_nothing, "images that were removed leave something")
    eventually(lambda: used() == 0, "CRI counts images that were removed")


loopback_up()
os.makedirs(RUN, exist_ok=True)
registry, snapshotter = Registry(), Snapshotter()
registry.start()
snapshotter.use_registry()
snapshotter.start()
manifests = {"app": build_and_push("1", 2_000_000), "pause": build_and_push("1", 10_000, "pause")}
for config, use in (CONFIG + CRI_CONFIG, lambda: None), (CONFIG + CRI_CONFIG_NEW, use_new_containerd):
    use()
    containerd, call = Containerd(config), cri.Client(CONTAINERD_SOCKET)
    containerd.start(lambda: call.answers("ListImages"))
    pull_all()
    run_pod()
    remove_all()
    call.channel.close()
    containerd.end()
    shutil.rmtree(f"{CASE_DIR}/containerd")
check(re.search('version="?2', containerd.logged()), "the second containerd is not version 2")
snapshotter.end()
registry.kill()
