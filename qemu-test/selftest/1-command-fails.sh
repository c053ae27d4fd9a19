# SPDX-License-Identifier: MIT OR Apache-2.0
# expect: FAILED: 1-command-fails.sh:4: false
true
false
true
