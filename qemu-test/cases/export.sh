# SPDX-License-Identifier: MIT OR Apache-2.0
#
# An exported archive is the tree, by GNU tar and bsdtar, and an exported OCI image is read and run by
# skopeo, umoci and podman.
#
# needs: sample
# timeout: 600
# klog-allow: overlayfs:

image=/payload/store:debian
mkdir mnt
puzzlefs mount "$image" mnt
_mounted=("$CASE_DIR/mnt")
puzzlefs export -q "$image" >plain.tar
tar -df plain.tar -C mnt >said 2>&1 || fail "the archive differs: $(head -5 said)"
assert_eq "$(<said)" '' 'tar -d'
puzzlefs export -q -o again.tar "$image"
assert_same plain.tar again.tar
mkdir made
bsdtar -xpf plain.tar -C made --numeric-owner
tar -df plain.tar -C made >said 2>&1 || fail "what bsdtar extracts differs: $(head -5 said)"
echo "$SECONDS s: archives"

# A part of it for everything that compresses, which takes long on an emulated processor.
mkdir part
(cd made && cp -a --parents bin lib lib64 etc usr/bin/cat usr/lib64 usr/share/doc var/lib/dpkg \
	usr/lib/x86_64-linux-gnu/{ld-linux-x86-64.so.2,libc.so.6} ../part)
rm -r made again.tar
image=$CASE_DIR/store:part
puzzlefs build -q part "$image"
puzzlefs export -q -o plain.tar "$image"
for compression in gzip zstd; do
	puzzlefs export -q --compress "$compression" --oci "layout:$compression" "$image"
	assert_eq "$(skopeo inspect --raw "oci:layout:$compression" |
		grep -c "tar+$compression")" 1 "$compression"
	skopeo copy -q "oci:layout:$compression" "dir:$CASE_DIR/copied-$compression"
done
umoci unpack --image layout:gzip bundle
tar -df plain.tar -C bundle/rootfs >said 2>&1 || fail "what umoci unpacks differs: $(head -5 said)"
rm -r bundle copied-*
echo "$SECONDS s: layouts"

# podman takes a layout, and an archive without a configuration.
podman() {
	command podman --root "$CASE_DIR/storage" --runroot "$CASE_DIR/run" --tmpdir "$CASE_DIR/tmp" \
		--cgroup-manager=cgroupfs --events-backend=none --runtime=crun "$@"
}
run() { podman run --rm --cgroups=disabled --network=none --log-driver=none "$@"; }
version=$(<mnt/etc/debian_version)
podman pull -q "oci:$CASE_DIR/layout:zstd" >id
assert_eq "$(run "$(tail -n 1 id)" /usr/bin/cat /etc/debian_version)" "$version" 'a container of the image'
podman rmi -f "$(tail -n 1 id)" >/dev/null
podman import -q plain.tar imported >id
assert_eq "$(run "$(tail -n 1 id)" /usr/bin/cat /etc/debian_version)" "$version" 'a container of the archive'
podman rmi -f "$(tail -n 1 id)" >/dev/null
puzzlefs umount mnt
_mounted=()
