# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck disable=SC2154 # mount_image sets mnt
#
# skopeo reads an image as it reads any other, and copies it; the copy has the same digest, and mounts.
#
# timeout: 120

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
image=$(build_image tree)
puzzlefs build -q -z tree "$CASE_DIR/store:compressed"
skopeo inspect --raw "oci:$image" >manifest
assert_eq "$(sha256sum <manifest | cut -d' ' -f1)" "$(manifest_of "$image")" "the manifest that skopeo sees"

skopeo --insecure-policy copy --quiet "oci:$image" oci:copy:image
skopeo --insecure-policy copy --quiet "oci:$CASE_DIR/store:compressed" oci:copy:compressed
# Through a directory of another form, as through a registry.
skopeo --insecure-policy copy --quiet oci:copy:image dir:flat
skopeo --insecure-policy copy --quiet dir:flat oci:back:image
for copy in copy:image copy:compressed back:image; do
	puzzlefs verify "$CASE_DIR/$copy" >/dev/null
	mount_image "$CASE_DIR/$copy"
	/payload/inventory "$mnt" | diff - <(/payload/inventory tree) || fail "$copy differs"
	unmount_image
done
assert_eq "$(puzzlefs inspect --json back:image)" "$(puzzlefs inspect --json store:image)" \
	"the image that came back"
