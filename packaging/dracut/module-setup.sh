#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck disable=SC2154 # dracut's own variables
#
# dracut sources this: what booting from a PuzzleFS image needs in the initramfs.

check() {
	require_binaries mount.puzzlefs || return 1
	modinfo -k "$kernel" puzzlefs >/dev/null 2>&1 || {
		dwarning "puzzlefs: $kernel has no module puzzlefs: it will not boot from an image"
		return 1
	}
}

depends() {
	echo fs-lib udev-rules
}

installkernel() {
	# Whatever this machine has mounted now.
	hostonly='' instmods puzzlefs overlay
}

install() {
	inst_multiple mount.puzzlefs modprobe mount mkdir cat
	inst_simple /usr/share/puzzlefs-initramfs/mount /lib/puzzlefs-mount.sh
	inst_hook cmdline 95 "$moddir/parse-root.sh"
	inst_hook pre-mount 95 "$moddir/mount-parts.sh"
	if dracut_module_included systemd; then
		inst_script "$moddir/generator.sh" "$systemdutildir/system-generators/dracut-puzzlefs-generator"
	else
		inst_hook mount 95 "$moddir/mount-root.sh"
	fi
	# The store's device is waited for.
	dracut_need_initqueue
}
