# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck disable=SC2154 # mount_image sets mnt
#
# Two of the kernel's own selftests, with an image where they would make a tree: what /proc shows of a
# map through overlayfs, and file handles below covered directories while mounts come and go.
#
# needs: selftests
# timeout: 180
# klog-allow: overlayfs:

mkdir -p tree/{top/secret/inner,empty} tree/c{0..63}
head -c 4096 /dev/urandom >tree/test
mount_image "$(build_image tree)"
export PUZZLEFS_TREE=$mnt
# Kernels before 7.3 have the first alone; build-selftests has made sure that 7.3 has both.
for test in /payload/selftests/*; do
	"$test" >said 2>&1 || fail "$test: $(grep -E '^not ok|^# .*(:|code)' said | tail -5)"
	assert_match "$(<said)" 'fail:0 .*error:0' "$test"
	[[ $(<said) =~ skip:0 ]] || fail "$test: $(grep -i skip said)"
done
