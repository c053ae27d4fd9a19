# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash
#
# Who uses a mount keeps it: umount is refused while a file, a directory or a map is in use, a lazy
# one waits for them. The store's filesystem is held by the mount, and free right after it.
#
# formats: 3 4
# timeout: 60

mkdir -p src/directory mnt disk
echo "the contents" >src/file
head -c 300000 /dev/urandom >src/large
mnt=$CASE_DIR/mnt
truncate -s 64M disk.img
mkfs.ext4 -q disk.img
mount -o loop disk.img disk
puzzlefs build -q "${build_format[@]}" src disk/store:image
mount_it() { mount -t puzzlefs "$CASE_DIR/disk/store:image" "$mnt"; }
refused() { assert_match "$(expect_failure "$@")" "busy" "$*"; }

# A file that is open, a directory that is someone's, a mount beneath.
mount_it
exec 8<"$mnt/file"
refused umount "$mnt"
exec 8<&-
(cd "$mnt/directory" && refused umount "$mnt")
mount -t tmpfs tmpfs "$mnt/directory"
refused umount "$mnt"
umount "$mnt/directory"
# The store's filesystem goes with the image, not before it.
refused umount disk
cat "$mnt/large" >/dev/null
refused umount disk
umount "$mnt"
umount disk

# A map of a file that is closed, in a mount that is detached.
mount -o loop disk.img disk
mount_it
python3 - "$mnt" <<-'END' || fail "a map of a detached mount"
	import mmap, os, subprocess, sys
	mnt = sys.argv[1]
	wanted = open("src/large", "rb").read()
	fd = os.open(f"{mnt}/large", os.O_RDONLY)
	view = mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ)
	os.close(fd)
	said = subprocess.run(["umount", mnt], capture_output=True)
	assert said.returncode != 0 and b"busy" in said.stderr, said
	subprocess.run(["umount", "--lazy", mnt], check=True)
	assert not os.path.ismount(mnt)
	open("/proc/sys/vm/drop_caches", "w").write("3")
	assert view[:] == wanted
	said = subprocess.run(["umount", "disk"], capture_output=True)
	assert said.returncode != 0, "the store's filesystem was unmounted under a map"
END
umount disk

# A reader that has its working directory there goes on after a lazy umount.
mount -o loop disk.img disk
mount_it
(
	cd "$mnt" || exit
	umount --lazy "$mnt"
	assert_eq "$(<file)" "the contents" "a file of a detached mount"
	assert_match "$(ls)" "directory" "its listing"
)
[[ ! -e $mnt/file ]] || fail "the mount point still shows the image"
umount disk

# Mounted again while it is detached and still in use: both work, and both go.
mount -o loop disk.img disk
mount_it
exec 8<"$mnt/file"
umount --lazy "$mnt"
mount_it
assert_eq "$(<"$mnt/file")" "the contents" "the new mount"
assert_eq "$(cat <&8)" "the contents" "the detached one"
umount "$mnt"
refused umount disk
exec 8<&-
umount disk
