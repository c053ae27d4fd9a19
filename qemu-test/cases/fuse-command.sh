# SPDX-License-Identifier: MIT OR Apache-2.0
# puzzlefs mount --fuse: the tree is the same over FUSE, for root, for an ordinary user, and writable.
# timeout: 120
# formats: 3 4

mkdir -p src/sub mnt
head -c 300000 /dev/urandom >src/file
seq 100000 >src/sub/numbers
ln src/file src/sub/link
ln -s /etc/passwd src/sym
mkfifo src/fifo
mknod src/device c 250 70000
setfattr -n user.a -v b src/file
setfattr -n trusted.t -v x src/file
echo secret >src/secret
chmod 640 src/secret
setfacl -m u:65534:r src/secret
chmod 4711 src/sub/numbers
touch -d 1966-01-02 src/sub
build_image src image --compress >/dev/null
image=$CASE_DIR/store:image mnt=$CASE_DIR/mnt
serves() { pgrep -f "mount --fuse --background.*$1" >/dev/null; }
# gone DIRECTORY: its server ends when the mount does.
gone() {
	serves_nobody() { ! serves "$1"; }
	wait_until "the server of $1 ends" serves_nobody "$1"
}

puzzlefs mount --fuse "$image" "$mnt"
_mounted=("$mnt")
/payload/inventory src >wanted
/payload/inventory mnt >found
diff wanted found || fail 'the trees differ'
assert_match "$(grep " $mnt " /proc/mounts)" "^$CASE_DIR/store@sha256:[0-9a-f]{64} $mnt fuse.puzzlefs ro," \
	'/proc/mounts'
assert_eq "$(stat -f -c '%S %f %l' mnt)" '4096 0 255' statfs
expect_errno EROFS touch mnt/new
expect_errno ENOENT stat "mnt/$(printf '%0255d' 0)"
expect_errno ENAMETOOLONG stat "mnt/$(printf '%0256d' 0)"
# Who may read is the kernel's business: 65534 may, by the ACL.
setpriv --reuid 65534 --regid 65534 --clear-groups cat mnt/secret | cmp - src/secret
expect_errno EACCES setpriv --reuid 65533 --regid 65533 --clear-groups cat mnt/secret
said=$(setpriv --reuid 65534 --regid 65534 --clear-groups getfattr -m - mnt/file)
assert_match "$said" user.a 'what an ordinary user sees'
[[ $said != *trusted* ]] || fail "an ordinary user sees $said"
exec 5<mnt/file
expect_failure puzzlefs umount mnt >/dev/null
assert_match "$said" 'busy.*fuser' 'what to do'
exec 5<&-
puzzlefs umount mnt
_mounted=()
gone "$mnt"

# A server that is killed: what it left is unmounted.
puzzlefs mount --fuse "$image" "$mnt"
pkill -KILL -f "mount --fuse --background.*$mnt"
gone "$mnt"
expect_errno ENOTCONN cat mnt/file
puzzlefs umount mnt

# Writable: the overlay alone keeps the server.
puzzlefs mount --fuse --writable "$image" "$mnt"
assert_match "$(grep " $mnt " /proc/mounts)" " overlay rw," '/proc/mounts'
echo more >>mnt/file
head -c 300000 mnt/file | cmp - src/file
assert_same src/sub/numbers mnt/sub/numbers
umount mnt
gone /run/puzzlefs

# Verified: nothing of format 3 is mounted without fs-verity. In format 4, chunks are compared with digests.
if [[ $PUZZLEFS_FORMAT == 3 ]]; then
	said=$(expect_failure puzzlefs mount --fuse --verify fsverity "$image" "$mnt")
	assert_match "$said" "fs-verity is not enabled on it; 'puzzlefs enable-verity' does that" \
		'without fs-verity'
fi
puzzlefs enable-verity -q "$image" >said
puzzlefs mount --fuse --verify fsverity "$image" "$mnt"
assert_same src/file mnt/file
puzzlefs umount mnt
digest=$(sed -nE 's/^digest=([0-9a-f]+) .*/\1/p' said)
puzzlefs mount --fuse -o "digest=$digest" "$image" "$mnt"
assert_same src/file mnt/file
puzzlefs umount mnt

# An ordinary user, by fusermount3. (The mode of /dev/fuse is what udev would make it.)
chmod 666 /dev/fuse
mkdir own
chown 65534 own
as_user() { setpriv --reuid 65534 --regid 65534 --clear-groups "$@"; }
chmod 755 "$CASE_DIR"
as_user puzzlefs mount --fuse "$image" "$CASE_DIR/own"
assert_match "$(grep " $CASE_DIR/own " /proc/mounts)" 'nosuid,nodev.*user_id=65534' '/proc/mounts'
as_user cat own/file | cmp - src/file
expect_errno EACCES as_user cat own/sub/numbers
as_user puzzlefs umount own
gone "$CASE_DIR/own"

# An image that is not there. (Malformed ones: fuse-malformed.)
expect_failure puzzlefs mount --fuse "$CASE_DIR/store:none" mnt >/dev/null
assert_match "$said" "no image is tagged 'none'" 'the reason'
assert_eq "$(grep "$CASE_DIR" /proc/mounts || true)" '' 'mounts'
