# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash disable=SC2154 # mount_image sets mnt
#
# A store on NFS: images are read right, raw, compressed and verified, also while others on the same
# client make files in the directory of blobs without a pause; a blob that the server has no more is
# an error, and right when it is back. A blob is read into memory mapped from the file that it serves.
#
# formats: 3 4
# timeout: 300
# klog-allow: NFSD:|nfs|puzzlefs: image

# shellcheck source=qemu-test/cases/lib/nfs.sh
. /payload/cases/lib/nfs.sh
makers=()
cleanup() {
	local image
	((${#makers[@]} == 0)) || kill "${makers[@]}"
	# Before the server goes, which the client would wait for.
	for image in "${_mounted[@]}"; do unmount_image "$image" || true; done
	nfs_stop
}
trap 'cleanup; _at_exit' EXIT
nfs_start

mkdir -p src exported
# Each has a blob of its own.
for number in {1..40}; do head -c $((100000 + number)) /dev/urandom >"src/$number"; done
seq 300000 >src/text
# Small, and alone in its blob.
head -c 8192 /dev/urandom >src/own
build_image src image --compress=0 >/dev/null
build_image src compressed --compress >/dev/null
mv store exported/
nfs_export rw "$CASE_DIR/exported"
nfs_mount noac

mount_image client/store:image "$CASE_DIR/plain"
mount_image client/store:image "$CASE_DIR/digest" verify=digest
mount_image client/store:compressed "$CASE_DIR/compressed"
for image in plain digest compressed; do
	diff -r src "$image" || fail "$image"
done

blobs=client/store/blobs/sha256
for maker in 1 2; do
	python3 -c '
import os, sys
while True:
    os.close(os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY))
    os.unlink(sys.argv[1])
' "$blobs/new$maker" &
	makers+=($!)
done
for image in plain compressed; do
	drop_caches
	timeout 60 diff -r src "$image" || fail "$image, while files are made"
done
kill "${makers[@]}"
wait "${makers[@]}" || true
makers=()

if ((${#build_format[@]})); then
	# The pack that has the file; in format 3 the blob that is the file.
	blob=$(python3 -c '
import sys; sys.path.insert(0, "/payload/cases/lib")
import packs; print(packs.extents_of("exported/store", open("src/own", "rb").read())[0].blob)')
else
	blob=$(sha256sum src/own | cut -d" " -f1)
fi
blob=$blobs/$blob
[[ -e $blob ]] || fail 'no blob has the file'
python3 /payload/cases/lib/ownpages.py plain/own "$blob"

largest=$(find "exported/store/blobs/sha256" -type f -printf '%s %p\n' | sort -rn | sed -n '1s/^[0-9]* //p')
mv "$largest" away
for image in plain digest compressed; do unmount_image "$CASE_DIR/$image"; done
drop_caches
mount_image client/store:image "$CASE_DIR/plain"
mount_image client/store:compressed "$CASE_DIR/compressed"
if cat plain/* compressed/* >/dev/null 2>&1; then fail "a blob that is not there was read"; fi
mv away "$largest"
for image in plain compressed; do
	diff -r src "$image" || fail "$image, when the blob is back"
done
