# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash
#
# What the benches in guests measure with.

# start, end METRIC: the time between them, in microseconds.
start() { begun=${EPOCHREALTIME/./}; }
end() { metric "$1" "$((${EPOCHREALTIME/./} - begun))"; }

# bytes_of PATH... [FIND-TEST...]: the sizes of all files beneath, together.
bytes_of() { find "$@" -type f -printf '%s\n' | awk '{ n += $1 } END { print n }'; }
