# SPDX-License-Identifier: MIT OR Apache-2.0
# What `puzzlefs build --compress` makes mounts and is the source, under every kind of verification.
# timeout: 120
# formats: 3 4

mkdir -p src/dir
cp -a /usr/lib/python3*/json src/dir/
cp /usr/bin/bash src/
head -c 300000 /dev/urandom >src/noise
head -c 600000 src/bash | cat - src/noise >src/mixed
{ head -c 1500000 /dev/zero; head -c 99999 src/bash; head -c 123456 /dev/zero; } >src/zeros
/payload/inventory src >wanted

built() { puzzlefs build "${build_format[@]}" --json "$@" | sed -E 's/.*"new_bytes":([0-9]+).*/\1/'; }
raw=$(built --compress=0 src raw:x)
compressed=$(built -z src store:default)
((compressed * 10 < raw * 8)) || fail "compressed $compressed, raw $raw"
small=(--compress=1 --chunk-size 16K)
# In format 4, each chunk is one frame.
[[ $PUZZLEFS_FORMAT == 4 ]] || small+=(--frame-size 4K)
built "${small[@]}" src store:small >/dev/null
for blob in store/blobs/sha256/*; do fsverity enable "$blob"; done

compare() { # TAG OPTIONS
	drop_caches
	mount_image "$CASE_DIR/store:$1" "$CASE_DIR/mnt" "$2"
	# In another order, and not from the beginning.
	for skip in 200 17 0 151 41; do
		cmp <(dd if=src/mixed bs=4099 skip=$skip count=5 status=none) \
			<(dd if="$mnt/mixed" bs=4099 skip=$skip count=5 status=none) ||
			fail "$1 with $2, from $skip"
	done
	diff -r src "$mnt" || fail "$1 with $2"
	unmount_image
}
compare default verify=none
compare default verify=digest
compare default verify=fsverity
compare small verify=none
compare small verify=digest

# Out again, without the kernel.
puzzlefs extract store:default out >/dev/null
/payload/inventory out >found
cmp wanted found
