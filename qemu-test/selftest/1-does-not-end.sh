# SPDX-License-Identifier: MIT OR Apache-2.0
# expect: FAILED: not done after 3 s
# timeout: 3
sleep 1000
