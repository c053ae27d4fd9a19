# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck disable=SC2154 # mount_image sets mnt
#
# systemd-nspawn runs programs in a mounted image, read-only and with what is written kept in memory.
#
# needs: sample
# timeout: 120
# klog-allow: overlayfs:

mount_image /payload/store:debian
# No systemd runs in the guest that a machine could be registered with.
run() {
	systemd-nspawn --quiet --register=no --keep-unit --link-journal=no --settings=no --pipe \
		--uuid=11111111111111111111111111111111 --directory="$mnt" "$@"
}

assert_eq "$(run --read-only /usr/bin/cat /etc/debian_version)" "$(<"$mnt/etc/debian_version")"
expect_failure run --read-only /usr/bin/touch /usr/new >/dev/null
said=$(run --volatile=overlay /bin/sh -c '
	echo text >/usr/new && cat /usr/new && head -c 4 /usr/bin/perl | od -An -c')
assert_eq "$said" "text"$'\n'" 177   E   L   F"
[[ ! -e $mnt/usr/new ]] || fail "the image was written to"
