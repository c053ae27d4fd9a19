# SPDX-License-Identifier: MIT OR Apache-2.0
# mount -o digest=: from one number, everything that is read is verified, or is not read.
# timeout: 60
# klog-allow: puzzlefs: 

mkdir src mnt
head -c 300000 /dev/urandom >src/a
puzzlefs build --json src store:image >report
digest=$(sed -E 's/.*"manifest_verity":"([0-9a-f]+)".*/\1/' report)
manifest=store/blobs/sha256/$(sed -E 's/.*"manifest_digest":"sha256:([0-9a-f]+)".*/\1/' report)
rootfs=store/blobs/sha256/$(puzzlefs resolve store:image)
assert_eq "$(fsverity digest --compact "$manifest")" "$digest"
try() { expect_failure mount -t puzzlefs -o "$1" "$CASE_DIR/store:image" mnt >/dev/null; }

# The metadata blob has to have fs-verity enabled, the data blobs where they are read.
try "digest=$digest"
assert_match "$said" rootfs_verity 'the reason'
for blob in store/blobs/sha256/*; do fsverity enable "$blob"; done
mount_image "$CASE_DIR/store:image" "$CASE_DIR/mnt" "digest=$digest"
assert_match "$(grep " $mnt " /proc/mounts)" \
	"rootfs_verity=$(fsverity digest --compact "$rootfs"),verify=fsverity" '/proc/mounts'
assert_same src/a mnt/a
mount -o "remount,digest=$digest" "$mnt"
unmount_image
mount_image "$CASE_DIR/store:image" "$CASE_DIR/mnt" "digest=$digest,verify=digest"
assert_match "$(grep " $mnt " /proc/mounts)" ",verify=digest" '/proc/mounts'
assert_same src/a mnt/a
unmount_image

try "digest=$(fsverity digest --compact "$rootfs")"
assert_match "$said" 'not the image that was asked for' 'the reason'
try "digest=$digest,verify=none"
assert_match "$said" 'drop one' 'the reason'

# Somebody puts another image under the tag, or another blob under a name.
head -c 300000 /dev/urandom >src/a
puzzlefs build -q src store:image
try "digest=$digest"
assert_match "$said" 'not the image that was asked for' 'the reason'
cp "$rootfs" saved
rm "$rootfs"
sed 's/a/b/' saved >"$rootfs"
fsverity enable "$rootfs"
expect_failure mount -t puzzlefs -o "digest=$digest" "$CASE_DIR/store@sha256:$(basename "$manifest")" mnt \
	>/dev/null
assert_match "$said" 'rootfs_verity|damaged' 'the reason'
