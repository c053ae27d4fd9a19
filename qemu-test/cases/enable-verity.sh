# SPDX-License-Identifier: MIT OR Apache-2.0
# puzzlefs enable-verity: blobs get the fs-verity digests that the image says, or stay as they are.
# timeout: 60

mkdir src mnt
head -c 300000 /dev/urandom >src/a
seq 200000 >src/b
puzzlefs build -q --format 3 -z src store:first
head -c 100000 /dev/urandom >src/c
puzzlefs build -q --format 3 src store:second
blobs=$CASE_DIR/store/blobs/sha256
needed() { puzzlefs inspect --json "store:$1" | sed -E 's/.*"manifest_digest":"sha256:([0-9a-f]+)".*/\1/'; }
first=$blobs/$(needed first)
# figure NAME: of what --json printed.
figure() { sed -E "s/.*\"$1\":([0-9]+).*/\1/" report; }
enabled() { for blob in "$blobs"/*; do fsverity measure "$blob" >/dev/null 2>&1 && echo "$blob"; done |
	wc -l; }

puzzlefs enable-verity --json store:first >report
assert_eq "$(figure enabled_blobs)" "$(enabled)" 'blobs enabled'
assert_eq "$(figure already_blobs)" 0 'blobs that were'
digest=$(sed -E 's/.*"manifest_verity":"([0-9a-f]+)".*/\1/' report)
# The program of fs-verity's authors says the same of each.
assert_eq "$(fsverity measure "$first")" "sha256:$digest $first"
for blob in "$blobs"/*; do
	! measured=$(fsverity measure "$blob" 2>/dev/null) ||
		assert_eq "$measured" "$(fsverity digest "$blob")" 'a digest'
done
mount_image "$CASE_DIR/store:first" "$CASE_DIR/mnt" "digest=$digest"
assert_match "$(grep " $mnt " /proc/mounts)" verify=fsverity '/proc/mounts'
assert_same src/a mnt/a
assert_same src/b mnt/b
unmount_image

# A damaged blob is named and stays writable; the others of the store are done.
victim=$(puzzlefs inspect --json store:second /c | grep -oE '"blob":"(sha256:)?[0-9a-f]{64}' |
	grep -oE '[0-9a-f]{64}' | head -1)
cp "$blobs/$victim" saved
printf x | dd of="$blobs/$victim" bs=1 seek=4096 conv=notrunc status=none
expect_failure puzzlefs enable-verity store >/dev/null
assert_match "$said" "$victim.*would be" 'the damaged blob'
assert_match "$said" '1 fault' 'the faults'
assert_eq "$(enabled)" "$(($(find "$blobs" -type f | wc -l) - 2))" 'all but it and the configuration'
cp saved "$blobs/$victim"
puzzlefs enable-verity --json store >report
assert_eq "$(figure enabled_blobs)" 1 'the repaired blob'
digest=$(grep -oE '"image":"second","manifest_verity":"[0-9a-f]+' report | grep -oE '[0-9a-f]{64}')
mount_image "$CASE_DIR/store:second" "$CASE_DIR/mnt" "digest=$digest"
assert_same src/c mnt/c
unmount_image

# fs-verity on other contents, or with other blocks than the image has digests of.
head -c 5000 /dev/urandom >src/d
puzzlefs build -q --format 3 src store:third
blob=$(puzzlefs inspect --json store:third /d | grep -oE '"blob":"(sha256:)?[0-9a-f]{64}' |
	grep -oE '[0-9a-f]{64}')
fsverity enable --block-size=1024 "$blobs/$blob"
expect_failure puzzlefs enable-verity store:third >/dev/null
assert_match "$said" "$blob: fs-verity is enabled, and its digest is" 'blocks of another size'

# Where there is none, the way out; and where blocks are too small for it.
mkdir plain
on_ext4() {
	truncate -s 32M image
	mkfs.ext4 -q -F "$@" image
	mount -o loop image plain
	_mounted=("$CASE_DIR/plain")
	puzzlefs copy -q store:first plain/store:first
}
on_ext4 -b 1024 -O verity
expect_failure puzzlefs enable-verity plain/store:first >/dev/null
assert_match "$said" 'mkfs.ext4 -b 4096' 'small blocks'
umount plain
on_ext4 -b 4096 -O ^verity
expect_failure puzzlefs enable-verity plain/store:first >/dev/null
assert_match "$said" 'tune2fs -O verity' 'the way out'
umount plain
tune2fs -O verity image
mount -o loop image plain
puzzlefs enable-verity plain/store:first

# Format 4: the manifest and the pack.
puzzlefs build -q src packed:image
blobs=$CASE_DIR/packed/blobs/sha256
puzzlefs enable-verity --json packed:image >report
assert_eq "$(figure enabled_blobs) $(enabled)" '2 2' 'blobs enabled of format 4'
digest=$(sed -E 's/.*"manifest_verity":"([0-9a-f]+)".*/\1/' report)
mount_image "$CASE_DIR/packed:image" "$CASE_DIR/mnt" "digest=$digest"
assert_match "$(grep " $mnt " /proc/mounts)" verify=fsverity '/proc/mounts'
assert_same src/b mnt/b
