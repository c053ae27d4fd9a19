# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash
#
# What mount(8) says when mount.puzzlefs cannot mount: the cause and the way out, an exit status
# of its manual, and nothing mounted.
#
# timeout: 60
# formats: 3 4

mkdir -p src mnt plain/blobs/sha256
echo "the contents" >src/file
store=$CASE_DIR/store
mnt=$CASE_DIR/mnt
for tag in first second v1.0; do build_image src "$tag" >/dev/null; done
rootfs=$(puzzlefs resolve "$store:first")
manifest=$(grep -o 'sha256:[0-9a-f]*' "$store/index.json" | head -1)

# refuse STATUS WORDS COMMAND...: it fails with this status and says these words, in any order.
refuse() {
	local status=$1 words=$2 word got=0
	shift 2
	said=$("$@" 2>&1) || got=$?
	assert_eq "$got" "$status" "$*: status ($said)"
	for word in $words; do
		[[ $said == *"$word"* ]] || fail "$*: does not say '$word': $said"
	done
	if mountpoint -q "$mnt"; then fail "$*: left mounted"; fi
	[[ $(grep -c puzzlefs /proc/mounts) -eq 0 ]] || fail "$*: left a mount"
}
image() { refuse "$2" "$3" mount -t puzzlefs "$1" "$mnt"; }

# A missing tag: those that there are.
image "$store:nonesuch" 32 "nonesuch first second v1.0"
image "$store:" 1 "tag"
image "$store" 1 "<oci-dir>:<tag>"
image "$store@sha256:1234" 1 "digest 64"
image "$store@sha256:${rootfs//[0-9a-f]/0}" 32 "${rootfs//[0-9a-f]/0}"
image "$CASE_DIR/nowhere:first" 32 "nowhere No such file"
image "$CASE_DIR/src/file:first" 32 "src/file"
image "$CASE_DIR/plain:first" 32 "plain OCI oci-layout"
refuse 1 "source" mount.puzzlefs "$store:first"
refuse 1 "unknown" mount.puzzlefs --nonesuch "$store:first" "$mnt"
refuse 32 "nonesuch" mount -t puzzlefs -o nonesuch=1 "$store:first" "$mnt"
refuse 32 "mount point" mount.puzzlefs "$store:first" "$mnt/nowhere"
refuse 1 "rootfs=" mount -t puzzlefs -o "rootfs=$rootfs" "$store:first" "$mnt"
refuse 32 "SHA-256 digest 64" mount -t puzzlefs -o "rootfs=12" "$store" "$mnt"

# What the kernel finds is passed on. In format 4, the root is in a pack.
case $PUZZLEFS_FORMAT in
3) blob=$store/blobs/sha256/$rootfs damaged="$rootfs digest" truncated="$rootfs damaged" \
	missing="$rootfs missing" ;;
4) blob=$store/blobs/sha256/$(puzzlefs inspect --json "$store:first" |
	python3 -c 'import json, sys; print(json.load(sys.stdin)["packs"][0]["digest"])')
	damaged=$rootfs truncated=$rootfs missing="${blob##*/} missing" ;;
esac
cp "$blob" kept
printf x | dd of="$blob" bs=1 conv=notrunc status=none
image "$store:first" 32 "$damaged"
cp kept "$blob" && truncate -s 8 "$blob"
image "$store:first" 32 "$truncated"
rm "$blob"
image "$store:first" 32 "$missing"
cp kept "$blob"
mv "$store/blobs/sha256/${manifest#sha256:}" kept.manifest
image "$store@$manifest" 32 "${manifest#sha256:}"
echo '{' >"$store/blobs/sha256/${manifest#sha256:}"
image "$store@$manifest" 32 "damaged"
mv kept.manifest "$store/blobs/sha256/${manifest#sha256:}"
cp "$store/index.json" kept.index
echo '{"manifests": [' >"$store/index.json"
image "$store:first" 32 "index.json"
cp kept.index "$store/index.json"

# By who may not.
refuse 1 "permission" setpriv --reuid 1234 --clear-groups mount.puzzlefs "$store:first" "$mnt"
# In a user namespace, even its root may not: the kernel opens the store's files for the mounter.
refuse 1 "permission" unshare --user --map-root-user --mount mount.puzzlefs "$store:first" "$mnt"

# -f does all but mount, and after all this the image still mounts.
mount.puzzlefs -f "$store:first" "$mnt"
if mountpoint -q "$mnt"; then fail "-f mounts"; fi
mount -t puzzlefs "$store:first" "$mnt"
assert_eq "$(cat "$mnt/file")" "the contents" "a good mount afterwards"
umount "$mnt"
