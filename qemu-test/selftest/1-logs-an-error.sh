# SPDX-License-Identifier: MIT OR Apache-2.0
# expect: FAILED: an error in the kernel's log: something broke
echo "<3>something broke" >/dev/kmsg
