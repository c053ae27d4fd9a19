# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash
#
# What a case in bash has at hand. A case is sourced after this, in a directory
# of its own ($CASE_DIR, on ext4 with plenty of room), under `set -euo
# pipefail`: any command that fails, fails it. What it mounts by mount_image is
# unmounted for it at its end.

set -euo pipefail
shopt -s inherit_errexit

# fail REASON...: the case has failed.
fail() {
	printf '%s\n' "$*" | tee -a "$RESULT_DIR/reason" >&2
	exit 1
}

# skip REASON...: the case cannot be run here.
skip() {
	printf '%s\n' "$*" >"$RESULT_DIR/reason"
	exit 77
}

# metric NAME VALUE: a figure for the host, as `make run` prints them.
metric() { printf '%s %s\n' "$1" "$2" >>"$RESULT_DIR/metrics"; }

# assert_eq ACTUAL EXPECTED [WHAT]
assert_eq() {
	[[ $1 == "$2" ]] || fail "${3:-values differ}: '$1', should be '$2'"
}

# assert_match ACTUAL REGEX [WHAT]
assert_match() {
	[[ $1 =~ $2 ]] || fail "${3:-no match}: '$1' does not match '$2'"
}

# assert_same FILE FILE: byte for byte.
assert_same() {
	cmp -- "$1" "$2" || fail "$1 and $2 differ"
}

# expect_failure COMMAND...: it must fail; what it said is in $said.
expect_failure() {
	if said=$(trap - ERR && "$@" 2>&1); then
		fail "should have failed, but did not: $*"
	fi
	printf '%s\n' "$said"
}

# expect_errno NAME COMMAND...: it must fail with that errno. EROFS and the
# like are told by what programs print, as strerror has it.
expect_errno() {
	local errno=$1 text
	shift
	text=$(python3 -c 'import errno, os, sys; print(os.strerror(getattr(errno, sys.argv[1])))' "$errno")
	expect_failure "$@" >/dev/null
	[[ $said == *"$text"* ]] || fail "should have failed with $errno ($text): $*: $said"
}

# The option of `puzzlefs build` for the format of images that the case is run for.
build_format=()
if [[ ${PUZZLEFS_FORMAT:-4} != 4 ]]; then build_format=(--format "$PUZZLEFS_FORMAT"); fi

# build_image DIR [NAME [OPTION...]]: an image of DIR, in $CASE_DIR/store, with options of puzzlefs
# build. Prints what mount wants as its source, e.g. /scratch/x/store:image.
build_image() {
	local name=${2:-image}
	puzzlefs build "${build_format[@]}" "${@:3}" "$1" "$CASE_DIR/store:$name" >&2
	echo "$CASE_DIR/store:$name"
}

# wait_until WHAT COMMAND...: waits until the command succeeds, and fails with WHAT if it does not. No
# case sleeps for a guessed time. Only a failing case waits for so long.
wait_until() {
	local what=$1 deadline=$((SECONDS + 60))
	shift
	until "$@" >/dev/null 2>&1; do
		((SECONDS < deadline)) || fail "not within 60 s: $what"
		sleep 0.1
	done
}

_mounted=()
# mount_image SOURCE [DIR] [OPTIONS]: by mount(8), at $CASE_DIR/mnt by default;
# the directory is left in $mnt.
mount_image() {
	mnt=${2:-$CASE_DIR/mnt}
	mkdir -p "$mnt"
	mount -t puzzlefs -o "ro${3:+,$3}" "$1" "$mnt"
	_mounted=("$mnt" "${_mounted[@]}")
}

# unmount_image [DIR]
unmount_image() {
	local dir=${1:-$mnt} each rest=()
	umount "$dir"
	for each in "${_mounted[@]}"; do
		[[ $each == "$dir" ]] || rest+=("$each")
	done
	_mounted=("${rest[@]}")
}

_at_exit() {
	local status=$? dir
	cd /
	for dir in "${_mounted[@]}"; do
		# With what the case mounted in it.
		umount -R "$dir" || {
			echo "cannot unmount $dir" >>"$RESULT_DIR/reason"
			status=1
		}
	done
	exit "$status"
}
trap _at_exit EXIT

# What the shell itself stops at gets a reason too.
trap 'printf "%s:%s: %s\n" "${BASH_SOURCE[0]##*/}" "$LINENO" "$BASH_COMMAND" >>"$RESULT_DIR/reason"' ERR
set -o errtrace

# drop_caches: pages, dentries and inodes, all that is clean.
drop_caches() {
	sync
	echo 3 >/proc/sys/vm/drop_caches
}

# loopback_up: the guest has no other network.
loopback_up() {
	python3 - <<-END
		import fcntl, socket, struct
		IFF_UP, SIOCSIFFLAGS = 1, 0x8914
		fcntl.ioctl(socket.socket(), SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
	END
}

# kmsg_since_start: the kernel's log since the case began.
kmsg_since_start() {
	dmesg --nopager | awk -v mark="puzzlefs-test: begin $CASE" \
		'seen; { sub(/[ \t\r]+$/, "") } substr($0, length($0) - length(mark) + 1) == mark { seen = 1 }'
}

# slab_objects CACHE: how many objects are in use.
slab_objects() { awk -v name="$1" '$1 == name { print $2; found = 1 } END { if (!found) print 0 }' \
	/proc/slabinfo; }
