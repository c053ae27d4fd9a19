# SPDX-License-Identifier: MIT OR Apache-2.0
# mount -o digest=: from one number, everything that is read is verified, or is not read.
# timeout: 60
# formats: 3 4
# klog-allow: puzzlefs: 

mkdir src mnt
head -c 300000 /dev/urandom >src/a
puzzlefs build "${build_format[@]}" --json src store:image >report
digest=$(sed -E 's/.*"manifest_verity":"([0-9a-f]+)".*/\1/' report)
manifest=store/blobs/sha256/$(sed -E 's/.*"manifest_digest":"sha256:([0-9a-f]+)".*/\1/' report)
root=$(puzzlefs resolve store:image)
assert_eq "$(fsverity digest --compact "$manifest")" "$digest"
try() { expect_failure mount -t puzzlefs -o "$1" "$CASE_DIR/store:image" mnt >/dev/null; }
mount_by() { mount_image "$CASE_DIR/store:image" "$CASE_DIR/mnt" "$1"; }

case $PUZZLEFS_FORMAT in
3)
	# The metadata blob has to have fs-verity enabled, the data blobs where they are read.
	rootfs=store/blobs/sha256/$root
	try "digest=$digest"
	assert_match "$said" rootfs_verity 'the reason'
	for blob in store/blobs/sha256/*; do fsverity enable "$blob"; done
	options=rootfs=$root,rootfs_verity=$(fsverity digest --compact "$rootfs"),verify=fsverity
	other=$(fsverity digest --compact "$rootfs")
	;;
4)
	# Everything follows from the root. Only data needs fs-verity.
	mount_by "digest=$digest"
	expect_errno EIO cat mnt/a
	unmount_image
	puzzlefs enable-verity -q store:image >said
	assert_eq "$(grep -oE '^digest=[0-9a-f]+' said)" "digest=$digest"
	options=rootfs=$root,verify=fsverity
	other=$root
	;;
esac
mount_by "digest=$digest"
assert_match "$(grep " $mnt " /proc/mounts)" "$options" '/proc/mounts'
assert_same src/a mnt/a
mount -o "remount,digest=$digest" "$mnt"
unmount_image
mount_by "digest=$digest,verify=digest"
assert_match "$(grep " $mnt " /proc/mounts)" ",verify=digest" '/proc/mounts'
assert_same src/a mnt/a
unmount_image

try "digest=$other"
assert_match "$said" 'not the image that was asked for' 'the reason'
try "digest=$digest,verify=none"
assert_match "$said" 'drop one' 'the reason'

# Somebody puts another image under the tag, or another blob under a name.
head -c 300000 /dev/urandom >src/a
build_image src >/dev/null
try "digest=$digest"
assert_match "$said" 'not the image that was asked for' 'the reason'
# (The root may be in memory.)
drop_caches
by_manifest() { expect_failure mount -t puzzlefs -o "digest=$digest" \
	"$CASE_DIR/store@sha256:$(basename "$manifest")" mnt >/dev/null; }
if [[ $PUZZLEFS_FORMAT == 3 ]]; then
	cp "$rootfs" saved
	rm "$rootfs"
	sed 's/a/b/' saved >"$rootfs"
	fsverity enable "$rootfs"
	by_manifest
	assert_match "$said" 'rootfs_verity|damaged' 'the reason'
else
	# The root is at the beginning of the pack.
	pack=$(puzzlefs inspect --json "$CASE_DIR/store@sha256:$(basename "$manifest")" |
		python3 -c 'import json, sys; print(json.load(sys.stdin)["packs"][0]["digest"])')
	pack=store/blobs/sha256/$pack
	cp "$pack" saved
	rm "$pack"
	{ head -c 100 /dev/zero; tail -c +101 saved; } >"$pack"
	fsverity enable "$pack"
	by_manifest
	assert_match "$said" "$root" 'the reason'
fi
