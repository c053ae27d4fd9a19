# SPDX-License-Identifier: MIT OR Apache-2.0
#
# A store in a filesystem on dm-verity: reads give the right bytes or EIO, whichever byte of the device is
# flipped.
#
# timeout: 300
# formats: 3 4
# klog-allow: device-mapper|dm-[0-9]|Buffer I/O error|I/O error, dev|EXT4-fs|erofs|puzzlefs: 

export DM_DISABLE_UDEV=1
mkdir -p src/sub
head -c 1000000 /dev/urandom >src/large
# What does not compress would make one image, compressed or not.
seq 100000 >src/numbers
for number in {1..20}; do head -c $((number * 97)) /dev/urandom >"src/sub/$number"; done
build_image src image --compress=0 >/dev/null
# Of a large file, for small ones are in blobs smaller than this. In format 4, the pack, whose middle is of
# that file and whose beginning is the root.
large=$(find store/blobs -type f -printf '%s %p\n' | sort -n | tail -1 | cut -d' ' -f2)
case $PUZZLEFS_FORMAT in
3) metadata=(store/blobs/sha256/"$(puzzlefs resolve store:image)") ;;
4) metadata=("$large" 0) ;;
esac
build_image src compressed --compress >/dev/null

opened=''
close_all() {
	umount mnt 2>/dev/null || true
	umount device 2>/dev/null || true
	[[ ! $opened ]] || veritysetup close "$opened"
	opened=''
}
# open_store NAME: mounts the store in $NAME.img on ./device.
open_store() {
	veritysetup open "$1.img" "puzzlefs-$1" "$1.hash" "$(<"$1.root")"
	opened=puzzlefs-$1
	mount -o ro "/dev/mapper/$opened" device
}
# all_read: says for each file of the source whether it is the same, and fails if one is not and was read.
all_read() {
	python3 - src mnt <<-'END'
		import errno, os, sys
		source, mounted = sys.argv[1:]
		counts = {"same": 0, "EIO": 0}
		for at, _, names in os.walk(source):
		    for name in names:
		        path = os.path.relpath(os.path.join(at, name), source)
		        with open(os.path.join(source, path), "rb") as file:
		            wanted = file.read()
		        offset = 0
		        outcome = "same"
		        try:
		            fd = os.open(os.path.join(mounted, path), os.O_RDONLY)
		        except OSError as error:
		            assert error.errno == errno.EIO, error
		            counts["EIO"] += 1
		            continue
		        while offset < len(wanted):
		            try:
		                data = os.pread(fd, 4096, offset)
		            except OSError as error:
		                assert error.errno == errno.EIO, error
		                outcome = "EIO"
		                offset += 4096
		                continue
		            right = data and data == wanted[offset:offset + len(data)]
		            assert right, f"{path} is wrong at {offset}"
		            offset += len(data)
		        os.close(fd)
		        counts[outcome] += 1
		print(counts["same"], counts["EIO"])
	END
}
# flip FILE DATA [OFFSET]: changes a byte of the block of FILE that is in the midst of these data, or there.
flip() {
	python3 - "$@" <<-'END'
		import sys
		with open(sys.argv[2], "rb") as file:
		    data = file.read()
		offset = int(sys.argv[3]) if sys.argv[3:] else len(data) // 2 // 4096 * 4096
		block = data[offset:][:4096]
		middle = len(block) // 2
		spoilt = block[:middle] + bytes([block[middle] ^ 1]) + block[middle + 1:]
		with open(sys.argv[1], "rb") as file:
		    device = file.read()
		assert block in device
		with open(sys.argv[1], "wb") as file:
		    file.write(device.replace(block, spoilt))
	END
}

mkdir mnt device
for kind in ext4 erofs; do
	case $kind in
	ext4) mke2fs -q -t ext4 -b 4096 -O ^has_journal -d store ext4.img 16m ;;
	# A blob's end must not share a block, and so its damage, with other files' inodes.
	erofs) mkfs.erofs --quiet -Enoinline_data erofs.img store ;;
	esac
	veritysetup format --root-hash-file "$kind.root" "$kind.img" "$kind.hash" >/dev/null
	for tag in image compressed; do
		for options in verify=none verify=digest; do
			drop_caches
			open_store "$kind"
			mount -t puzzlefs -o "$options" "$CASE_DIR/device:$tag" mnt
			assert_eq "$(all_read)" '22 0' "files of $kind, $tag, $options"
			close_all
		done
	done
	# The hash of the device is the one number that counts.
	if veritysetup open "$kind.img" "puzzlefs-$kind" "$kind.hash" "$(printf '%064d' 0)"; then
		expect_failure mount -o ro "/dev/mapper/puzzlefs-$kind" device >/dev/null
		veritysetup close "puzzlefs-$kind"
	fi

	cp "$kind.img" saved.img
	flip "$kind.img" "$large"
	open_store "$kind"
	mount -t puzzlefs "$CASE_DIR/device:image" mnt
	assert_eq "$(all_read)" '21 1' "files of $kind with a byte flipped"
	close_all
	cp saved.img "$kind.img"

	flip "$kind.img" "${metadata[@]}"
	drop_caches
	open_store "$kind"
	expect_failure mount -t puzzlefs "$CASE_DIR/device:image" mnt >/dev/null
	mount -t puzzlefs "$CASE_DIR/device:compressed" mnt
	assert_eq "$(all_read)" '22 0' "files of another image than the one that was spoilt, of $kind"
	close_all
done
