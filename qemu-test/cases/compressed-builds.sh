# SPDX-License-Identifier: MIT OR Apache-2.0
# What `puzzlefs build --compress` makes mounts and is the source, under every kind of verification.
# timeout: 120

mkdir -p src/dir
cp -a /usr/lib/python3*/json /usr/lib/python3*/email src/dir/
cp /usr/bin/bash /usr/bin/python3 src/
head -c 700000 /dev/urandom >src/noise
cat src/bash src/noise src/bash >src/mixed
{ head -c 3000000 /dev/zero; cat src/bash; head -c 123456 /dev/zero; } >src/zeros
/payload/inventory src >wanted

puzzlefs build -q src store:raw
puzzlefs build -q -z src store:default
puzzlefs build -q --compress=9 --frame-size 4K --chunk-size 16K src store:small
for tag in raw default small; do
	mkdir -p "$tag"
	puzzlefs build -q -j1 $([[ $tag == raw ]] || echo -z) src "own-$tag:x"
done
bytes() { find "$1" -type f -printf '%s\n' | awk '{ n += $1 } END { print n }'; }
(($(bytes own-default) * 10 < $(bytes own-raw) * 8)) || fail "compressed $(bytes own-default), raw $(bytes own-raw)"
for blob in store/blobs/sha256/*; do fsverity enable "$blob"; done

compare() { # TAG OPTIONS
	drop_caches
	mount_image "$CASE_DIR/store:$1" "$CASE_DIR/mnt" "$2"
	/payload/inventory "$mnt" >found
	cmp wanted found || fail "$1 with $2: $(diff wanted found | head -3)"
	# In another order, and not from the beginning.
	for skip in 300 17 0 699 41; do
		cmp <(dd if=src/mixed bs=4099 skip=$skip count=5 status=none) \
			<(dd if="$mnt/mixed" bs=4099 skip=$skip count=5 status=none) || fail "$1 with $2, from $skip"
	done
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
