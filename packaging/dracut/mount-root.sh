#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck disable=SC2154
#
# In dracut's initramfs without systemd: mounts the root filesystem, if that is an image.

case $(getarg root=) in
puzzlefs:*)
	# shellcheck source=packaging/initramfs/mount
	. /lib/puzzlefs-mount.sh
	puzzlefs_mount_overlay "$NEWROOT" || die "puzzlefs: cannot mount $failure."
	;;
esac
