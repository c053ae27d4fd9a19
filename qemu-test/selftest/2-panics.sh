# SPDX-License-Identifier: MIT OR Apache-2.0
# expect: FAILED: the guest died
echo c >/proc/sysrq-trigger
