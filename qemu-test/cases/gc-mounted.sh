# SPDX-License-Identifier: MIT OR Apache-2.0
# A sweep keeps what a mounted image is made of, though its tag has moved on, until it is unmounted.
# formats: 3 4
# timeout: 120

mkdir tree
head -c 3000000 /dev/urandom >tree/large
echo small >tree/small
cp -r tree expected
image=$(build_image tree)
count=$(find store/blobs/sha256 -type f | wc -l)
mount_image "$image"

# The tag moves to an image that has nothing of it, and nothing was read yet.
rm tree/*
build_image tree >/dev/null
puzzlefs gc store
drop_caches
assert_same "$mnt/large" expected/large
assert_same "$mnt/small" expected/small

unmount_image
found=$(puzzlefs gc --dry-run store | awk '/to remove/ { print $(NF - 1) }')
# All but the manifest, which went when the tag moved on, and the configuration, which the other image has,
# too.
assert_eq "$found" "$((count - 2))" 'blobs to remove after the image was unmounted'
puzzlefs gc store
puzzlefs verify store
