# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash disable=SC2154 # mount_image sets mnt
#
# Images of the reference implementation, raw, compressed and with a delta layer, mounted by the
# module, compare equal to their sources; images of ours, mounted by its FUSE driver, do so too.
#
# For format 3 alone. The reference implementation reads format 3.
#
# needs: reference
# timeout: 180

reference=/payload/reference/puzzlefs
[[ -x $reference ]] || skip "the reference implementation could not be built on the host"

mkdir -p tree/{dir/deep,gone,empty}
head -c 700000 /dev/urandom >tree/dir/large
seq 200000 >tree/numbers
for i in {1..40}; do seq "$i" $((i * 300)) >"tree/dir/file-$i"; done
: >tree/empty-file
echo below >tree/dir/deep/below
echo gone >tree/gone/file
echo removed >tree/dir/removed
ln tree/numbers tree/dir/hard-link
ln -s ../numbers tree/dir/symlink
mkfifo tree/fifo
mknod tree/null c 1 3
mknod tree/disk b 8 1
chmod 4711 tree/dir/file-1
chmod 1777 tree/empty
chown 1234:5678 tree/dir/file-2 tree/dir/deep
setfattr -n user.x -v value tree/dir/file-3 tree/dir
setcap cap_net_raw+ep tree/dir/file-4
setfacl -m u:1234:r tree/dir/file-5

# What the module shows of an image of version 3: no times and no link counts, by which the
# inventory finds the names of one inode, too.
show_v3() {
	/payload/inventory "$1" | grep -v 'same inode as' | sed -E 's/ m?time=[0-9.]+//; s/ n?links?=[0-9]+//'
}
# What the reference's FUSE driver shows: besides, no device numbers, no size of a symlink, and a
# block size of 0, by which bsdtar reads on for ever.
show_fuse() (
	cd "$1" || exit
	find . -type f -printf '%p\t%y %#m %U:%G %s\n' -o -printf '%p\t%y %#m %U:%G %l\n' | sort
	find . -type f -print0 | sort -z | xargs -0 sha256sum
	find . -print0 | sort -z | xargs -0 getfattr -hd -m - -e hex --
)
# compare SOURCE MOUNT v3|fuse WHAT
compare() {
	diff <("show_$3" "$1") <("show_$3" "$2") >differences || {
		head -40 differences
		fail "$4 differs from its source, as shown"
	}
	assert_eq "$(stat -c %i "$2/numbers")" "$(stat -c %i "$2/dir/hard-link")" \
		"the inode of a hard link in $4"
}

"$reference" build tree theirs:raw
"$reference" build --compression tree theirs-zstd:zstd
# What a delta is made of: a file added, one changed, one removed, one replaced by a directory,
# a directory removed, one of two links removed.
cp -a tree changed
echo added >changed/dir/added
mkdir changed/added
echo new >changed/added/file
seq 100 >>changed/dir/file-7
rm -r changed/dir/removed changed/gone changed/dir/file-8
mkdir changed/dir/file-8
ln changed/numbers changed/third-link
"$reference" build --base-layer raw changed theirs:delta
"$reference" build --compression --base-layer zstd changed theirs-zstd:delta

for image in theirs:raw theirs-zstd:zstd theirs:delta theirs-zstd:delta; do
	for options in '' verify=digest; do
		mount_image "$CASE_DIR/$image" "" "$options"
		if [[ $image == *delta ]]; then source=changed; else source=tree; fi
		compare "$source" "$mnt" v3 "the reference's $image${options:+ ($options)}"
		assert_eq "$(find "$mnt" -newermt @0 | wc -l)" 0 "files of $image with a time"
		unmount_image
	done
done

# The other way. The kernel asks a FUSE driver of this kind for no ACLs.
setfacl -b tree/dir/file-5
puzzlefs build --format 3 tree ours:raw
puzzlefs build --format 3 --compress tree ours-zstd:zstd
puzzlefs build --format 3 --entrypoint /bin/true --label a=b tree ours:configured
mkdir fuse
[[ -e /dev/fuse ]] || mknod /dev/fuse c 10 229
for image in ours:raw ours-zstd:zstd ours:configured; do
	"$reference" mount --foreground "$image" fuse >fuse.log 2>&1 &
	mounts() { kill -0 $! || fail "the FUSE driver does not mount $image: $(tail -n 3 \
		fuse.log)"; mountpoint -q fuse; }
	wait_until "the FUSE driver mounts $image" mounts
	compare tree fuse fuse "$image by the FUSE driver"
	umount fuse
	wait $! || fail "the FUSE driver ended with status $?: $(tail -n 3 fuse.log)"
done
