# SPDX-License-Identifier: MIT OR Apache-2.0
#
# The snapshotter is killed at each step while it unpacks layers that containerd has downloaded, containerd is
# killed at one step, and it collects garbage. The next pull works. Images that are removed leave
# nothing.
#
# timeout: 480
# klog-allow: overlayfs:|puzzlefs:

from case import check, equal
from containerd import CLOSED_PORT
from killing import Pulls

pulls = Pulls()
pulls.snapshotter.use_registry(CLOSED_PORT)
left = pulls.sweep(pulls.pull, pulls.pull_again)
# The first layer has a snapshot before the image has a tag.
check({(0, 0), (0, 1), (0, 2), (1, 2)} <= set(left), f"the kills leave {left}")
pulls.kill_containerd(left.index((1, 2)) + 1)

# An interrupted pull leaves the snapshot of the first layer, and the next one does not download that layer
# again. Whatever garbage containerd collects in between, the data of the layer is there.
pulls.kill_at(left.index((0, 2)))
pulls.keep_first_layer("containerd.io/gc.root=case")
pulls.collect_garbage()
equal(pulls.pull(), None, "failure of a pull after garbage was collected")
pulls.keep_first_layer("containerd.io/gc.root=")
pulls.pull_again("after garbage was collected")
pulls.end()
