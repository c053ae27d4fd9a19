# SPDX-License-Identifier: MIT OR Apache-2.0
# expect: FAILED: the guest hung: killed after
# timeout: 2
# The runner cannot end this: it is stopped.
pkill -STOP -f /payload/guest/runner
sleep 1000
