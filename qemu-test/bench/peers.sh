# SPDX-License-Identifier: MIT OR Apache-2.0
# Sizes of one Debian root filesystem in PuzzleFS and its peers, and the time to read all of it in
# one guest, on one disk: cold (caches dropped) and warm, all systems in turn, $rounds times.
# needs: sample
# timeout: 3600
#
# Not a test: nothing is compared with a limit. `make bench` prints the table.

rounds=2
mount_image /payload/store:debian "$CASE_DIR/source"
source=$mnt

cp -a /payload/store store
store_bytes=$(find store -type f -printf '%s\n' | awk '{ n += $1 } END { print n }')
mkfs.erofs --quiet plain.erofs "$source" >/dev/null
mkfs.erofs --quiet -zzstd,3 -C65536 zstd.erofs "$source" >/dev/null
mksquashfs "$source" zstd.squashfs -comp zstd -Xcompression-level 3 -quiet -no-progress >/dev/null
mkdir -p m.puzzlefs m.erofs m.erofs-zstd m.squashfs
sync

attach() {
	case $1 in
	puzzlefs) mount -t puzzlefs "$CASE_DIR"/store:debian m.puzzlefs ;;
	erofs) mount -t erofs -o ro "$CASE_DIR"/plain.erofs m.erofs ;;
	erofs-zstd) mount -t erofs -o ro "$CASE_DIR"/zstd.erofs m.erofs-zstd ;;
	squashfs) mount -t squashfs -o loop,ro "$CASE_DIR"/zstd.squashfs m.squashfs ;;
	esac
}
read_all() { find "$1" -type f -print0 | xargs -0 cat >/dev/null; }
elapsed() { # in milliseconds
	local start=${EPOCHREALTIME/./}
	"$@"
	echo $(((${EPOCHREALTIME/./} - start) / 1000))
}

for ((round = 1; round <= rounds; round++)); do
	for system in puzzlefs erofs erofs-zstd squashfs; do
		attach "$system"
		drop_caches
		echo "$system cold $(elapsed read_all "m.$system")" >>times.txt
		echo "$system warm $(elapsed read_all "m.$system")" >>times.txt
		umount "m.$system"
	done
done

size_of() { stat -c %s "$1"; }
best() { awk -v s="$1" -v k="$2" '$1 == s && $2 == k && (!m || $3 < m) { m = $3 } END { print m }' times.txt; }
{
	printf '%s %s %s %s\n' puzzlefs "$store_bytes" "$(best puzzlefs cold)" "$(best puzzlefs warm)"
	printf '%s %s %s %s\n' erofs "$(size_of plain.erofs)" "$(best erofs cold)" "$(best erofs warm)"
	printf '%s %s %s %s\n' erofs-zstd "$(size_of zstd.erofs)" "$(best erofs-zstd cold)" "$(best erofs-zstd warm)"
	printf '%s %s %s %s\n' squashfs "$(size_of zstd.squashfs)" "$(best squashfs cold)" "$(best squashfs warm)"
} >results
while read -r system bytes cold warm; do
	metric "$system.bytes" "$bytes"
	metric "$system.cold_ms" "$cold"
	metric "$system.warm_ms" "$warm"
done <results
