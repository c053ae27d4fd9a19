# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash disable=SC2154 # mount_image sets mnt
#
# As the lower directory of overlayfs, as containers use it: read through it, copied up, hidden by
# whiteouts. On overlayfs itself. Not on PuzzleFS.
#
# formats: 3 4
# timeout: 60
# klog-allow: puzzlefs:|overlayfs:

mkdir -p src/directory src/gone upper work merged
echo lower >src/file
head -c 300000 /dev/urandom >src/large
echo below >src/directory/below
setfattr -n user.x -v 1 src/file
source=$(build_image src)
mount_image "$source"

mount -t overlay -o "lowerdir=$mnt,upperdir=upper,workdir=work" overlay merged
assert_same src/large merged/large
echo more >>merged/file
assert_eq "$(cat merged/file)" "lower"$'\n'"more" "a file that was copied up"
assert_eq "$(getfattr -n user.x --only-values merged/file)" 1 "its attribute"
rm merged/directory/below
rmdir merged/gone
echo new >merged/new
mv merged/large merged/renamed
assert_same src/large merged/renamed
chmod 600 merged/renamed
assert_eq "$(ls merged)" "directory"$'\n'"file"$'\n'"new"$'\n'"renamed" "the merged listing"
assert_eq "$(ls merged/directory)" "" "the listing of a directory with a whiteout"
assert_eq "$(cat "$mnt/file") $(cat "$mnt/directory/below")" "lower below" "the lower files"
umount merged

# Two images, one above the other, without an upper directory.
mkdir second && echo second >second/file && echo other >second/other
mount_image "$(build_image second second)" "$CASE_DIR/mnt2"
mount -t overlay -o "lowerdir=$CASE_DIR/mnt2:$CASE_DIR/mnt" overlay merged
assert_eq "$(cat merged/file) $(cat merged/other)" "second other" "files of the upper image"
assert_same src/large merged/large

# A store on overlayfs (that stands on a plain filesystem) is fine.
mkdir -p upper2 work2 merged2
mount -t overlay -o "lowerdir=$CASE_DIR/store,upperdir=upper2,workdir=work2" overlay merged2
mount_image "$CASE_DIR/merged2:image" "$CASE_DIR/mnt3"
assert_same src/large "$CASE_DIR/mnt3/large"
unmount_image "$CASE_DIR/mnt3"
umount merged2

# A store on PuzzleFS is not, nor one that is two filesystems up.
rootfs=$(puzzlefs resolve "$source")
refused_with_eloop() {
	python3 - "$1" "$CASE_DIR/src" "$rootfs" <<-'END' || fail "a mount of the store $1"
		import errno, mountapi, sys
		store, directory, rootfs = sys.argv[1:]
		with mountapi.Context() as context:
		    context.set("source", store)
		    context.set("rootfs", rootfs)
		    try:
		        context.create()
		    except OSError as error:
		        assert error.errno == errno.ELOOP, error
		        assert any("e " == line[:2] for line in context.log()), "no reason is given"
		    else:
		        sys.exit("mounted")
	END
}
cp -r store copy
mount_image "$(build_image copy stores)" "$CASE_DIR/mnt4"
refused_with_eloop "$CASE_DIR/mnt4"
mkdir -p upper3 work3 merged3
mount -t overlay -o "lowerdir=$CASE_DIR/mnt4,upperdir=upper3,workdir=work3" overlay merged3
refused_with_eloop "$CASE_DIR/merged3"
umount merged3 merged
