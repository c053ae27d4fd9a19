# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck disable=SC2154 # mount_image sets mnt
#
# overlayfs over PuzzleFS does what it does over ext4: the same changes, with each of its options,
# give the same tree, the same listing and the same errors.
#
# formats: 3 4
# timeout: 120
# klog-allow: overlayfs:

mkdir -p src/dir/sub src/gone src/moved/deep
echo contents >src/file
head -c 100000 /dev/urandom >src/dir/large
cp src/dir/large src/moved/deep/large
ln src/file src/dir/hard
ln -s ../file src/dir/link
mkfifo src/fifo
cp /usr/bin/true src/program
setcap cap_net_raw+ep src/program
setfattr -n user.one -v 1 src/file
setfattr -n trusted.two -v 2 src/dir
setfacl -m u:1234:rw src/dir/large
setfacl -d -m g:99:rx src/dir
chown 12:34 src/dir/sub
mount_image "$(build_image src)"
cp -a src plain

# Everything that a container may do to its root. What fails says so, in words.
change() {
	cd "$1" || return
	echo more >>file
	echo more >>dir/hard
	chmod 700 dir/large
	chown 5:6 program
	rm dir/link
	rmdir gone
	mkdir gone
	echo new >gone/new
	mv moved elsewhere || true
	mv dir/large renamed
	ln renamed second
	setfacl -m u:77:r dir/sub
	setfattr -n user.three -v 3 dir/sub
	setfattr -x user.one file
	truncate -s 10 moved/deep/large elsewhere/deep/large || true
	rm -r dir
	mkdir dir
	echo again >dir/again
	mknod device c 1 3
	rmdir nothing
	cat dir/link || true
} 2>&1

# Times of what was changed are not alike, nor whether a program still has links below.
seen() {
	{
		"$CASE_DIR/inventory" "$1"
		find "$1" -name large -exec sha256sum {} +
	} | sed -E "s, (mtime|time)=[^ ]*,,g; s,$1,,g"
}
cp /payload/inventory inventory

for options in "" redirect_dir=on,metacopy=on,volatile index=on,nfs_export=on,xino=on userxattr; do
	for lower in "$mnt" plain; do
		rm -rf upper work
		mkdir -p upper work merged
		mount -t overlay -o "lowerdir=$lower,upperdir=upper,workdir=work${options:+,$options}" \
			overlay merged
		(set +e; trap - ERR; change merged) >"said.${lower##*/}"
		drop_caches
		seen merged >"seen.${lower##*/}"
		umount merged
	done
	cmp said.plain said.mnt || fail "with '$options': $(diff said.plain said.mnt | head -5)"
	cmp seen.plain seen.mnt || fail "with '$options': $(diff seen.plain seen.mnt | head -5)"
	[[ $options != index=on* ]] || [[ -n $(ls work/index) ]] || fail "with '$options': there is no index"
done
/payload/inventory "$mnt" >after
/payload/inventory src | cmp - after
