# SPDX-License-Identifier: MIT OR Apache-2.0
# A machine boots from root=puzzlefs:STORE:TAG by the packages' initramfs: the root is an overlay in memory on
# the image.
# boot: own
# kernel: distribution
# kernel-args: root=puzzlefs:/store:debian rootflags=verify=digest puzzlefs_device=LABEL=payload puzzlefs_overlayflags=size=64M init=/usr/bin/bash -- /run/puzzlefs/store/guest/init
# needs: sample packages initramfs
# timeout: 180

# shellcheck source=qemu-test/cases/lib/booted.sh
. /payload/cases/lib/booted.sh
