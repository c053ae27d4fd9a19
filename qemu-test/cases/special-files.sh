# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash disable=SC2154 # mount_image sets mnt
#
# Devices, FIFOs and sockets: the numbers are right, and they are what they say.
#
# formats: 3 4
# timeout: 40
# kernels: every

mkdir src
mknod src/null c 1 3
mknod src/zero c 1 5
mknod src/loop0 b 7 0
mknod src/large-char c 4095 1048575
mknod src/large-block b 4095 1048575
mknod src/minor-256 c 10 256
mknod src/zero-zero c 0 0
mkfifo -m 620 src/fifo
python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("src/socket")'
chown 12:34 src/null && chmod 4711 src/loop0 && chmod 0 src/large-block
touch -d '2001-02-03 04:05:06.789 UTC' src/fifo

source=$(build_image src)
mount_image "$source"
describe() { (cd "$1" && find . -mindepth 1 -exec stat -c '%n %f %t:%T %u:%g %h %s %Y' {} + | sort); }
diff <(describe src) <(describe "$mnt") || fail "the nodes differ, as shown"
assert_eq "$(find "$mnt" -mindepth 1 -printf '%y' | fold -w1 | sort | tr -d '\n')" bbccccc'ps' "types by find"

# They work: a device is the driver's, a FIFO joins two processes.
assert_eq "$(head -c 5 "$mnt/zero" | od -An -tx1 | tr -d ' ')" 0000000000 "what /dev/zero gives"
echo gone >"$mnt/null" || fail "cannot write to the null device: a read-only filesystem does not forbid it"
assert_eq "$(blockdev --getss "$mnt/loop0" 2>&1 || true)" "$(blockdev --getss src/loop0 2>&1 |
	sed "s,src/,$mnt/," || true)" "the loop device"
(echo through >"$mnt/fifo") &
assert_eq "$(timeout 10 cat "$mnt/fifo")" through "what came through the FIFO"
wait
if said=$(python3 -c 'import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])' "$mnt/socket" \
	2>&1); then
	fail "nobody listens on the socket"
fi
assert_match "$said" ConnectionRefused "connect to a socket nobody listens on"
if head -c 1 "$mnt/large-char" 2>/dev/null; then fail "there is no such driver"; fi

# nodev means so.
unmount_image
mount_image "$source" "$CASE_DIR/mnt" nodev
expect_errno EACCES head -c 1 "$mnt/zero"
