# SPDX-License-Identifier: MIT OR Apache-2.0
# expect: ok
# klog-allow: something broke
echo "<3>something broke" >/dev/kmsg
kmsg_since_start | grep -q "something broke"
