# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash disable=SC2154,SC2016 # mount_image sets mnt; single quotes are meant
#
# Programs run out of a mount: dynamic ones with all their libraries from it, static ones, scripts,
# a library brought in at run time. Not those that must not run.
#
# formats: 3 4
# timeout: 60

root=src/root
mkdir -p $root/bin $root/lib
copy_with_libraries() {
	local file library
	file=$(readlink -f "$(command -v "$1")")
	cp "$file" "$root/bin/$1"
	for library in $(ldd "$file" | grep -o '/[^ ]*'); do
		mkdir -p "$root${library%/*}"
		cp -L "$library" "$root$library"
	done
}
for program in bash cat ls sha256sum; do copy_with_libraries "$program"; done
cp "$(readlink -f "$(command -v puzzlefs)")" src/static
printf '#!/bin/bash\necho "script of $0 with $*"\n' >$root/bin/script
printf '#!%s/mnt/root/bin/cat\nits own text\n' "$CASE_DIR" >src/cat-script
printf 'echo no interpreter named\n' >src/plain-script
echo 'not a program' >src/data
printf '#!/bin/bash\n' >src/not-executable
chmod 755 $root/bin/script src/cat-script src/plain-script src/data src/static
# The library that is brought in is one that the caller does not have yet.
library=$(find /usr/lib -name 'libacl.so.1.*' -type f | head -1)
cp "$library" src/library.so

source=$(build_image src)
mount_image "$source"

assert_eq "$(chroot "$mnt/root" /bin/bash -c 'echo $((6 * 7))')" 42 "bash with libraries of the image"
assert_eq "$(chroot "$mnt/root" /bin/sha256sum </etc/passwd)" "$(sha256sum </etc/passwd)" "sha256sum"
assert_eq "$(chroot "$mnt/root" /bin/script a b)" "script of /bin/script with a b" "a script"
assert_eq "$(cd "$mnt/root" && "$PWD/bin/cat" /etc/hostname)" "$(cat /etc/hostname)" \
	"cat with libraries of the guest"
assert_match "$("$mnt/static" --version)" '^puzzlefs ' "a static program"
assert_eq "$("$mnt/cat-script" | tail -n 1)" "its own text" "a script whose interpreter is in the image"
assert_eq "$(bash -c "$mnt/plain-script")" "no interpreter named" "a script without #!"

# Its text is mapped from the mount.
mkfifo nothing
# Open for both, so that no reader finds its end.
exec 8<>nothing
"$mnt/root/bin/cat" nothing >/dev/null &
pid=$!
wait_until 'cat runs' grep -q "r-xp.* $mnt/root/bin/cat\$" /proc/$pid/maps
maps=$(</proc/$pid/maps)
kill $pid
wait $pid || true
exec 8<&-
assert_match "$maps" "r-xp [^$'\n']* $mnt/root/bin/cat" "the maps of a running cat"
python3 - "$mnt/library.so" <<-'END' || fail "a library brought in at run time"
	import ctypes, sys
	library = ctypes.CDLL(sys.argv[1])
	library.acl_from_text.restype = ctypes.c_void_p
	assert library.acl_from_text(b"u::rw,g::r,o::-") is not None
	lines = [line for line in open("/proc/self/maps") if line.rstrip().endswith(sys.argv[1])]
	assert "r-xp" in "".join(lines)
END

# What cannot run, does not.
for name in not-executable data; do
	if said=$(python3 -c 'import os, sys; os.execv(sys.argv[1], sys.argv[1:])' "$mnt/$name" 2>&1); then
		fail "$name runs"
	fi
	case $name in
	data) assert_match "$said" "Exec format error" "$name" ;;
	*) assert_match "$said" "Permission denied" "$name" ;;
	esac
done
unmount_image
mount_image "$source" "" noexec
assert_match "$(expect_failure "$mnt/static" --version)" "Permission denied" "a program under noexec"
