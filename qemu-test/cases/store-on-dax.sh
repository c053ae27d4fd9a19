# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash disable=SC2154 # mount_image sets mnt
#
# A store on ext4 with DAX, which has no page cache that could be read without a file's lock: the
# mount is refused with an explanation. Without DAX, the same store is mounted.
#
# formats: 3
# kernel: distribution
# timeout: 120
# boot: own
# kernel-args: memmap=256M!1G

for module in nd_e820 nd_pmem; do modprobe "$module"; done
udevadm settle 2>/dev/null || true
[[ -b /dev/pmem0 ]] || fail "no /dev/pmem0: $(ls /dev)"
mkfs.ext4 -q -b 4096 /dev/pmem0
mkdir disk src
head -c 300000 /dev/urandom >src/a
_clean() {
	for image in "${_mounted[@]}"; do unmount_image "$image" || true; done
	umount disk || true
}
trap '_clean; _at_exit' EXIT
mount -o dax=always /dev/pmem0 disk
grep -q ' dax=always' <(findmnt -no OPTIONS disk | tr , '\n' | sed 's/^/ /') ||
	fail "no DAX: $(findmnt -no OPTIONS disk)"
build_image src >/dev/null
mv store disk/
expect_failure mount_image disk/store:image
assert_match "$said" DAX 'the explanation'
umount disk
mount -o dax=never /dev/pmem0 disk
mount_image disk/store:image
assert_same src/a "$mnt/a"
