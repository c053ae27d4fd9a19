# SPDX-License-Identifier: MIT OR Apache-2.0
# expect: FAILED: sum: '4', should be '5'
assert_eq $((2 + 2)) 5 "sum"
