# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck disable=SC2154 # mount_image sets mnt
#
# An image that holds the storage of a container engine: overlayfs' attributes appear in a writable
# mount as they are in the image, by the module and over FUSE. A character device 0:0 is refused.
#
# formats: 3 4
# timeout: 120
# klog-allow: overlayfs:|puzzlefs: 

mkdir -p src/store/dir src/user
touch src/store/white src/user/white
echo contents >src/store/dir/file
echo contents >src/store/meta
set_attribute() { setfattr -n "$2" -v "$3" "src/$1"; }
set_attribute . trusted.overlay.origin root
set_attribute store trusted.overlay.opaque x
set_attribute store/white trusted.overlay.whiteout ''
set_attribute store/white trusted.overlay.overlay.whiteout ''
set_attribute store/dir trusted.overlay.opaque y
set_attribute store/meta trusted.overlay.metacopy ''
set_attribute store/meta trusted.overlay.redirect /store/dir/file
set_attribute store/meta trusted.other 1
set_attribute user user.overlay.opaque x
set_attribute user/white user.overlay.whiteout ''
# Link counts of directories are overlayfs' own.
seen() { /payload/inventory "$1" | sed -E '/\tstat\td /s, links=[0-9]*,,'; }
seen src >wanted
attributes() { (cd "$1" && getfattr -R -d -m - -e hex . | sort); }
attributes src >wanted-attributes
image=$(build_image src)

mount_image "$image"
attributes "$mnt" | diff wanted-attributes - || fail 'read-only: the attributes differ'
unmount_image

mkdir -p writable upper
for options in "" "=$CASE_DIR/upper" "=$CASE_DIR/upper"; do
	for fuse in "" --fuse; do
		[[ -z $options ]] || rm -rf upper/*
		# shellcheck disable=SC2086
		puzzlefs mount $fuse "--writable$options" "$image" writable
		attributes writable | diff wanted-attributes - ||
			fail "writable$options $fuse: the attributes differ"
		seen writable | diff wanted - || fail "writable$options $fuse: the trees differ"
		# Changes copy them up.
		echo more >>writable/store/meta
		touch writable/store/dir/new
		assert_eq "$(getfattr --only-values -n trusted.overlay.redirect writable/store/meta)" \
			/store/dir/file "$fuse"
		assert_eq "$(getfattr --only-values -n trusted.overlay.opaque writable/store/dir)" y "$fuse"
		setfattr -n trusted.overlay.nlink -v U+1 writable/store/meta
		setfattr -x trusted.overlay.metacopy writable/store/meta
		assert_eq "$(getfattr -d -m nlink --only-values writable/store/meta)" U+1 "$fuse"
		puzzlefs umount writable
	done
done

# The option by itself: the names are escaped, those that are escaped already once more.
mount_image "$image" "" escape_overlay
assert_match "$(grep " $mnt " /proc/mounts)" ',escape_overlay' '/proc/mounts'
names=$(getfattr -m - "$mnt/store/white" | grep trusted | sort | paste -sd' ')
assert_eq "$names" 'trusted.overlay.overlay.overlay.whiteout trusted.overlay.overlay.whiteout' 'escaped names'
expect_failure getfattr -n trusted.overlay.whiteout "$mnt/store/white" >/dev/null
expect_failure mount -o remount,escape_overlay=1 "$mnt" >/dev/null
unmount_image
mount_image "$image"
expect_errno EINVAL mount -o remount,escape_overlay "$mnt"
unmount_image

# A whiteout cannot be shown.
mkdir src/store/lower
mknod src/store/lower/deleted c 0 0
image=$(build_image src)
for fuse in "" --fuse; do
	# shellcheck disable=SC2086
	said=$(expect_failure puzzlefs mount $fuse --writable "$image" writable)
	assert_match "$said" 'overlayfs hides a character device 0:0: /store/lower/deleted' "$fuse"
done
assert_eq "$(grep -c " $CASE_DIR" /proc/mounts || true)" 0 'mounts'
mount_image "$image"
assert_eq "$(stat -c '%F %t:%T' "$mnt/store/lower/deleted")" 'character special file 0:0' 'read-only'
