# SPDX-License-Identifier: MIT OR Apache-2.0
"""Kills the snapshotter at each step of a pull by CRI, and containerd at one of them (see steps.py)."""

import json
import os
import threading

import grpc

from case import check, equal, eventually, run
from containerd import (CONFIG, CONTAINERD_SOCKET, CRI_CONFIG, ROOT, RUN, STORE, Containerd, Registry,
                        Snapshotter, address, build_and_push, ctr, ctr_succeeds, has_nothing, layers,
                        loopback_up, tags)
from steps import Steps
import cri

# containerd collects garbage when an image is removed and when a case asks for it. It would do so as well
# after each hundred changes, which come after another step in each run, and if a lease has ended, as that of
# a pull that fails: at once (deletion_threshold), or after a pause that follows from the duration of
# collections (pause_threshold), here of more than an hour.
GC_CONFIG = """
[plugins."io.containerd.gc.v1.scheduler"]
  mutation_threshold = 0
  deletion_threshold = 1000000
  pause_threshold = 0.000001
"""


class Pulls:
    """Pulls of the image `address("2")`, whose first layer is the only one of `address("1")`."""

    def __init__(self):
        loopback_up()
        os.makedirs(RUN, exist_ok=True)
        self.registry, self.snapshotter = Registry(), Snapshotter()
        self.containerd = Containerd(CONFIG + CRI_CONFIG + GC_CONFIG)
        self.call = cri.Client(CONTAINERD_SOCKET)
        self.registry.start()
        self.snapshotter.start()
        self.start_containerd()
        build_and_push("1", 200_000)
        manifest = build_and_push("2", 100_000)
        equal(len(layers(manifest)), 2, "layers of the second version")
        self.first_layer = manifest["layers"][0]["digest"]

    def start_containerd(self):
        self.containerd.start(lambda: self.call.answers("ListImages"))

    def end(self):
        equal(ctr("leases", "ls", "-q", namespace="k8s.io"), "", "leases at the end")
        self.containerd.end()
        self.snapshotter.end()
        self.registry.kill()

    def pull(self, version="2"):
        """Pulls; returns the cause if that fails. After a failure to connect to the snapshotter, containerd
        does not try again for a while."""
        cause = None

        def has_connected():
            nonlocal cause
            cause = None
            try:
                self.call("PullImage", image={"image": address(version)})
            except grpc.RpcError as error:
                cause = error.details()
            return "connection refused" not in str(cause) or self.snapshotter.process.poll() is not None
        eventually(has_connected, "containerd does not find the snapshotter")
        return cause

    def pull_again(self, what, version="2"):
        """Pulls, which must succeed, and removes the image, which must leave nothing."""
        equal(self.pull(version), None, f"{what}: failure of the next pull")
        names = [json.loads(line)["tag"] for line in run("puzzlefs", "list", "--json", STORE).splitlines()]
        versions = {run("puzzlefs", "cat", f"{STORE}:{name}", "/version") for name in names}
        check(version in versions, f"{what}: the versions in the store: {versions}")
        run("puzzlefs", "verify", "-q", STORE)
        self.remove(version)
        eventually(has_nothing, f"{what}: an image that was removed leaves something")

    def remove(self, version="2"):
        self.call("RemoveImage", image={"image": address(version)})

    def restart_in_steps(self):
        """Restarts the snapshotter so that its steps can be stopped; returns them."""
        self.snapshotter.kill()
        steps = Steps(f"{RUN}/steps.sock")
        plain = self.snapshotter.command
        self.snapshotter.command = steps.command(*plain)
        self.snapshotter.start()
        self.snapshotter.command = plain
        return steps

    def sweep(self, work, afterwards, before=lambda: None):
        """Kills the snapshotter at each step of `work`; returns the numbers of tags and of snapshots that
        each kill leaves. Calls `afterwards` after each kill, when the snapshotter is back."""
        left = []
        while True:
            before()
            remains = self.kill_at(len(left) + 1, work)
            if remains is None:
                self.pull_again("not killed")
                return left
            left.append(remains)
            afterwards(f"killed at step {len(left)}")

    def kill_at(self, number, work=None):
        """Kills the snapshotter at a step of `work`, by default a pull, and starts it again; returns the
        numbers of tags and of snapshots that it leaves, or nothing if there is no such step."""
        steps = self.restart_in_steps()
        steps.stop_at(number, self.snapshotter.process.kill)
        cause = (work or self.pull)()
        remains = None
        if steps.reached.is_set():
            self.snapshotter.process.wait()
            remains = (tags(), snapshots())
        else:
            equal(cause, None, f"failure without step {number}")
            self.snapshotter.kill()
        self.snapshotter.start()
        return remains

    def kill_containerd(self, number):
        """Kills containerd while the snapshotter is at a step of a pull."""
        steps = self.restart_in_steps()
        steps.stop_at(number)
        causes = []
        thread = threading.Thread(target=lambda: causes.append(self.pull()))
        thread.start()
        eventually(steps.reached.is_set, f"the snapshotter does not come to step {number}")
        self.containerd.kill()
        steps.go_on()
        thread.join()
        check(causes[0], "the pull succeeds although containerd is killed")
        self.snapshotter.kill()
        self.snapshotter.start()
        self.start_containerd()
        # containerd keeps what a killed pull has got for a day.
        for lease in ctr("leases", "ls", "-q", namespace="k8s.io").split():
            if not lease.startswith("puzzlefs-"):
                ctr("leases", "rm", lease, namespace="k8s.io")
        self.pull_again(f"containerd killed at step {number}")

    def keep_first_layer(self, label):
        """Sets a label of the snapshot of the first layer. After a failure to connect to the snapshotter,
        containerd does not try again for a while."""
        command = ["snapshot", "--snapshotter", "puzzlefs", "label", self.first_layer, label]
        eventually(lambda: ctr_succeeds(*command, namespace="k8s.io"), "the first layer gets no label")

    def collect_garbage(self):
        """Has containerd collect its garbage."""
        ctr("leases", "create", "--id", "collect", namespace="k8s.io")
        ctr("leases", "delete", "--sync", "collect", namespace="k8s.io")


def snapshots():
    """Returns the number of snapshots in the snapshotter's state, which need not exist yet."""
    if not os.path.exists(f"{ROOT}/state.json"):
        return 0
    with open(f"{ROOT}/state.json") as file:
        return len(json.load(file)["snapshots"])
