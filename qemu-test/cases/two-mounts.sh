# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash
#
# Several mounts of one store, of one image and of others: each is its own, each ends on its own.
#
# formats: 3 4
# timeout: 60

mkdir -p first second a b c d
head -c 500000 /dev/urandom >first/shared
cp first/shared second/shared
echo one >first/file
echo two >second/file
mkdir first/only && echo 1 >first/only/x
cp -r "$(build_image first one | cut -d: -f1)" other-store
build_image second two >/dev/null
store=$CASE_DIR/store

mount -t puzzlefs "$store:one" a
mount -t puzzlefs "$store:two" b
mount -t puzzlefs "$store:one" c
mount -t puzzlefs "$CASE_DIR/other-store:one" d
for name in a c d; do
	assert_same first/shared $name/shared
	assert_same first/file $name/file
	assert_eq "$(ls $name)" "$(ls first)" "the listing of $name"
done
assert_same second/shared b/shared
assert_same second/file b/file
[[ ! -e b/only ]] || fail "an image shows another's directory"
assert_eq "$(stat -c %i a/only/x a/shared)" "$(stat -c %i c/only/x c/shared)" \
	"inode numbers in two mounts of an image"
assert_eq "$(stat -c %d a b c d | sort -u | wc -l)" 4 "devices of four mounts"

# Each goes, and the others read on, from the disk.
gone() {
	umount "$1"
	[[ ! -e $1/shared ]] || fail "$1 is still there"
	drop_caches
}
gone a
assert_same first/shared c/shared
assert_same second/shared b/shared
gone c
assert_same second/shared b/shared
assert_same second/file b/file
gone d
mount -t puzzlefs "$store:one" a
gone b
assert_same first/shared a/shared
assert_same first/only/x a/only/x

# In another namespace, after it has gone here.
mkfifo gone
unshare --mount --propagation private bash -c 'read -r <gone; cmp first/shared a/shared' &
reader=$!
elsewhere() { [[ $(readlink "/proc/$1/ns/mnt") != "$(readlink /proc/self/ns/mnt)" ]]; }
wait_until 'the reader is in a namespace of its own' elsewhere $reader
umount a
timeout 60 bash -c 'echo >gone' || fail 'the reader has ended'
wait $reader || fail "the mount in another namespace went with ours"
