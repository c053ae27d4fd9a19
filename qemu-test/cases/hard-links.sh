# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash disable=SC2154 # mount_image sets mnt
#
# 40 hard links, in several directories: one inode number, a link count of 40, one content, one
# page cache. Links to a FIFO, a symbolic link and an empty file too.
#
# formats: 3 4
# timeout: 40

mkdir -p src/a/b src/c
head -c 100000 /dev/urandom >src/first
for i in {1..39}; do
	case $((i % 4)) in
	0) dir=src ;;
	1) dir=src/a ;;
	2) dir=src/a/b ;;
	3) dir=src/c ;;
	esac
	ln src/first "$dir/link-$i"
done
: >src/empty && ln src/empty src/c/empty
mkfifo src/fifo && ln src/fifo src/c/fifo
ln -s first src/symlink && ln src/symlink src/c/symlink
# Equal bytes do not make a link.
cp src/first src/copy

mount_image "$(build_image src)"
assert_eq "$(find "$mnt" -samefile "$mnt/first" | wc -l)" 40 "names of one inode"
assert_eq "$(find "$mnt" -name 'link-*' -printf '%i %n %s\n' | sort -u)" \
	"$(stat -c '%i 40 100000' "$mnt/first")" "inode, link count and size of the links"
assert_eq "$(cd "$mnt" && find . ! -type d -printf '%p %n\n' | sort)" \
	"$(cd src && find . ! -type d -printf '%p %n\n' | sort)" "link counts"
for name in empty fifo symlink; do
	[[ "$(stat -c %i "$mnt/$name")" == "$(stat -c %i "$mnt/c/$name")" ]] ||
		fail "$name and c/$name are two inodes"
done
[[ "$(stat -c %i "$mnt/first")" != "$(stat -c %i "$mnt/copy")" ]] || fail "a copy became a link"
assert_eq "$(stat -c %h "$mnt/copy")" 1 "link count of a copy"

# Read by one name, in memory for all of them.
drop_caches
cat "$mnt/first" >/dev/null
python3 - "$mnt/a/b/link-2" <<-'END' || fail "what one name brought to memory is not there by another"
	import ctypes, mmap, os, sys
	libc = ctypes.CDLL(None)
	libc.mmap.restype = ctypes.c_void_p
	fd = os.open(sys.argv[1], os.O_RDONLY)
	address = libc.mmap(None, 100000, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
	pages = (ctypes.c_ubyte * 25)()
	assert libc.mincore(ctypes.c_void_p(address), 100000, pages) == 0
	assert all(page & 1 for page in pages), list(pages)
END
for link in "$mnt"/first "$mnt"/link-* "$mnt"/*/link-* "$mnt"/copy; do
	assert_same src/first "$link"
done
# tar sees them as links.
links() { tar -C "$1" --sort=name -c . | tar -tv | grep -o '[^ ]* link to .*'; }
assert_eq "$(links "$mnt")" "$(links src)" "links that tar sees"
