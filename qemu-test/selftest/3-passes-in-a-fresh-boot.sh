# SPDX-License-Identifier: MIT OR Apache-2.0
# expect: ok
(($(cut -d. -f1 /proc/uptime) < 600))
expect_errno ENOENT cat /nowhere
