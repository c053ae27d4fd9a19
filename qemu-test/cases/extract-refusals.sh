# SPDX-License-Identifier: MIT OR Apache-2.0
#
# An extraction goes on if a filesystem refuses an attribute, a time, a name, a link or a kind of file:
# ext4 with small inodes, ext4 with casefolding, XFS without bigtime, FAT, tmpfs. Everything else is as
# in the image, every refusal is counted, and the exit status is 1.
#
# timeout: 300

# mkdisk FILE SIZE COMMAND...: makes a filesystem in a file.
mkdisk() {
	local file=$1
	rm -f "$file"
	truncate -s "$2" "$file"
	shift 2
	"$@" "$file" >/dev/null
}

# The tree itself needs room for a large attribute.
mkdir src disk
mkdisk src.img 64M mkfs.ext4 -q -b 4096 -I 256 -O ea_inode
mount -o loop src.img src
rmdir src/lost+found
mkdir -p src/dir/sub src/zz
echo contents >src/dir/file
ln src/dir/file src/dir/link
ln -s file src/dir/symlink
mkfifo src/dir/fifo
mknod src/dir/device c 1 3
echo colon >'src/dir/a:b'
echo upper >src/dir/NAME
echo lower >src/dir/name
mkdir src/dir/CASE src/dir/case
echo inside >src/dir/case/inside
ln -s "$(printf 'x%.0s' {1..2000})" src/dir/long-target
setfattr -n user.small -v 1 src/dir/file
setfattr -n user.large -v "$(printf 'v%.0s' {1..5000})" src/dir/sub
setfacl -m u:1234:rw src/dir/NAME
chown 12:34 src/dir/NAME
echo last >src/zz/after
chmod 640 src/zz/after
touch -d '2026-01-02 03:04:06' src/zz/after
touch -d '1970-01-01' src/dir/sub
touch -d '2100-01-01' src/dir/file
chmod 711 src/dir
touch -d '2026-02-03 04:05:06' src/dir src
puzzlefs build -q src store:image
names() { (cd "$1" && find . | sort); }

# extract_to TARGET: with exit status 1 and the report in report.json, or with status 0.
extract_to() {
	local status=0
	(trap - ERR; puzzlefs extract -q --json store:image "$1" >report.json 2>said) || status=$?
	cat said >&2
	echo "$status"
}
# refused KIND: how many refusals of the kind there are.
refused() {
	python3 -c 'import json, sys
all = json.load(open("report.json"))["refused"]
print(sum(one["count"] for one in all if one["kind"] == sys.argv[1]))' "$1"
}
# kinds: all kinds of refusals.
kinds() {
	python3 -c 'import json; print(*(one["kind"] for one in json.load(open("report.json"))["refused"]))'
}
# on_disk: mounts disk.img, and extracts.
on_disk() {
	mount -o loop disk.img disk
	status=$(extract_to disk/target)
}
# the_rest: what every filesystem with owners and modes has to get right.
the_rest() {
	assert_eq "$(stat -c '%a %Y' disk/target/zz/after)" "$(stat -c '%a %Y' src/zz/after)" \
		'a file after refusals'
	assert_eq "$(stat -c '%a %Y' disk/target/dir)" "$(stat -c '%a %Y' src/dir)" \
		'a directory with refusals inside'
	assert_same src/zz/after disk/target/zz/after
	assert_eq "$(wc -l <said)" "$(($(kinds | wc -w) + 1))" 'lines, one for each kind and one at the end'
}

# Nothing to refuse.
mkdisk disk.img 64M mkfs.ext4 -q -b 4096 -I 256 -O ea_inode
on_disk
assert_eq "$status $(kinds)" '0 ' 'ext4 with room for large attributes'
/payload/inventory src >wanted
/payload/inventory disk/target | diff wanted - || fail 'the trees differ'
umount disk

# Inodes without room for times beyond 2038; blocks of 1 KiB, which an attribute or the target of a link
# has to fit into.
mkdisk disk.img 64M mkfs.ext4 -q -I 128 -b 1024
on_disk
assert_eq "$status $(refused xattr) $(refused time) $(refused symlink)" '1 1 1 1' 'ext4 with small inodes'
grep -q 'disk/target/dir/sub: user.large of 5000 bytes: ' said || fail 'the attribute is not named'
grep -q 'disk/target/dir/file: 2100-01-01 00:00:00: it became 2038' said || fail 'the time is not told'
assert_eq "$(names disk/target)" "$(names src | grep -v long-target)" 'names'
assert_eq "$(getfattr --only-values -n user.small disk/target/dir/file)" 1 'the other attribute'
the_rest
umount disk

# A directory in which two names are one. Which of them is made does not matter.
mkdisk disk.img 64M mkfs.ext4 -q -b 4096 -O casefold -E encoding=utf8
mount -o loop disk.img disk
mkdir disk/target
chattr +F disk/target
status=$(extract_to disk/target)
assert_eq "$status $(refused file) $(refused directory)" '1 1 1' 'ext4 with casefolding'
grep -q 'File exists' said || fail 'the reason is not told'
the_rest
umount disk

# Times end in 2038, and targets of symbolic links at 1,023 bytes.
mkdisk disk.img 320M mkfs.xfs -q -m bigtime=0,inobtcount=0
on_disk
assert_eq "$status $(refused time) $(refused symlink)" '1 1 1' 'XFS without bigtime'
assert_eq "$(names disk/target)" "$(names src | grep -v long-target)" 'names'
the_rest
umount disk

# No owners, modes, attributes, links, special files; names by rules of its own.
mkdisk disk.img 64M mkfs.vfat
on_disk
for kind in owner xattr acl permissions time link file directory symlink device special; do
	(($(refused $kind) > 0)) || fail "FAT takes every $kind"
done
assert_eq "$status $(refused link) $(refused device) $(refused symlink) $(refused special)" '1 1 1 2 1' FAT
assert_same src/zz/after disk/target/zz/after
assert_same src/dir/file disk/target/dir/file
assert_same src/dir/file disk/target/dir/link
assert_eq "$(stat -c %Y disk/target/zz/after)" "$(stat -c %Y src/zz/after)" 'a time'
umount disk

# A file of 4 GiB, of holes: FAT has neither.
mkdir large
truncate -s 4G large/file
echo contents >large/zz
puzzlefs build -q large store:large
mkdisk disk.img 64M mkfs.vfat
mount -o loop disk.img disk
said=$(expect_failure puzzlefs extract -q store:large disk/target)
assert_match "$said" 'cannot extract 1 file: disk/target/file: cannot resize it: File too large' 'the reason'
assert_same large/zz disk/target/zz
[[ ! -e disk/target/file ]] || fail 'a part of the file is there'
umount disk

# An ordinary user on a tmpfs: what takes root is expected, and what the filesystem refuses is not.
mount -t tmpfs -o mode=777 tmpfs disk
chmod 755 "$CASE_DIR"
status=0
(trap - ERR; setpriv --reuid 65534 --regid 65534 --clear-groups puzzlefs extract -q --json store:image \
	disk/target) >report.json 2>said || status=$?
assert_eq "$status $(refused device)" '1 1' 'an ordinary user'
(($(refused owner-privilege) > 0)) || fail 'owners are set by an ordinary user'
assert_eq "$(names disk/target)" "$(names src | grep -v device)" 'names'
umount disk

# A full disk ends an extraction: it is no refusal of one file.
head -c 40M /dev/urandom >large/file
puzzlefs build -q large store:image
mkdisk disk.img 32M mkfs.ext4 -q
on_disk
assert_eq "$status" 1
assert_eq "$(wc -l <said)" 1 'lines'
grep -q 'cannot write .*: No space left on device.*make room and extract into a new directory' said ||
	fail 'the reason is not told'
umount disk
umount src
