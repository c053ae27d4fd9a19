# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash disable=SC2154 # mount_image sets mnt
#
# POSIX ACLs: shown as they were, and enforced.
#
# formats: 3 4
# timeout: 40
# kernels: every

mkdir -p src/directory/default
echo secret >src/for-1234
chmod 600 src/for-1234 && setfacl -m u:1234:r src/for-1234
echo secret >src/masked
chmod 600 src/masked && setfacl -m u:1234:rw,g:77:r,m::- src/masked
echo open >src/denied
chmod 644 src/denied && setfacl -m u:1234:- src/denied
echo group >src/for-group
chmod 600 src/for-group && setfacl -m g:77:r src/for-group
setfacl -d -m u:1234:rwx,g:77:rx src/directory/default
chmod 700 src/directory && setfacl -m u:1234:x src/directory
echo below >src/directory/file
echo plain >src/plain

mount_image "$(build_image src)"
acls() { (cd "$1" && find . | sort | xargs getfacl -n -p); }
diff <(acls src) <(acls "$mnt") || fail "the ACLs differ, as shown"
assert_eq "$(acls "$mnt" | grep -c '1234')" "$(acls src | grep -c '1234')" "entries of user 1234"
[[ $(acls "$mnt" | grep -c 'user:1234') -ge 5 ]] || fail "the ACLs are not there at all"
# ls marks them with a plus.
assert_eq "$(stat -c %A "$mnt/for-1234")$(find "$mnt/for-1234" -exec ls -l {} + |
	cut -c11)" "-rw-r-----+" "ls of an ACL"

as() { setpriv --reuid "$1" --regid "$2" --clear-groups -- "${@:3}"; }
reads() { assert_eq "$(as "$1" "$2" cat "$mnt/$3")" "$4" "$3, read by $1:$2"; }
# (expect_errno starts a Python, which takes its time here.)
refuses() { assert_match "$(expect_failure as "$1" "$2" cat "$mnt/$3")" "Permission denied" \
	"$3, read by $1:$2"; }

# Twice: from the disk, then with the ACL cached.
for _ in 1 2; do
	reads 1234 1234 for-1234 secret
	refuses 1235 1234 for-1234
	refuses 1234 1234 masked
	refuses 99 77 masked
	refuses 1234 1234 denied
	reads 1235 1235 denied open
	reads 99 77 for-group group
	refuses 99 78 for-group
	reads 1234 99 directory/file below
	refuses 1235 99 directory/file
	assert_match "$(expect_failure as 1234 99 ls "$mnt/directory")" "Permission denied" \
		"ls of a directory"
	reads 99 99 plain plain
done
drop_caches
refuses 1235 1234 for-1234
reads 1234 1234 for-1234 secret
# access(2) and faccessat2(2) agree.
as 1234 99 test -r "$mnt/for-1234" || fail "access(2) refuses what open(2) grants"
if as 1235 99 test -r "$mnt/for-1234"; then fail "access(2) grants what open(2) refuses"; fi
