# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck disable=SC2154 # mount_image sets mnt
#
# Images as overlayfs' layers: an upper directory, with its whiteouts and opaque directories, is made
# an image and serves as the lower layer that it was.
#
# formats: 3 4
# timeout: 60
# klog-allow: overlayfs:

mkdir -p base/dir base/opaque base/gone upper work merged
echo base >base/file
echo below >base/dir/below
echo hidden >base/opaque/hidden
echo gone >base/gone/file
head -c 50000 /dev/urandom >base/large
mount_image "$(build_image base base)" "$CASE_DIR/image.base"

mount -t overlay -o "lowerdir=$CASE_DIR/image.base,upperdir=upper,workdir=work" overlay merged
rm merged/file merged/dir/below
rm -r merged/gone
rm -r merged/opaque && mkdir merged/opaque && echo seen >merged/opaque/seen
echo beside >merged/dir/beside
chmod 640 merged/large
/payload/inventory merged >wanted
umount merged

# The delta with its whiteouts (devices 0:0) and attributes, as an image.
mount_image "$(build_image upper delta)" "$CASE_DIR/image.delta"
assert_eq "$(stat -c '%F %t:%T' "$CASE_DIR/image.delta/file")" "character special file 0:0"
assert_eq "$(getfattr -n trusted.overlay.opaque --only-values "$CASE_DIR/image.delta/opaque")" y
mount -t overlay -o "lowerdir=$CASE_DIR/image.delta:$CASE_DIR/image.base" overlay merged
/payload/inventory merged >found
cmp wanted found || fail "$(diff wanted found | head -5)"
umount merged

# The same with another upper layer above them, and each file handle found again.
rm -rf upper work && mkdir upper work
layers=lowerdir=$CASE_DIR/image.delta:$CASE_DIR/image.base
mount -t overlay -o "$layers,upperdir=upper,workdir=work,index=on,nfs_export=on" \
	overlay merged
echo more >>merged/dir/beside
drop_caches
assert_eq "$(cat merged/dir/beside)" "beside"$'\n'"more"
assert_eq "$(grep -o nfs_export=on /proc/mounts)" nfs_export=on "what came of nfs_export"
umount merged

# A root to live in: a mount namespace of its own, pivot_root, a user namespace inside.
rm -rf upper work && mkdir -p upper/{bin,lib,lib64,old,proc} work
cp -L "$(command -v bash)" upper/bin/bash
for library in $(ldd upper/bin/bash | grep -o '/[^ ]*'); do cp -L --parents "$library" upper/; done
mount -t overlay -o "lowerdir=$CASE_DIR/image.delta:$CASE_DIR/image.base,upperdir=upper,workdir=work" \
	overlay merged
# shellcheck disable=SC2016 # for the shell inside
said=$(unshare --mount --propagation private bash -c '
	cd merged && mount --bind . . && cd "$PWD" && pivot_root . old &&
		exec /bin/bash -c "echo \$(< /opaque/seen)"
' 2>&1) || fail "pivot_root: $said"
assert_eq "$said" seen "what is read in the new root"
assert_eq "$(unshare --user --map-root-user --mount bash \
	-c 'mount --bind merged/dir merged/opaque && cat merged/opaque/beside')" beside
umount merged
