# SPDX-License-Identifier: MIT OR Apache-2.0
# An idmapped mount shows other owners, in stat, ACLs and to those who ask for access.
# formats: 3 4
# timeout: 40

mkdir src
echo private >src/private
echo shared >src/shared
chown 1000:1001 src/private src/shared
chmod 600 src/private
chmod 640 src/shared
setfacl -m u:1005:r,g:1006:r src/shared
mount_image "$(build_image src)"
mkdir mapped
mount --bind -o X-mount.idmap="u:1000:201000:100 g:1000:201000:100" "$mnt" mapped

assert_eq "$(stat -c '%u:%g %a' mapped/private)" "201000:201001 600"
assert_eq "$(stat -c '%u:%g' "$mnt/private")" "1000:1001"
assert_eq "$(getfacl -cn mapped/shared | grep -E '^(user|group):[0-9]' |
	tr '\n' ' ')" "user:201005:r-- group:201006:r-- "
# Root of the image is not mapped: nobody's.
assert_eq "$(stat -c %u mapped)" 65534

read_as() { setpriv --reuid "$1" --regid "${2:-$1}" --clear-groups cat "$3" 2>&1; }
assert_eq "$(read_as 201000 201000 mapped/private)" private
[[ $(read_as 1000 1000 mapped/private) == *"Permission denied"* ]] || fail "the unmapped owner may read"
assert_eq "$(read_as 1000 1000 "$mnt/private")" private
assert_eq "$(read_as 201005 5 mapped/shared)" shared
[[ $(read_as 1005 5 mapped/shared) == *"Permission denied"* ]] || fail "the unmapped user of the ACL may read"
assert_eq "$(read_as 5 201006 mapped/shared)" shared

# In a user namespace of those numbers, the files are its own users'.
assert_eq "$(unshare --user --map-users 0:200000:65536 --map-groups 0:200000:65536 --setuid 0 --setgid 0 \
	stat -c '%u:%g' mapped/private)" "1000:1001"
expect_errno EROFS touch mapped/private
umount mapped
