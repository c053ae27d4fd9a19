# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash disable=SC2154 # mount_image sets mnt
#
# An image is exported by the kernel's NFS server, read by its client as it is read directly, also
# after the image was unmounted and mounted again under the client.
#
# formats: 3 4
# timeout: 180
# klog-allow: NFSD:|nfs

# shellcheck source=qemu-test/cases/lib/nfs.sh
. /payload/cases/lib/nfs.sh
trap 'nfs_stop; _at_exit' EXIT
nfs_start

mkdir -p src/dir/deeper
head -c 3000001 /dev/urandom >src/large
for number in {1..40}; do echo "$number" >"src/dir/$number"; done
ln src/large src/dir/deeper/linked
ln -s ../large src/dir/symlink
source=$(build_image src)
mount_image "$source"

nfs_export ro "$mnt"
nfs_mount noac,lookupcache=none

show() { (cd "$1" && find . -printf '%p %y %m %U:%G %s %T@ %n %l\n' | sort && find . -type f -print0 |
	sort -z | xargs -0 sha256sum); }
diff <(show "$mnt") <(show client) || fail "what NFS shows differs, as shown"

# An open file is known to the server by its handle alone.
exec 7<client/large
head -c 100000 <&7 >part
exportfs -ua
# The server holds what it looked up for a while.
let_go() {
	echo 1 >/proc/fs/nfsd/unlock_filesystem || true
	echo "$mnt" >/proc/fs/nfsd/unlock_filesystem || true
	exportfs -f
	umount "$mnt"
}
wait_until "the server lets go of an image that is exported no more" let_go
_mounted=()
mount_image "$source"
nfs_export ro "$mnt"
drop_caches
cat <&7 >>part
exec 7<&-
assert_same part src/large
diff <(show "$mnt") <(show client) || fail "what NFS shows differs after a remount, as shown"
umount client
