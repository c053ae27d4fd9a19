# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck disable=SC2154 # mount_image sets mnt
#
# Files that fio has written checksums into are verified by fio, by read and by map, raw and compressed.
#
# formats: 3 4
# timeout: 120

mkdir tree
# What each job of fio's is told: options belong to the job that is named before them.
verified=(--size=2m --bs=4k --verify=crc32c --verify_fatal=1)
fio --name=write "${verified[@]}" --filename=tree/file --rw=write --do_verify=0 >/dev/null
build_image tree raw --compress=0 >/dev/null
build_image tree compressed --compress >/dev/null
for tag in raw compressed; do
	mount_image "$CASE_DIR/store:$tag"
	# One after the other; each drops the pages of the file first.
	fio --readonly --name=by-read "${verified[@]}" --filename="$mnt/file" --rw=read --ioengine=psync \
		--name=by-map --stonewall "${verified[@]}" --filename="$mnt/file" --rw=read --ioengine=mmap \
		>said 2>&1 || fail "fio, $tag: $(tail -3 said)"
	unmount_image
done

# It does look: a byte that is wrong is found.
printf x | dd of=tree/file bs=1 seek=2000000 conv=notrunc status=none
expect_failure fio --readonly --name=damaged "${verified[@]}" --filename=tree/file --rw=read >/dev/null
