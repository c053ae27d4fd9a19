# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck disable=SC2154 # mount_image sets mnt
#
# podman runs a mounted image as a container's root filesystem, with an overlay of its own over it.
#
# needs: sample
# timeout: 180
# klog-allow: overlayfs:

mount_image /payload/store:debian
podman() {
	command podman --root "$CASE_DIR/storage" --runroot "$CASE_DIR/run" --tmpdir "$CASE_DIR/tmp" \
		--cgroup-manager=cgroupfs --events-backend=none --runtime=crun "$@"
}
run() { podman run --rm --cgroups=disabled --network=none --log-driver=none --rootfs "$mnt:O" "$@"; }

assert_eq "$(run /usr/bin/cat /etc/debian_version)" "$(<"$mnt/etc/debian_version")"
said=$(run /usr/bin/python3 -c '
import os
open("/etc/new", "w").write("x")
print(os.getpid(), sorted(os.listdir("/etc"))[:3])')
assert_eq "$said" "1 $(python3 -c 'import os, sys; print(sorted(os.listdir(sys.argv[1]) + ["new"])[:3])' \
	"$mnt/etc")"
[[ ! -e $mnt/etc/new ]] || fail "the image was written to"
expect_failure run /usr/bin/false >/dev/null
