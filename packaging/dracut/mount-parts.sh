#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck disable=SC2154
#
# In dracut's initramfs: mounts what the root filesystem is made of, if that is an image.

mount_parts() {
	image=$(getarg root=)
	case $image in
	puzzlefs:*) ;;
	*) return ;;
	esac
	command -v det_fs >/dev/null || . /lib/fs-lib.sh
	device=$(label_uuid_to_dev "$(getarg puzzlefs_device=)")
	# shellcheck source=packaging/initramfs/mount
	. /lib/puzzlefs-mount.sh
	puzzlefs_mount_parts "$device" "$(det_fs "$device" auto)" "${image#puzzlefs:}" \
		"$(getarg rootflags=)" ||
		die "puzzlefs: cannot mount $failure."
}

mount_parts
