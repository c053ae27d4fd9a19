# SPDX-License-Identifier: MIT OR Apache-2.0
#
# The snapshotter is killed at each step of a pull from a registry and of a removal, and containerd in the
# middle of a pull. The next pull works, and images that are removed leave nothing.
#
# timeout: 480
# klog-allow: overlayfs:|puzzlefs:

from case import check, equal
from killing import Pulls

pulls = Pulls()
pulls.snapshotter.use_registry()
left = pulls.sweep(pulls.pull, pulls.pull_again)
# The image has a tag before it has the snapshots of its layers.
check({(0, 0), (1, 0), (1, 1), (1, 2)} <= set(left), f"the kills leave {left}")
# What no pull takes up goes with the next image that is removed.
pulls.sweep(pulls.pull, lambda what: pulls.pull_again(what, version="1"))

pulls.sweep(pulls.remove, pulls.pull_again,
            before=lambda: equal(pulls.pull(), None, "failure of a pull that no step stops"))
pulls.kill_containerd(left.index((1, 1)) + 1)
pulls.end()
