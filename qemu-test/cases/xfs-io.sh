# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck disable=SC2154 # mount_image sets mnt
#
# xfs_io reads the same from the image as from the tree: by pread forwards, backwards and at random,
# by preadv, by maps; and opens no file to write.
#
# formats: 3 4
# timeout: 90

mkdir tree
head -c 700001 /dev/urandom >tree/file
truncate -s 2000000 tree/file
head -c 300000 /dev/urandom >>tree/file
truncate -s 3000001 tree/file
build_image tree raw --compress=0 >/dev/null
build_image tree compressed --compress >/dev/null

# told DIRECTORY COMMAND...: what xfs_io shows of the file there.
told() {
	local directory=$1 command arguments=()
	shift
	for command; do arguments+=(-c "$command"); done
	xfs_io -r "${arguments[@]}" "$directory/file" 2>&1
}
reads=(
	'pread -q -v 0 5000' 'pread -q -v 699999 5000' 'pread -q -v 1999000 9000' 'pread -q -v 2999990 100'
	'mmap -r 0 3000001' 'mread -v 4095 3' 'mread -v 697000 6000' 'mread -r -v 2000000 5000' 'munmap'
)
# Of these it shows how much was read, and how long it took.
counts=('pread -B -b 8192 3000001 3000001' 'pread -R -Z 7 -b 4096 0 3000001' 'pread -V 8 -b 65536 0 3000001')
told tree "${reads[@]}" >wanted
told tree "${counts[@]}" | grep '^read' >>wanted
assert_eq "$(grep -c '^read [1-9][0-9]*/3000001 bytes' wanted)" 3 'reads of the tree'
for tag in raw compressed; do
	mount_image "$CASE_DIR/store:$tag"
	drop_caches
	told "$mnt" "${reads[@]}" >found
	drop_caches
	told "$mnt" "${counts[@]}" | grep '^read' >>found
	diff wanted found || fail "$tag"
	expect_errno EROFS xfs_io -c 'pwrite 0 1' "$mnt/file" >/dev/null
	unmount_image
done
