# SPDX-License-Identifier: MIT OR Apache-2.0
# Programs run out of the mounted image, in a chroot.
# needs: sample
# timeout: 600

mount_image /payload/store:debian
for dir in proc sys dev; do mount --rbind --make-rslave "/$dir" "$mnt/$dir"; done
# What a running system has writable, and nothing else.
for dir in run tmp var/log/nginx var/lib/nginx; do mount -t tmpfs tmpfs "$mnt/$dir"; done
in_image() { chroot "$mnt" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 "$@"; }

assert_eq "$(in_image python3 -c '
import ctypes, decimal, hashlib, json, lzma, sqlite3, ssl, unicodedata, zlib
print(json.dumps({"sum": sum(range(10)), "sha": hashlib.sha256(b"x").hexdigest()[:8]}))
')" '{"sum": 45, "sha": "2d711642"}' "python3"

assert_eq "$(in_image perl -MPOSIX -MEncode -MDigest::SHA=sha256_hex \
	-e 'print substr(sha256_hex("x"), 0, 8), " ", POSIX::floor(3.7)')" '2d711642 3' "perl"

# Every file that dpkg has a checksum of is as it was packed.
assert_eq "$(in_image dpkg --verify 2>&1)" "" "dpkg --verify"

said=$(in_image nginx -t 2>&1) || fail "nginx -t: $said"
assert_match "$said" "test is successful" "nginx -t"
