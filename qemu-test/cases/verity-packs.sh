# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash disable=SC2154 # mount_image sets mnt
#
# A store whose packs have fs-verity keeps it: new packs of each command have it, too, and an image that is
# mounted with verify=fsverity meanwhile is read right. On a full disk, enable-verity says so, and succeeds
# later.
#
# timeout: 120
# klog-allow: fs-verity .*(err|Error) -28

truncate -s 48M image
mkfs.ext4 -q -F -b 4096 -O verity image
mkdir disk
mount -o loop image disk
# Before the mounts of images, which are in front of it.
_mounted=("$CASE_DIR/disk")
mkdir src other
for name in a b c d; do head -c 1500000 /dev/urandom >"src/$name"; done
cp src/a other/
head -c 400000 /dev/urandom >other/own
build() { puzzlefs build -q "$@"; }
store=$CASE_DIR/disk/store
build src "$store:image"
packs() { for blob in "$store"/blobs/sha256/*; do
	[[ $(tail -c 16 "$blob" | head -c 8) != PZFSPACK ]] || echo "$blob"
done; }
all_have_verity() {
	local pack
	packs >found
	while read -r pack; do
		fsverity measure "$pack" >/dev/null || fail "$1: $pack has no fs-verity"
	done <found
}

# Not one block is left for the hashes.
dd if=/dev/zero of=disk/filler bs=4096 status=none 2>/dev/null || true
expect_failure puzzlefs enable-verity "$store" >/dev/null
assert_match "$said" "cannot enable fs-verity on $store/blobs/sha256/[0-9a-f]{64}: No space left on device" \
	'a full disk'
puzzlefs verify -q "$store"
mount_image "$store:image"
diff -r src "$mnt" || fail 'after a full disk'
unmount_image
rm disk/filler
puzzlefs enable-verity -q "$store"
all_have_verity enable-verity

mount_image "$store:image" "" verify=fsverity
same() {
	all_have_verity "$1"
	drop_caches
	diff -r src "$mnt" || fail "$1: the mounted image"
	puzzlefs verify -q "$store"
}
same 'nothing'
build --fresh other "$store:other"
same 'build --fresh'
build src "$store:again"
same 'build'
puzzlefs untag "$store:again"
puzzlefs repack -q "$store:other"
same repack
build other "$CASE_DIR/elsewhere:other"
head -c 300000 /dev/urandom >other/more
build other "$CASE_DIR/elsewhere:more"
puzzlefs copy -q "$CASE_DIR/elsewhere:more" "$store:more"
same copy
puzzlefs copy -q --whole-packs "$CASE_DIR/elsewhere:other" "$store:whole"
same 'copy --whole-packs'
# The image is mounted, and has no tag.
before=$(packs)
puzzlefs untag "$store:image"
puzzlefs untag "$store:whole"
puzzlefs gc --max-dead=0 "$store"
same gc
[[ $(packs) != "$before" ]] || fail 'gc has changed no pack'
puzzlefs complete -q --new-manifest "$store:other"
same complete
rm -r "$store/.puzzlefs/chunks"
puzzlefs reindex -q "$store"
same reindex
unmount_image
