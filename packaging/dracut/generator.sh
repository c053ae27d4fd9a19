#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck disable=SC2154
#
# In dracut's initramfs with systemd: sysroot.mount, if the root filesystem is an image, before
# systemd makes one of its own of root=.

command -v getarg >/dev/null || . /lib/dracut-lib.sh
case $(getarg root=) in
puzzlefs:*) ;;
*) exit 0 ;;
esac
# shellcheck source=packaging/initramfs/mount
. /lib/puzzlefs-mount.sh
early=$2
mkdir -p "$early/initrd-root-fs.target.requires"
cat >"$early/sysroot.mount" <<END
[Unit]
Description=The root filesystem: an overlay on a PuzzleFS image
After=dracut-pre-mount.service
Before=initrd-root-fs.target

[Mount]
What=puzzlefs
Where=/sysroot
Type=overlay
Options=$overlay
END
ln -s ../sysroot.mount "$early/initrd-root-fs.target.requires/sysroot.mount"
