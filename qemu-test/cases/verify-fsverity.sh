# SPDX-License-Identifier: MIT OR Apache-2.0
# verify=fsverity: a blob is read if fs-verity checks it against the image's digest, and not
# otherwise; rootfs_verity= is the metadata blob's.
# formats: 3
# timeout: 180
# klog-allow: puzzlefs: 
# kernels: every

tree=$CASE_DIR/tree
mkdir -p "$tree" "$CASE_DIR/mnt"
head -c 300000 /dev/urandom >"$tree/a"
head -c 200000 /dev/urandom >"$tree/b"
# One blob: the kernel logs ten lines at once, and then none for a while.
head -c 5000 /dev/urandom >"$tree/small"
build_image "$tree" >/dev/null
store=$CASE_DIR/store
rootfs=$(puzzlefs resolve "$store:image")
mount_raw() { mount -i -t puzzlefs -o "rootfs=$rootfs,$1" "$store" "$CASE_DIR/mnt"; }

# Without fs-verity on them, blobs are refused, the metadata is not.
mount_raw verify=fsverity
_mounted=("$CASE_DIR/mnt")
expect_errno EIO cat "$CASE_DIR/mnt/small" >/dev/null
assert_match "$(kmsg_since_start)" 'fs-verity is not enabled' 'the kernel log'
unmount_image "$CASE_DIR/mnt"

# With blobs open that have it only now: they are found as they are, by a reader of one page, for whom
# nothing is read ahead, and by who mounts.
mkdir "$CASE_DIR/used"
mount -i -t puzzlefs -o "rootfs=$rootfs" "$store" "$CASE_DIR/used"
mount_raw verify=fsverity
_mounted=("$CASE_DIR/used" "$CASE_DIR/mnt")
cat "$CASE_DIR/used"/* >/dev/null
for blob in "$store"/blobs/sha256/*; do fsverity enable "$blob"; done
python3 -c '
import mmap, sys
with open(sys.argv[1], "rb") as file:
    pages = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    pages.madvise(mmap.MADV_RANDOM)
    expected = open(sys.argv[2], "rb").read(1)
    assert pages[:1] == expected, (pages[:1], expected)
' "$CASE_DIR/mnt/a" "$tree/a"
unmount_image "$CASE_DIR/mnt"
verity=$(fsverity digest --compact "$store/blobs/sha256/$rootfs")
mount_raw "verify=fsverity,rootfs_verity=$verity"
assert_same "$tree/b" "$CASE_DIR/mnt/b"
unmount_image "$CASE_DIR/mnt"
unmount_image "$CASE_DIR/used"

mount_raw "verify=fsverity,rootfs_verity=$verity"
_mounted=("$CASE_DIR/mnt")
assert_match "$(grep puzzlefs /proc/mounts)" "rootfs=$rootfs,rootfs_verity=$verity,verify=fsverity" \
	'/proc/mounts'
assert_same "$tree/a" "$CASE_DIR/mnt/a"
assert_same "$tree/b" "$CASE_DIR/mnt/b"

# A blob in whose place stands another, with an fs-verity digest of its own.
victim=$(find "$store/blobs/sha256" -type f ! -name "$rootfs" -printf '%s %p\n' | sort -rn |
	sed -n '1s/^[0-9]* //p')
mv "$victim" "$victim.away"
head -c "$(stat -c %s "$victim.away")" /dev/zero >"$victim"
fsverity enable "$victim"
unmount_image "$CASE_DIR/mnt"
drop_caches
mount_raw verify=fsverity
_mounted=("$CASE_DIR/mnt")
if cat "$CASE_DIR/mnt/a" "$CASE_DIR/mnt/b" >/dev/null 2>&1; then fail 'another blob was read'; fi
assert_match "$(kmsg_since_start)" "its fs-verity digest is not the image's" 'the kernel log'
mv "$victim.away" "$victim"
assert_same "$tree/a" "$CASE_DIR/mnt/a"
assert_same "$tree/b" "$CASE_DIR/mnt/b"

# Options that a remount cannot change; those that are the same, it takes.
mount -i -o "remount,ro,rootfs=$rootfs,verify=fsverity" "$CASE_DIR/mnt"
expect_failure mount -i -o remount,ro,verify=none "$CASE_DIR/mnt" >/dev/null
assert_match "$said" 'verify cannot be changed' 'the reason'
unmount_image "$CASE_DIR/mnt"

expect_failure mount_raw "rootfs_verity=$rootfs" >/dev/null
assert_match "$said" 'fs-verity digest' 'the reason'
expect_failure mount_raw verify=sometimes >/dev/null
assert_match "$said" 'none, fsverity and digest' 'the reason'
