# SPDX-License-Identifier: MIT OR Apache-2.0
# expect: FAILED: in the kernel's log: WARNING: CPU: 0 PID: 1 at fs/puzzlefs
echo "WARNING: CPU: 0 PID: 1 at fs/puzzlefs" >/dev/kmsg
