# SPDX-License-Identifier: MIT OR Apache-2.0
# Ten versions of an image mounted at once, and one image of 200,000 files: memory and time, in
# PuzzleFS and its peers.
# timeout: 7200
#
# Not a test: nothing is compared with a limit. `make bench` prints the table. The images are made
# by bench/versions-images, and lie on one ext4.

# shellcheck source=qemu-test/bench/lib/measure.sh
. /payload/cases/lib/measure.sh
images=/payload/images
mkdir -p m.{1..20}

attach() { # SYSTEM IMAGE DIRECTORY
	# The many files are in a store of their own, to know its size.
	local store=versions
	[[ $2 != many ]] || store=many
	case $1 in
	puzzlefs) mount -t puzzlefs "$images/$store.puzzlefs:$2" "$3" ;;
	puzzlefs-noshare) mount -t puzzlefs -o noshare "$images/$store.puzzlefs:$2" "$3" ;;
	puzzlefs-zstd) mount -t puzzlefs "$images/$store.puzzlefs-zstd:$2" "$3" ;;
	puzzlefs-3) mount -t puzzlefs "$images/$store.puzzlefs-3:$2" "$3" ;;
	puzzlefs-3-zstd) mount -t puzzlefs "$images/$store.puzzlefs-3-zstd:$2" "$3" ;;
	erofs) mount -t erofs -o ro "$images/$2.erofs" "$3" ;;
	erofs-zstd) mount -t erofs -o ro "$images/$2.erofs-zstd" "$3" ;;
	squashfs) mount -t squashfs -o loop,ro "$images/$2.squashfs" "$3" ;;
	erofs-share) mount -t erofs -o ro,inode_share,domain_id=bench "$images/$2.erofs-share" "$3" ;;
	composefs) attach_composefs "$images/$2.composefs" "$images/$store.objects" "$3" ;;
	esac
}
systems=(puzzlefs puzzlefs-noshare puzzlefs-zstd puzzlefs-3 puzzlefs-3-zstd erofs erofs-zstd squashfs)
[[ ! -d $images/versions.objects ]] || systems+=(erofs-share composefs)
free() { awk '/^MemFree:/ { print $2 * 1024 }' /proc/meminfo; }

for system in "${systems[@]}"; do
	drop_caches
	before=$(free)
	start
	for version in {1..10}; do attach "$system" "$version" "m.$version"; done
	end "$system.mount"
	start
	for version in {1..10}; do "$reader" read "m.$version" >/dev/null; done
	end "$system.read"
	metric "$system.memory" "$((before - $(free)))"
	for mount in {11..20}; do attach "$system" 10 "m.$mount"; done
	start
	for mount in {11..20}; do "$reader" read "m.$mount" >/dev/null; done
	end "$system.again"
	metric "$system.memory-again" "$((before - $(free)))"
	for mount in {1..20}; do detach "$system" "m.$mount"; done

	drop_caches
	before=$(free)
	start
	attach "$system" many m.1
	end "$system.many-mount"
	metric "$system.many-mounted" "$((before - $(free)))"
	start
	"$reader" walk m.1 >/dev/null
	end "$system.many-walk"
	metric "$system.many-walked" "$((before - $(free)))"
	detach "$system" m.1
done

for system in "${systems[@]}"; do
	files=${system%-noshare} objects=() many=()
	if [[ $system == composefs ]]; then
		objects=("$images/versions.objects") many=("$images/many.objects")
	fi
	metric "$system.bytes" "$(bytes_of "$images"/*".$files" "${objects[@]}" -not -path '*/many.*')"
	metric "$system.many-bytes" "$(bytes_of "$images/many.$files" "${many[@]}")"
done
