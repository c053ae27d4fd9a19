# SPDX-License-Identifier: MIT OR Apache-2.0
# expect: skipped: from Python
import lib

lib.metric("answer", 42)
lib.skip("from Python")
