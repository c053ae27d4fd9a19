# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash
#
# What the benches in guests measure with.

reader=/payload/bin/reader

# start, end METRIC: the time between them, in microseconds, and marks around it for those
# who count instructions.
start() {
	"$reader" mark
	begun=${EPOCHREALTIME/./}
}
end() {
	metric "$1" "$((${EPOCHREALTIME/./} - begun))"
	"$reader" mark
}

# bytes_of PATH... [FIND-TEST...]: the sizes of all files beneath, together.
bytes_of() { find "$@" -type f -printf '%s\n' | awk '{ n += $1 } END { print n }'; }

# attach_composefs IMAGE OBJECTS DIRECTORY OPTION...: EROFS with the tree, overlayfs to the files
# beneath; the latter keeps the former.
attach_composefs() {
	local image=$1 objects=$2 directory=$3 option options=ro,metacopy=on,redirect_dir=on
	shift 3
	for option; do options+=,$option; done
	mount -t erofs -o ro "$image" "$directory"
	mount -t overlay -o "$options,lowerdir=$directory::$objects" composefs "$directory"
}
detach() { # SYSTEM DIRECTORY
	umount "$2"
	if [[ $1 == composefs* ]]; then umount "$2"; fi
}
