# SPDX-License-Identifier: MIT OR Apache-2.0
# One Debian root filesystem in PuzzleFS and its peers: sizes, and the time of some workloads, all
# systems in turn, on one disk, in one guest.
# needs: sample reference
# timeout: 7200
#
# Not a test: nothing is compared with a limit. `make bench` prints the table.

# shellcheck source=qemu-test/bench/lib/measure.sh
. /payload/cases/lib/measure.sh
puzzlefs=puzzlefs
# shellcheck source=qemu-test/bench/lib/images.sh
. /payload/cases/lib/images.sh
images=/payload/images reference=/payload/reference/puzzlefs
rounds=$(sed -nE 's/.*puzzlefs\.rounds=([0-9]+).*/\1/p' /proc/cmdline)
rounds=${rounds:-5}
mount_image /payload/store:debian "$CASE_DIR/source"
source=$mnt

# All on the same ext4.
cp -a "$source" tree
make_image puzzlefs tree store:debian
make_image puzzlefs-zstd tree zstd:debian
make_image puzzlefs-3 tree store-3:debian
make_image puzzlefs-3-zstd tree zstd-3:debian
# A copy of its own: the others are read without fs-verity.
cp -a store verity
for blob in verity/blobs/sha256/*; do fsverity enable "$blob"; done
make_image erofs tree plain.erofs
make_image erofs-zstd tree zstd.erofs
make_image squashfs tree zstd.squashfs
systems=(ext4 puzzlefs puzzlefs-digest puzzlefs-fsverity puzzlefs-zstd puzzlefs-zstd-digest puzzlefs-3
	puzzlefs-3-zstd erofs erofs-zstd squashfs)
if [[ -d $images/sample.objects ]]; then
	systems+=(composefs composefs-fsverity)
	cp -a "$images/sample.objects" objects
	cp -a objects objects-verity
	find objects-verity -type f -exec fsverity enable {} \;
fi
[[ ! -x $reference ]] || systems+=(reference-fuse)
[[ -e /dev/fuse ]] || mknod /dev/fuse c 10 229
sync

# One place for all: paths of one length.
mkdir m
attach() {
	case $1 in
	ext4) mount --bind tree m ;;
	puzzlefs) mount -t puzzlefs -o verify=none "$CASE_DIR/store:debian" m ;;
	puzzlefs-digest) mount -t puzzlefs -o verify=digest "$CASE_DIR/store:debian" m ;;
	puzzlefs-fsverity) mount -t puzzlefs -o verify=fsverity "$CASE_DIR/verity:debian" m ;;
	puzzlefs-zstd) mount -t puzzlefs -o verify=none "$CASE_DIR/zstd:debian" m ;;
	puzzlefs-zstd-digest) mount -t puzzlefs -o verify=digest "$CASE_DIR/zstd:debian" m ;;
	puzzlefs-3) mount -t puzzlefs -o verify=none "$CASE_DIR/store-3:debian" m ;;
	puzzlefs-3-zstd) mount -t puzzlefs -o verify=none "$CASE_DIR/zstd-3:debian" m ;;
	erofs) mount -t erofs -o ro "$CASE_DIR/plain.erofs" m ;;
	erofs-zstd) mount -t erofs -o ro "$CASE_DIR/zstd.erofs" m ;;
	squashfs) mount -t squashfs -o loop,ro "$CASE_DIR/zstd.squashfs" m ;;
	composefs) attach_composefs "$images/sample.composefs" "$CASE_DIR/objects" m ;;
	composefs-fsverity)
		attach_composefs "$images/sample.composefs" "$CASE_DIR/objects-verity" m verity=require
		;;
	reference-fuse)
		"$reference" mount --foreground "$CASE_DIR/store-3:debian" m >fuse.log 2>&1 &
		until mountpoint -q m; do
			kill -0 $! || fail "$(tail -n 3 fuse.log)"
			sleep 0.01
		done
		;;
	esac
}
metric puzzlefs.bytes "$(bytes_of store)"
metric puzzlefs-zstd.bytes "$(bytes_of zstd)"
metric puzzlefs-3.bytes "$(bytes_of store-3)"
metric puzzlefs-3-zstd.bytes "$(bytes_of zstd-3)"
metric erofs.bytes "$(bytes_of plain.erofs)"
metric erofs-zstd.bytes "$(bytes_of zstd.erofs)"
metric squashfs.bytes "$(bytes_of zstd.squashfs)"
[[ ! -d objects ]] || metric composefs.bytes "$(bytes_of objects "$images/sample.composefs")"
large=$(cd tree && find . -type f -size +4M -printf '%s %p\n' | sort -rn | head -1 | cut -d' ' -f2-)

declare -A wanted=()
took() { # SYSTEM WORKLOAD ARGUMENT...: in microseconds
	local system=$1 workload=$2 time count
	shift 2
	read -r time count _ < <("$reader" "$@")
	# Everybody has read the same.
	: "${wanted[${workload#*-}]:=$count}"
	[[ ${wanted[${workload#*-}]} == "$count" ]] ||
		fail "$system $workload: $count, not ${wanted[${workload#*-}]}"
	metric "$system.$workload.$round" "$((time / 1000))"
}
cached() { awk '/^(Cached|Buffers|SReclaimable):/ { n += $2 } END { print n }' /proc/meminfo; }

for ((round = 1; round <= rounds; round++)); do
	start
	end "marks.marks.$round"
	for system in "${systems[@]}"; do
		# As slow as it is, it is measured once.
		[[ $system != reference-fuse || $round == 1 ]] || continue
		drop_caches
		start
		attach "$system"
		end "$system.mount.$round"
		took "$system" cold-walk walk m
		took "$system" warm-walk walk m
		drop_caches
		took "$system" cold-random random "m/$large" 500
		drop_caches
		took "$system" cold-map map "m/$large" 500
		drop_caches
		start
		chroot m /usr/bin/python3 -c 'import json, socket, ssl'
		end "$system.cold-python.$round"
		drop_caches
		start
		chroot m /usr/sbin/nginx -V 2>/dev/null
		end "$system.cold-nginx.$round"
		drop_caches
		took "$system" cold-readers readers m 8
		drop_caches
		before=$(cached)
		took "$system" cold-read read m
		metric "$system.memory.$round" "$((($(cached) - before) * 1024))"
		took "$system" warm-read read m
		detach "$system" m
	done
done
