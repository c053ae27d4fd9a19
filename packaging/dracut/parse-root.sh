#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck disable=SC2034,SC2154
#
# In dracut's initramfs: root=puzzlefs:STORE:TAG waits for puzzlefs_device=. The parameters are
# those of the initramfs of initramfs-tools.

case $root in
puzzlefs:*)
	device=$(getarg puzzlefs_device=)
	[ "$device" ] || die "puzzlefs: root=$root wants puzzlefs_device=, the device that the store is on."
	rootok=1
	wait_for_dev "$(label_uuid_to_dev "$device")"
	;;
esac
