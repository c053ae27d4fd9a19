# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash
#
# 20 times: unload and load the module, with a mount in between. It leaves no slab cache, no
# filesystem type and no shrinker behind; it cannot go while something is mounted.
#
# formats: 3 4
# timeout: 120
# kernels: every

module=/payload/puzzlefs.ko
mkdir src mnt
echo "the contents" >src/file
source=$(build_image src)
rootfs=$(puzzlefs resolve "$source")
store=$CASE_DIR/store

loaded() { [[ -d /sys/module/puzzlefs ]]; }
# Whatever happens here, the next case finds the module loaded.
load_again() {
	local status=$?
	if mountpoint -q "$CASE_DIR/mnt"; then umount "$CASE_DIR/mnt"; fi
	loaded || insmod "$module" || status=1
	exit "$status"
}
trap load_again EXIT

memory() { awk '$1 == "SUnreclaim:" { print $2 }' /proc/meminfo; }
# (One that is just going is in nobody's way.)
shrinkers() { { find /sys/kernel/debug/shrinker -maxdepth 1 -name 'puzzlefs*' 2>/dev/null || true; } |
	wc -l; }

for i in {1..22}; do
	[[ $i -ne 3 ]] || before=$(memory)
	mount -i -t puzzlefs -o "rootfs=$rootfs" "$store" mnt
	assert_eq "$(<mnt/file)" "the contents" "round $i"
	if ((i == 1)); then
		said=$(expect_failure rmmod puzzlefs)
		assert_match "$said" "in use" "rmmod while an image is mounted"
		assert_eq "$(<mnt/file)" "the contents" "the file after an attempt to unload the module"
		# One of the mount's, one of the store's page cache.
		assert_eq "$(</sys/module/puzzlefs/refcnt)" 2 "references to the module"
		exec 9<mnt/file
		umount -l mnt
		expect_failure rmmod puzzlefs
		exec 9<&-
	else
		umount mnt
	fi
	wait_until "round $i: nothing refers to the module" grep -qx 0 /sys/module/puzzlefs/refcnt
	rmmod puzzlefs
	if loaded; then fail "round $i: rmmod left it loaded"; fi
	if grep -qw puzzlefs /proc/filesystems; then fail "round $i: the filesystem type is still there"; fi
	if grep -q '^puzzlefs ' /proc/slabinfo; then fail "round $i: the slab cache is still there"; fi
	assert_eq "$(shrinkers)" 0 "round $i: shrinkers"
	if ((i == 1)); then
		said=$(expect_failure mount -i -t puzzlefs -o "rootfs=$rootfs" "$store" mnt)
		assert_match "$said" "unknown filesystem type" "mount without the module"
	fi
	insmod "$module"
	grep -qw puzzlefs /proc/filesystems || fail "round $i: insmod did not register the filesystem"
done
grown=$(($(memory) - before))
metric module_cycles_slab_kib "$grown"
# KASAN holds back what is freed; there, kmemleak looks for what is not.
if [[ ! -e /sys/kernel/debug/kmemleak ]]; then
	((grown < 1000)) || fail "20 rounds took $grown KiB of slab"
fi
said=$(expect_failure insmod "$module")
assert_match "$said" "File exists" "a second insmod"
