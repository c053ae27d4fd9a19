# SPDX-License-Identifier: MIT OR Apache-2.0
# expect: skipped: no such device here
skip "no such device here"
