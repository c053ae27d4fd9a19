# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck disable=SC2154 # mount_image sets mnt
#
# skopeo reads an image as it reads any other, and copies it; the copy has the same digest, and mounts.
#
# timeout: 180
# formats: 3 4

manifest_of() {
	puzzlefs inspect --json "$1" |
		python3 -c '
import json, sys
print(json.load(sys.stdin)["manifest_digest"].removeprefix("sha256:"))'
}
mkdir -p tree/dir
head -c 700000 /dev/urandom >tree/file
cp tree/file tree/dir/copy
ln -s file tree/link
chown 1000:2000 tree/file
image=$(build_image tree image --compress=0)
build_image tree compressed --compress >/dev/null
skopeo inspect --raw "oci:$image" >manifest
assert_eq "$(sha256sum <manifest | cut -d' ' -f1)" "$(manifest_of "$image")" "the manifest that skopeo sees"

skopeo --insecure-policy copy --quiet "oci:$image" oci:copy:image
skopeo --insecure-policy copy --quiet "oci:$CASE_DIR/store:compressed" oci:copy:compressed
# Through a directory of another form, as through a registry.
skopeo --insecure-policy copy --quiet oci:copy:image dir:flat
skopeo --insecure-policy copy --quiet dir:flat oci:back:image
skopeo --insecure-policy copy --quiet oci:copy:image oci-archive:image.tar:image
skopeo --insecure-policy copy --quiet oci-archive:image.tar:image oci:unpacked:image
if [[ $PUZZLEFS_FORMAT == 4 ]]; then
	# Only puzzlefs writes a chunk index. Commands that read work without it, and the mounts below add to it.
	assert_match "$(puzzlefs verify copy)" '2 packs are not listed' 'verify of the copy'
	puzzlefs extract back:image extracted
	diff -r --no-dereference tree extracted || fail 'the extracted tree differs'
	[[ ! -e back/.puzzlefs/chunks ]] || fail 'a command that reads has written a chunk index'
fi
for copy in copy:image copy:compressed back:image unpacked:image; do
	mount_image "$CASE_DIR/$copy"
	/payload/inventory "$mnt" | diff - <(/payload/inventory tree) || fail "$copy differs"
	unmount_image
	puzzlefs verify "$CASE_DIR/$copy" >/dev/null
done
assert_eq "$(puzzlefs inspect --json back:image)" "$(puzzlefs inspect --json store:image)" \
	"the image that came back"
