# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash
#
# Makes images that the benches compare. $puzzlefs is the path of the command.

# make_image SYSTEM TREE IMAGE [OPTION...]: IMAGE is a file, or STORE:TAG. The options are of puzzlefs build.
make_image() {
	local tree=$2 image=$3 options=("${@:4}")
	# shellcheck disable=SC2154 # of the caller
	case $1 in
	puzzlefs) "$puzzlefs" build -q --format 4 --compress=0 "${options[@]}" "$tree" "$image" ;;
	puzzlefs-zstd) "$puzzlefs" build -q --format 4 "${options[@]}" "$tree" "$image" ;;
	puzzlefs-3) "$puzzlefs" build -q --format 3 "${options[@]}" "$tree" "$image" ;;
	puzzlefs-3-zstd) "$puzzlefs" build -q --format 3 -z "${options[@]}" "$tree" "$image" ;;
	erofs) mkfs.erofs --quiet "$image" "$tree" ;;
	erofs-zstd) mkfs.erofs --quiet -zzstd,3 -C65536 "$image" "$tree" ;;
	erofs-dedupe) mkfs.erofs --quiet -zzstd,3 -C65536 -Ededupe "$image" "$tree" ;;
	squashfs) mksquashfs "$tree" "$image" -comp zstd -Xcompression-level 3 -quiet -no-progress ;;
	*)
		echo "$1: no such system" >&2
		return 1
		;;
	esac >/dev/null
}
