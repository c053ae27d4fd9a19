# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash
#
# A page of a file is in sixteen blobs, of which the cache of open blobs has room for eight, because their
# digests begin alike. The store is on NFS, whose lookups take the lock of the directory of blobs, and
# others make files there. A reader of the page gets its contents or EDEADLK, and does not try for ever.
#
# formats: 3 4
# timeout: 300
# klog-allow: NFSD:|nfs|puzzlefs: image .*EDEADLK

# shellcheck source=qemu-test/cases/lib/nfs.sh
. /payload/cases/lib/nfs.sh
trap 'nfs_stop; _at_exit' EXIT
nfs_start

mkdir exported
nfs_export rw "$CASE_DIR/exported"
nfs_mount noac
python3 /payload/cases/lib/crowdedpage.py client/store
