# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash disable=SC2154,SC2016 # mount_image sets mnt; single quotes are meant
#
# Blobs are opened with the mounter's credentials: a reader needs no access to the store, and the
# modes of the image's files decide what it may read. No user namespace's root may mount.
#
# formats: 3 4
# timeout: 60
# klog-allow: puzzlefs: .*EACCES

mkdir src
head -c 300000 /dev/urandom >src/for-all
echo secret >src/for-root
chmod 644 src/for-all && chmod 600 src/for-root
setfattr -n trusted.hidden -v secret src/for-all
setfattr -n user.shown -v shown src/for-all
source=$(build_image src)
store=$CASE_DIR/store
rootfs=$(puzzlefs resolve "$source")
chmod 700 "$store" "$store/blobs" "$store/blobs/sha256"
chmod 400 "$store"/blobs/sha256/*
chmod 755 "$CASE_DIR"
mount_image "$source"
as() { setpriv --reuid "$1" --regid "$1" --clear-groups --inh-caps=-all --bounding-set=-all -- "${@:2}"; }

drop_caches
if as 1234 ls "$store" 2>/dev/null; then fail "the store is open to all: the case tests nothing"; fi
as 1234 cat "$mnt/for-all" >got || fail "an unprivileged reader is kept from a blob"
assert_same src/for-all got
assert_match "$(expect_failure as 1234 cat "$mnt/for-root")" "Permission denied" "a file for root alone"
drop_caches
# In other namespaces, where the store is out of sight.
unshare --mount --propagation private bash -c 'mount -t tmpfs tmpfs "$1" && cmp src/for-all "$2/for-all"' \
	bash "$store" "$mnt" || fail "a reader that does not see the store"
drop_caches
unshare --user --map-root-user cat "$mnt/for-all" >got || fail "a reader in a user namespace"
assert_same src/for-all got
# Its root has no CAP_SYS_ADMIN that counts.
said=$(unshare --user --map-root-user getfattr --absolute-names -d -m - "$mnt/for-all")
[[ $said == *user.shown* && $said != *trusted* ]] || fail "what the root of a user namespace is shown: $said"
assert_match "$(expect_failure unshare --user --map-root-user getfattr -n trusted.hidden "$mnt/for-all")" \
	"No such attribute" "a trusted attribute for the root of a user namespace"
# A root directory without the store.
drop_caches
mkdir -p small/{mnt,bin}
cp "$(command -v puzzlefs)" small/bin/
mount --bind "$mnt" small/mnt
python3 - <<-'END' || fail "a reader in a chroot"
	import os
	wanted = open("src/for-all", "rb").read()
	os.chroot("small")
	assert open("/mnt/for-all", "rb").read() == wanted
END
umount small/mnt

# A root without the capabilities that whoever mounted before has gets no more than he may read.
chown 1234 "$store"/blobs/sha256/*
said=$(expect_failure setpriv --bounding-set -dac_override,-dac_read_search \
	mount -i -t puzzlefs -o "rootfs=$rootfs" "$store" "$CASE_DIR/small/mnt")
assert_match "$said" "EACCES" "a mount by a root with fewer capabilities"
chown root "$store"/blobs/sha256/*

# The kernel refuses root of a user namespace.
said=$(expect_failure unshare --user --map-root-user --mount mount -i -t puzzlefs -o "rootfs=$rootfs" \
	"$store" "$CASE_DIR/small/mnt")
assert_match "$said" "permission denied|not permitted" "a mount by the root of a user namespace"

# A mounter that may not read a blob cannot give it to others.
unmount_image
python3 - "$store" "$mnt" "$rootfs" <<-'END' || fail "a mounter without access to the store"
	import ctypes, errno, os, sys
	store, mnt, rootfs = map(os.fsencode, sys.argv[1:])
	libc = ctypes.CDLL(None, use_errno=True)
	# A user that keeps CAP_SYS_ADMIN, and nothing else, past setuid.
	libc.prctl(8, 1, 0, 0, 0)
	os.setgroups([])
	os.setresuid(1234, 1234, 1234)
	header = (ctypes.c_uint32 * 2)(0x20080522, 0)
	libc.capset(header, (ctypes.c_uint32 * 6)(1 << 21, 1 << 21, 0, 0, 0, 0))
	assert libc.mount(store, mnt, b"puzzlefs", 1, b"rootfs=" + rootfs) < 0, "mounted"
	assert ctypes.get_errno() == errno.EACCES, errno.errorcode[ctypes.get_errno()]
END
