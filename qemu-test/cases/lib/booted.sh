# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash
#
# Sourced by the cases that boot from an image: what is to be so when the machine is up.

assert_eq "$(findmnt -no FSTYPE /)" overlay "what the root is"
assert_eq "$(findmnt -no FSTYPE /run/puzzlefs/image)" puzzlefs "what is below it"
assert_match "$(findmnt -no OPTIONS /run/puzzlefs/image)" "verify=digest" "the options of rootflags="
assert_eq "$(findmnt -no OPTIONS /run/puzzlefs/store | cut -d, -f1)" ro "how the store is mounted"
assert_match "$(findmnt -no OPTIONS /run/puzzlefs/changes)" "size=65536k" \
	"the options of puzzlefs_overlayflags="
# Nobody but root gets at what is under the overlay.
assert_eq "$(stat -c '%a' /run/puzzlefs)" 700 "the mode of /run/puzzlefs"

# It is the image's Debian, and can be written to.
grep -q '^ID=debian' /etc/os-release || fail "this is no Debian: $(head -1 /etc/os-release)"
python3 -c 'import json; print(json.dumps([1]))' >said
assert_eq "$(<said)" "[1]" "what python3 says"
echo changed >/etc/hostname
assert_eq "$(</etc/hostname)" changed "a file that was written"
assert_eq "$(</run/puzzlefs/changes/upper/etc/hostname)" changed "where it went"
expect_failure touch /run/puzzlefs/image/etc/hostname >/dev/null
# Every file's bytes were checked on their way.
cat /usr/bin/* >/dev/null
