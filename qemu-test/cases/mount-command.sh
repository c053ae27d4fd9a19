# SPDX-License-Identifier: MIT OR Apache-2.0
# puzzlefs mount and umount: by the module, writable, and nothing left behind whatever fails.
# timeout: 120

mkdir -p src/sub mnt
head -c 300000 /dev/urandom >src/file
echo lower >src/sub/lower
chmod 1755 src
chown 7:8 src
setfattr -n user.of -v root src
touch -d '2001-02-03 04:05:06.789' src
build_image src >/dev/null
image=$CASE_DIR/store:image mnt=$CASE_DIR/mnt
type_of() { awk -v dir="$1" '$2 == dir { type = $3 } END { print type }' /proc/mounts; }
# Nothing of ours is mounted, nor anything in the making.
nothing() {
	assert_eq "$(grep -E 'puzzlefs|^[^ ]* /scratch/[^ ]*/mnt' /proc/mounts || true)" '' "mounts after $1"
	assert_eq "$(ls -A /run/puzzlefs 2>/dev/null)" '' "/run/puzzlefs after $1"
}

# As mount(8) mounts it; umount(8) and puzzlefs umount are as good.
puzzlefs mount -o nosuid,noatime --verify digest "$image" mnt
assert_match "$(grep " $mnt " /proc/mounts)" 'ro,nosuid,noatime.*verify=digest' '/proc/mounts'
assert_same src/file mnt/file
umount mnt
puzzlefs umount mnt 2>said
assert_match "$(cat said)" 'nothing is mounted there' 'the second umount'
mount_image "$image"
puzzlefs umount mnt
_mounted=()
nothing 'mounts by the module'

# Busy: it says so, and unmounts lazily where that is asked for.
puzzlefs mount "$image" mnt
exec 5<mnt/file
expect_failure puzzlefs umount mnt >/dev/null
assert_match "$said" "busy.*fuser -vm $mnt" 'what to do'
mkdir -p other
mount --bind other mnt/sub
expect_failure puzzlefs umount mnt >/dev/null
assert_match "$said" "$mnt/sub is mounted in it" 'what to do'
umount mnt/sub
puzzlefs umount --lazy mnt
cmp - src/file <&5
exec 5<&-
nothing 'a lazy umount'

# Writable, in memory: the root directory is the image's, and umount(8) is enough.
puzzlefs mount --writable -o nosuid "$image" mnt
assert_eq "$(stat -c '%a %u %g %y' mnt)" "$(stat -c '%a %u %g %y' src)" 'the root directory'
assert_eq "$(getfattr --only-values -n user.of mnt)" root 'its attribute'
assert_match "$(grep " $mnt " /proc/mounts)" "^$CASE_DIR/store@sha256:[0-9a-f]{64} $mnt overlay rw,nosuid," \
	'/proc/mounts'
assert_eq "$(ls -A /run/puzzlefs)" '' '/run/puzzlefs'
assert_same src/file mnt/file
echo more >>mnt/file
rm mnt/sub/lower
echo new >mnt/sub/new
assert_eq "$(ls mnt/sub)" new
# The sweep knows what is mounted.
cp -r src away
puzzlefs untag "$image"
puzzlefs gc store
drop_caches
head -c 300000 mnt/file | cmp - src/file
umount mnt
nothing 'umount(8) of a writable mount'
build_image src >/dev/null
puzzlefs mount -w "$image" mnt
assert_same src/file mnt/file
exec 5>mnt/file
expect_failure puzzlefs umount mnt >/dev/null
assert_match "$said" busy 'the reason'
exec 5>&-
puzzlefs umount mnt
nothing 'puzzlefs umount of a writable mount'

# Writable, to a directory that stays.
upper=$'up:per, \\'
mkdir "$upper"
lines=''
for round in 1 2 3; do
	puzzlefs mount --writable="$upper" "$image" mnt
	assert_eq "$(find mnt -name kept -exec wc -l {} +)" "$lines" "in round $round"
	echo "$round" >>mnt/kept
	lines="$round mnt/kept"
	if ((round == 2)); then
		mkdir -p mnt2
		expect_failure puzzlefs mount --writable="$upper" "$image" mnt2 >/dev/null
		assert_match "$said" "written to $mnt goes there already" 'the reason'
	fi
	puzzlefs umount mnt
	nothing "round $round"
done
assert_eq "$(cat "$upper/upper/kept")" $'1\n2\n3' 'what was written'

# A mount that fails on the way leaves nothing: no such image, no such option, layers that the overlay
# does not take, a mount point that is a file.
touch plain
for try in "--writable store:none mnt" "--writable -o verify=maybe $image mnt" \
	"--writable=$CASE_DIR/nowhere $image mnt" "--writable=/proc/self $image mnt" \
	"--writable $image plain" "-o verify=maybe $image mnt"; do
	# shellcheck disable=SC2086
	expect_failure puzzlefs mount $try >/dev/null
	nothing "$try"
done
# Nor does one that is killed, for long: what it was about to make is in a tmpfs by then.
strace -qq -f -o /dev/null -e trace=fsopen -e inject=fsopen:signal=KILL:when=3 \
	puzzlefs mount -w "$image" mnt && fail 'should have been killed'
[[ $(grep -c /run/puzzlefs/ /proc/mounts) == 2 ]] || fail "killed too early: $(grep puzzlefs /proc/mounts)"
assert_eq "$(type_of "$mnt")" ''
puzzlefs umount mnt
nothing 'a killed mount'
# An interrupt between the layers and the overlay.
strace -qq -f -o /dev/null -e trace=fsopen -e inject=fsopen:signal=INT:when=3 \
	puzzlefs mount -w "$image" mnt 2>said && fail 'should have been interrupted'
assert_match "$(cat said)" interrupted 'what it says'
nothing 'an interrupt'

# What is none of ours is left alone.
mount -t tmpfs none mnt
expect_failure puzzlefs umount mnt >/dev/null
assert_match "$said" 'type tmpfs, and none of PuzzleFS' 'the reason'
assert_eq "$(type_of "$mnt")" tmpfs
umount mnt
# Without the module.
rmmod puzzlefs
expect_failure puzzlefs mount "$image" mnt >/dev/null
insmod /payload/puzzlefs.ko
assert_match "$said" "'puzzlefs mount --fuse'" 'the way out'
nothing 'all this'
