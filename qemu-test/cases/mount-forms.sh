# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash
#
# All the ways to name an image to mount(8): by tag, by manifest, by metadata, by the older names,
# in fstab. What /proc/mounts shows can be given to mount again.
#
# timeout: 60

mkdir -p src mnt other
echo "the contents" >src/file
source=$(build_image src)
rootfs=$(puzzlefs resolve "$source")
store=$CASE_DIR/store
mnt=$CASE_DIR/mnt
manifest=$(grep -o 'sha256:[0-9a-f]*' "$store/index.json" | head -1)
assert_match "$rootfs" '^[0-9a-f]{64}$' "puzzlefs resolve"

# shown: source, type and options of the mount, as /proc/mounts has them.
shown() { awk -v mnt="$mnt" '$2 == mnt { print $1, $3, $4 }' /proc/mounts; }
try() {
	"$@" || fail "$*: mount failed"
	assert_eq "$(cat "$mnt/file")" "the contents" "$*"
	assert_match "$(shown)" " puzzlefs ro,[^ ]*rootfs=$rootfs" "$*: /proc/mounts"
	last=$(shown)
	umount "$mnt"
}

try mount -t puzzlefs "$store:image" "$mnt"
with_helper=$last
try mount -t puzzlefs "$store@$manifest" "$mnt"
try mount -t puzzlefs store:image "$mnt"
assert_eq "$last" "$with_helper" "what is shown of a relative path"
try mount -t puzzlefs -o ro,noatime,nosuid "$store:image" "$mnt"
assert_match "$last" 'nosuid.*noatime' "options of the VFS"
try mount -t puzzlefs -o rw "$store:image" "$mnt"
try mount -i -t puzzlefs -o "rootfs=$rootfs" "$store" "$mnt"
assert_eq "$last" "$with_helper" "what is shown of a mount without the helper"
try mount -t puzzlefs -o "rootfs=$rootfs" "$store" "$mnt"
try mount -i -t puzzlefs -o "image_manifest=$rootfs" "$store" "$mnt"
try mount -i -t puzzlefs -o "oci_root_dir=$store,image_manifest=$rootfs" none "$mnt"
try mount -t puzzlefs -o "oci_root_dir=$store,image_manifest=$rootfs" none "$mnt"
try mount -i -t puzzlefs -o "oci_root_dir=$store,rootfs=$rootfs" none "$mnt"
older=$last
try mount.puzzlefs "$store:image" "$mnt" -o ro
# A trailing slash, a symbolic link to the store, a store with a colon, a comma and blanks in it.
try mount -i -t puzzlefs -o "rootfs=$rootfs" "$store/" "$mnt"
ln -s store link
try mount -t puzzlefs "$CASE_DIR/link:image" "$mnt"
cp -r store 'st:o re,x'
try mount -t puzzlefs "$CASE_DIR/st:o re,x:image" "$mnt"
try mount -i -t puzzlefs -o "rootfs=$rootfs" "$CASE_DIR/st:o re,x" "$mnt"

# Pasted back.
for line in "$with_helper" "$older"; do
	read -r shown_source _ options <<<"$line"
	try mount -i -t puzzlefs -o "$options" "$shown_source" "$mnt"
	assert_eq "$last" "$line" "what is shown of options that were shown"
done

# A line in fstab; findmnt, remount, umount by the source.
cp /etc/fstab fstab.kept 2>/dev/null || : >fstab.kept
cp fstab.kept fstab
echo "$store:image $mnt puzzlefs defaults 0 0" >>fstab
try mount -T "$PWD/fstab" "$mnt"
findmnt --verify --tab-file "$PWD/fstab" >verify 2>&1 || true
if grep -q 'unsupported\|unknown' verify; then fail "findmnt --verify: $(cat verify)"; fi

mount -t puzzlefs "$store:image" "$mnt"
assert_eq "$(findmnt -n -o FSTYPE,SOURCE --target "$mnt/file")" "puzzlefs $store" "findmnt"
before=$(shown)
mount -i -o "remount,ro" "$mnt"
assert_eq "$(shown)" "$before" "a plain remount"
mount -i -o "remount,rootfs=$rootfs" "$mnt"
assert_eq "$(shown)" "$before" "a remount with the same rootfs"
read -r _ _ options <<<"$before"
mount -i -o "remount,$options" "$mnt"
mount -t puzzlefs -o remount,nodev "$store:image" "$mnt"
assert_match "$(shown)" nodev "a remount with nodev"
expect_failure mount -i -o "remount,rootfs=${rootfs//[0-9]/a}" "$mnt"
expect_failure mount -i -o remount,nonesuch "$mnt"
assert_eq "$(cat "$mnt/file")" "the contents" "the file after all remounts"

# Bound and moved.
mount --bind "$mnt" other
assert_eq "$(cat other/file)" "the contents" "a bind mount"
umount "$mnt"
assert_eq "$(cat other/file)" "the contents" "a bind mount whose origin is gone"
umount other
