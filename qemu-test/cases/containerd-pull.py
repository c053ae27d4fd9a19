# SPDX-License-Identifier: MIT OR Apache-2.0
#
# containerd 2 pulls images of a registry and downloads no layer that the snapshotter can get: from the
# registry, from its own store, and from containerd's content store. Otherwise containerd downloads it.
#
# timeout: 240
# klog-allow: overlayfs:|puzzlefs:

import os

from case import check, equal, eventually, run
from containerd import (CLOSED_PORT, CONFIG, NO_CRI_CONFIG, RUN, STORE, Containerd, Registry, Snapshotter,
                        address, build_and_push, ctr, has_nothing, layers, loopback_up, stored,
                        use_new_containerd)

use_new_containerd()
loopback_up()
os.makedirs(RUN, exist_ok=True)
registry, snapshotter, containerd = Registry(), Snapshotter(), Containerd(NO_CRI_CONFIG + CONFIG)
registry.start()
snapshotter.use_registry()
snapshotter.start()
containerd.start()


def pull(version, *options, namespace="default"):
    """Pulls by the transfer service, unless options say otherwise."""
    ctr("image", "pull", *options, "--snapshotter", "puzzlefs", address(version),
        namespace=namespace)


def downloaded(manifest, namespace="default"):
    """Returns the layers of an image that containerd's content store has."""
    return layers(manifest) & set(ctr("content", "ls", "-q", namespace=namespace).split())


def shown(version, namespace="default"):
    """Returns the version that a container of an image sees."""
    return ctr("run", "--rm", "--snapshotter", "puzzlefs", "--fifo-dir", f"{RUN}/fifo", "--cgroup",
               f"/containerd-case/{namespace}-{version}", address(version), f"c-{version}", "/bin/busybox",
               "cat", "/version", namespace=namespace)


def remove(version, namespace="default"):
    ctr("image", "rm", "--sync", address(version), namespace=namespace)


first = build_and_push("1", 2_000_000)
second = build_and_push("2", 100_000)
check(len(layers(second)) > 1, "the second version has one layer")

with snapshotter.pulling("registry"):
    pull("1")
equal(downloaded(first), set(), "layers that containerd has downloaded")
equal(shown("1"), "1", "the version in a container")
before = snapshotter.metrics()
with snapshotter.pulling("registry"):
    pull("2")
fetched = snapshotter.metrics()["fetched_bytes_total"] - before["fetched_bytes_total"]
check(100_000 < fetched < 400_000, f"{fetched} bytes were fetched for the second version")
equal(downloaded(second), set(), "layers that containerd has downloaded")
equal(shown("2"), "2", "the version in a container")
with snapshotter.pulling("store"):
    pull("1", namespace="other")
equal(downloaded(first, "other"), set(), "layers that containerd has downloaded")
equal(shown("1", "other"), "1", "the version in a container")
run("puzzlefs", "verify", "-q", f"{STORE}")
remove("1")
remove("2")
equal(shown("1", "other"), "1", "the version in a container")
remove("1", "other")
eventually(has_nothing, "images that were removed leave something")

# The layers are in containerd's content store before the snapshotter is asked.
ctr("content", "fetch", address("1"))
with snapshotter.pulling("containerd"):
    pull("1")
equal(shown("1"), "1", "the version in a container")
remove("1")
eventually(has_nothing, "images that were removed leave something")
# ctr's own way downloads first.
with snapshotter.pulling("containerd"):
    pull("2", "--local")
equal(downloaded(second), layers(second), "layers that containerd has downloaded")
equal(shown("2"), "2", "the version in a container")
remove("2")
eventually(has_nothing, "images that were removed leave something")

# The registry refuses the snapshotter.
snapshotter.use_registry(CLOSED_PORT)
with snapshotter.pulling("containerd"):
    pull("2")
check("containerd downloads the layers" in snapshotter.logged(), "the snapshotter does not say that it fails")
equal(downloaded(second), layers(second), "layers that containerd has downloaded")
equal(shown("2"), "2", "the version in a container")
check(stored() > 2_000_000, "the image is not in the store")
remove("2")
eventually(has_nothing, "images that were removed leave something")

containerd.end()
snapshotter.end()
registry.kill()
