# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash disable=SC2154 # mount_image sets mnt
#
# What `puzzlefs build --base` makes: layers on an image, each of what changed, mount as the tree is.
#
# For format 3 alone. Images of format 4 have no layers of metadata.
# timeout: 120

mkdir -p src/{dir/sub,gone/deep,opaque}
cp -a /usr/lib/python3*/json src/dir/
cp /usr/bin/bash src/program
head -c 700000 /dev/urandom >src/large
for i in {1..50}; do echo "$i" >"src/dir/sub/$i"; done
echo hidden >src/gone/deep/hidden
echo below >src/opaque/below
ln src/large src/dir/link
ln src/large src/gone/link
ln -s dir src/symlink
puzzlefs build --format 3 src store:0 >/dev/null

change_1() {
	echo changed >src/dir/sub/7
	rm src/dir/sub/8 src/gone/link
	mv src/dir/json src/moved
	printf x | dd of=src/large bs=1 seek=300000 conv=notrunc status=none
	chmod 700 src/dir
	chown 12:34 src/program
	setfattr -n user.new -v here src/symlink/sub/9
}
change_2() {
	rm -r src/gone src/opaque src/symlink
	mkdir src/opaque src/symlink
	echo above >src/opaque/above
	echo file >src/gone
	mkfifo src/symlink/fifo
	mv src/dir/sub/1 src/dir/sub/x
	mv src/dir/sub/2 src/dir/sub/1
	mv src/dir/sub/x src/dir/sub/2
}
change_3() {
	# What was gone is back.
	rm src/gone
	mkdir -p src/gone/deep
	echo again >src/gone/deep/hidden
	ln src/large src/gone/link
	echo 8 >src/dir/sub/8
}

compare() { # TAG [OPTIONS]
	drop_caches
	mount_image "$CASE_DIR/store:$1" "$CASE_DIR/mnt" "${2:-}"
	# Looked up before anything is listed.
	[[ ! -e $mnt/dir/sub/8 || -e src/dir/sub/8 ]] || fail "layer $1: what is gone is found"
	/payload/inventory src >wanted
	/payload/inventory "$mnt" >found
	cmp wanted found || fail "layer $1: $(diff wanted found | head)"
	unmount_image
}
compare 0
for layer in 1 2 3; do
	"change_$layer"
	puzzlefs build --format 3 --base $((layer - 1)) src "store:$layer" >/dev/null
	compare "$layer"
	compare "$layer" verify=digest
	puzzlefs verify "store:$layer"
done
assert_match "$(puzzlefs inspect --json store:3)" '"layers":4[,}]' "layers"
# Out again, without the kernel.
puzzlefs extract store:3 out >/dev/null
/payload/inventory src >wanted
/payload/inventory out >found
cmp wanted found || fail "extracted: $(diff wanted found | head)"
