# SPDX-License-Identifier: MIT OR Apache-2.0
#
# containerd and runc run images of a store by puzzlefs-snapshotter: ten containers share a mount, a
# snapshotter that is killed comes back to it, the digest is enforced, a start-up order is read ahead on
# request, and nothing is left behind.
#
# needs: sample
# timeout: 600
# klog-allow: overlayfs:|puzzlefs: 

run=/run/containerd-case
mkdir -p "$run"
cat >config.toml <<END
version = 2
root = "$CASE_DIR/containerd"
state = "$run/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "$run/containerd.sock"
[proxy_plugins.puzzlefs]
  type = "snapshot"
  address = "$run/snapshotter.sock"
[proxy_plugins.puzzlefs-diff]
  type = "diff"
  address = "$run/snapshotter.sock"
[plugins."io.containerd.service.v1.diff-service"]
  default = ["puzzlefs-diff", "walking"]
END

wait_for() { wait_until "$*" "$@"; }
start_snapshotter() {
	puzzlefs-snapshotter serve --root "$CASE_DIR/snapshotter" --mounts "$run/images" \
		--address "$run/snapshotter.sock" --containerd "$run/containerd.sock" >>snapshotter.log 2>&1 &
	snapshotter=$!
	wait_for grep -q "listening on" snapshotter.log
}
# After a failure to connect, containerd does not try again for a while, and then longer.
restart_snapshotter() {
	start_snapshotter
	wait_for ctr snapshot --snapshotter puzzlefs ls
}
kill_snapshotter() {
	kill -KILL "$snapshotter"
	wait "$snapshotter" || true
	: >snapshotter.log
}
ctr() { command ctr --address "$run/containerd.sock" "$@"; }
import() {
	puzzlefs-snapshotter import --containerd "$run/containerd.sock" --address "$run/snapshotter.sock" "$@"
}
# run_container ARGUMENT...
run_container() { ctr run --snapshotter puzzlefs --fifo-dir "$run/fifo" \
	--cgroup "/containerd-case/$BASHPID.$RANDOM" "$@"; }
mounted() { awk -v under="$run/images/" '$0 ~ / - puzzlefs / && index($5, under) == 1' /proc/self/mountinfo; }
mounts() { mounted | wc -l; }
overlays() { grep -c " - overlay " /proc/self/mountinfo || true; }
# left: how many mounts, overlays and snapshots there are when containerd has collected its garbage.
left() {
	ctr leases create --id collect >/dev/null
	ctr leases delete --sync collect >/dev/null
	echo "$(mounts) $(overlays) $(directories)"
}
directories() { find "$CASE_DIR/snapshotter/snapshots" -mindepth 1 -maxdepth 1 | wc -l; }

start_snapshotter
containerd --config config.toml >containerd.log 2>&1 &
containerd=$!
wait_for ctr version

# An image of a whole Debian, which is in containerd's store by its manifest alone.
debian=localhost/debian:puzzlefs
import -o verify=digest /payload/store:debian "$debian"
assert_match "$(ctr image check --snapshotter puzzlefs "name==$debian")" " complete +\(2/2\) .* true" \
	'containerd has the image'
assert_eq "$(mounts)" 0 'an image that nobody uses is not mounted'
mount_image /payload/store:debian
assert_eq "$(run_container --rm "$debian" c /usr/bin/cat /etc/debian_version)" \
	"$(<"$CASE_DIR/mnt/etc/debian_version")"
said=$(run_container --rm "$debian" c /usr/bin/python3 -c 'import os
open("/etc/new", "w").write("x")
os.remove("/etc/hostname") if os.path.exists("/etc/hostname") else None
print(os.getpid(), "new" in os.listdir("/etc"), oct(os.stat("/").st_mode))')
assert_eq "$said" "1 True $(python3 -c 'import os, sys; print(oct(os.stat(sys.argv[1]).st_mode))' \
	"$CASE_DIR/mnt")"
[[ ! -e $CASE_DIR/mnt/etc/new ]] || fail "the image was written to"
unmount_image
expect_failure run_container --rm "$debian" c /usr/bin/false >/dev/null
assert_eq "$(left)" "0 0 0" 'what is left of containers that are gone'
size=$(du -sk "$CASE_DIR/containerd" "$CASE_DIR/snapshotter" | awk '{ sum += $1 } END { print sum }')
((size < 20000)) || fail "something was unpacked: $size KiB"

echo "$SECONDS s: containers run and leave nothing"

# Ten at once, over one mount; they start at once, too.
starting=()
for id in one.{1..10}; do
	run_container --detach "$debian" "$id" /bin/sh -c 'echo "$1" >/name; exec /bin/sleep 1000' sh "$id" &
	starting+=($!)
done
for pid in "${starting[@]}"; do wait "$pid" || fail 'one of ten has not started'; done
assert_eq "$(left)" "1 10 10" 'mounts and snapshots of ten containers'
assert_match "$(mounted)" ',verify=digest' 'the mount options'
inside() {
	local id=$1
	shift
	ctr task exec --exec-id "exec-$RANDOM" --fifo-dir "$run/fifo" "$id" "$@"
}

# The snapshotter is killed. Containers do not notice, and another finds everything.
image=$(mounted | awk '{ print $1 }')
kill_snapshotter
assert_eq "$(inside one.1 /usr/bin/cat /etc/debian_version | wc -l)" 1
restart_snapshotter
assert_eq "$(mounted | awk '{ print $1 }')" "$image" 'the mount'
assert_eq "$(inside one.10 /usr/bin/cat /etc/debian_version | wc -l)" 1
names() { cat "$CASE_DIR"/snapshotter/snapshots/*/fs/name | sort | paste -sd' '; }
all_named() { [[ $(names) == "one.1 one.10 one.2 one.3 one.4 one.5 one.6 one.7 one.8 one.9" ]]; }
wait_for all_named
echo "$SECONDS s: ten containers run"
assert_eq "$(run_container --rm "$debian" more /usr/bin/cat /etc/debian_version | wc -l)" 1
assert_eq "$(left)" "1 10 10" 'mounts and snapshots after the restart'

# What a container has written becomes a layer, for others to stand on.
stop() {
	ctr task kill --signal KILL "$1"
	wait_for task_stopped "$1"
	ctr task rm "$1" >/dev/null 2>&1 || true
}
task_stopped() { ctr task ls | awk -v id="$1" '$1 == id { print $3 }' | grep -qv RUNNING; }
snapshots() { ctr snapshot --snapshotter puzzlefs "$@"; }
stop one.1
snapshots commit layer one.1
ctr container rm one.1
snapshots prepare on-layer layer >/dev/null
mkdir layered
bash -ec "$(snapshots mounts "$CASE_DIR/layered" on-layer)"
assert_eq "$(<layered/name)" one.1
[[ -x layered/usr/bin/python3 ]] || fail 'the image is not below'
umount layered
# ctr's views have no label that keeps them: no garbage must be due that is still to be collected.
left >/dev/null
snapshots view seen layer >/dev/null
# Nor by the removal of another while it is there.
snapshots label seen containerd.io/gc.root=case >/dev/null
bash -ec "$(snapshots mounts "$CASE_DIR/layered" seen)"
assert_eq "$(<layered/name)" one.1
expect_errno EROFS touch layered/new
umount layered
expect_failure snapshots rm layer >/dev/null
for name in on-layer seen layer; do snapshots rm "$name"; done
ctr task rm --force one.{2..10} >/dev/null
ctr container rm one.{2..10}
assert_eq "$(left)" "0 0 0" 'what is left of ten containers'

echo "$SECONDS s: ten containers are gone"

# One that is made, but starts when the machine has been started anew: all mounts are gone.
ctr container create --snapshotter puzzlefs "$debian" later /usr/bin/cat /etc/debian_version
kill_snapshotter
umount "$(mounted | awk '{ print $5 }')"
restart_snapshotter
assert_eq "$(ctr task start --fifo-dir "$run/fifo" later | wc -l)" 1
ctr task rm later >/dev/null 2>&1 || true
ctr container rm later
assert_eq "$(left)" "0 0 0" 'what is left of one that started later'

echo "$SECONDS s: one has started later"

# A configuration is kept; and one number vouches for all of the image.
mount_image /payload/store:debian
mkdir -p root/{usr/bin,lib64,lib/x86_64-linux-gnu}
cp -L "$mnt/usr/bin/env" root/usr/bin/
cp -L "$mnt/lib64/ld-linux-x86-64.so.2" root/lib64/
cp -L "$mnt/lib/x86_64-linux-gnu/libc.so.6" root/lib/x86_64-linux-gnu/
unmount_image
python3 - root layout <<'END'
import hashlib, io, json, os, sys, tarfile
root, layout = sys.argv[1:]
os.makedirs(f"{layout}/blobs/sha256")
def blob(data, kind):
    digest = hashlib.sha256(data).hexdigest()
    with open(f"{layout}/blobs/sha256/{digest}", "wb") as file:
        file.write(data)
    return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(data)}
out = io.BytesIO()
with tarfile.open(fileobj=out, mode="w") as tar:
    tar.add(root, "")
layer = blob(out.getvalue(), "layer.v1.tar")
config = blob(json.dumps({
    "architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    "config": {"Entrypoint": ["/usr/bin/env"], "Env": ["PATH=/usr/bin", "FROM=the configuration"]},
}).encode(), "config.v1+json")
manifest = json.dumps({"schemaVersion": 2, "config": config, "layers": [layer]})
manifest = blob(manifest.encode(), "manifest.v1+json")
manifest["annotations"] = {
    "org.opencontainers.image.ref.name": "app",
    "io.containerd.image.name": "localhost/plain:app",
}
with open(f"{layout}/index.json", "w") as file:
    json.dump({"schemaVersion": 2, "manifests": [manifest]}, file)
with open(f"{layout}/oci-layout", "w") as file:
    file.write('{"imageLayoutVersion": "1.0.0"}')
END
app=localhost/app:puzzlefs
for format in 3 4; do
	puzzlefs import -q --format "$format" layout:app store:app >/dev/null
	puzzlefs enable-verity -q store:app >said
	digest=$(grep -oE '^digest=[0-9a-f]+' said)
	expect_failure import -o "digest=$(printf '%064d' 0)" store:app "$app" >/dev/null
	assert_match "$said" 'not the image that was asked for' 'the reason'
	((format == 4)) || expect_failure run_container --rm "$app" c >/dev/null
	import -o "$digest" store:app "$app"
	run_container --detach --null-io "$app" app
	# In format 4, all follows from the root.
	case $format in
	3) assert_match "$(mounted)" ',rootfs_verity=[0-9a-f]{64},verify=fsverity' 'the mount options' ;;
	4) assert_match "$(mounted)" ',rootfs=[0-9a-f]{64},verify=fsverity' 'the mount options' ;;
	esac
	wait_for task_stopped app
	ctr task rm app >/dev/null 2>&1 || true
	ctr container rm app
	assert_match "$(run_container --rm "$app" c)" 'FROM=the configuration'
done
# Again, with other options: the image is there, and mounted in this way from now on.
import -o verify=digest store:app "$app"
ctr container create --snapshotter puzzlefs "$app" c
assert_match "$(mounted)" ',verify=digest' 'the mount options'
ctr container rm c
# What restricts the image restricts the overlay that containers see, too.
import -o nosuid,nodev,verify=digest store:app "$app"
ctr container create --snapshotter puzzlefs "$app" c
assert_match "$(mounted)" 'ro,nosuid,nodev,' 'the attributes of the mount'
assert_match "$(snapshots mounts /nowhere c)" 'nosuid,nodev,' 'the attributes of the overlay'
ctr container rm c
import -o verify=digest store:app "$app"
# In another namespace it is the same snapshot.
import --namespace other store:app "$app"
assert_match "$(run_container --rm "$app" c)" 'FROM=the configuration'
assert_match "$(ctr --namespace other run --snapshotter puzzlefs --fifo-dir "$run/fifo" \
	--cgroup /containerd-case/c --rm "$app" c)" 'FROM=the configuration'
ctr --namespace other image rm --sync "$app"
assert_match "$(run_container --rm "$app" c)" 'FROM=the configuration'

# A start-up order is read ahead for the first container that asks for it, and without the option for none.
ordered=localhost/ordered:puzzlefs
head -c 3000000 /dev/urandom >root/data
echo /data >order
puzzlefs build -q --order order root store:ordered
resident() { python3 -c 'import case, os, sys
print(case.in_memory(os.open(sys.argv[1], os.O_RDONLY)))' "$1"; }
reads_ahead() { grep -qz -e --prefetch-mount /proc/[0-9]*/cmdline; }
in_memory() { (($(resident "$(mounted | awk '{ print $5 }')/data") == 733)); }
for options in nodev prefetch; do
	import -o "$options" store:ordered "$ordered"
	drop_caches
	ctr container create --snapshotter puzzlefs "$ordered" c
	if [[ $options == prefetch ]]; then
		wait_for in_memory
	else
		! reads_ahead || fail 'a start-up order is read ahead without a request'
		assert_eq "$(resident "$(mounted | awk '{ print $5 }')/data")" 0 'pages in memory'
	fi
	ctr container rm c
done
ctr image rm --sync "$ordered"
rm root/data

# Of a snapshotter whose state is lost, containerd still has the images in its own list.
kill_snapshotter
rm -r snapshotter
restart_snapshotter
expect_failure run_container --rm "$app" c >/dev/null
ctr container rm c 2>/dev/null || true
import -o verify=digest store:app "$app"
assert_match "$(run_container --rm "$app" c)" 'FROM=the configuration'

echo "$SECONDS s: a configuration is kept"

# Whoever spoils the store gets no container.
python3 - store <<'END'
import json, os, sys
blobs = f"{sys.argv[1]}/blobs/sha256"
with open(f"{sys.argv[1]}/index.json") as file:
    manifest = json.load(file)["manifests"][0]["digest"]
with open(f"{blobs}/{manifest.removeprefix('sha256:')}") as file:
    layers = json.load(file)["layers"]
for layer in layers:
    path = f"{blobs}/{layer['digest'].removeprefix('sha256:')}"
    with open(path, "rb") as file:
        data = bytearray(file.read())
    # All but the metadata, at the beginning of the pack.
    for at in range(16 << 10, len(data), 4 << 10):
        data[at] ^= 1
    os.remove(path)
    with open(path, "wb") as file:
        file.write(data)
END
import -o verify=digest store:app "$app"
drop_caches
expect_failure run_container --rm "$app" c >/dev/null
ctr container rm c 2>/dev/null || true

echo "$SECONDS s: a spoilt store"

# Images that containerd has got as any others: it unpacks them into the snapshotter's own store, and what two
# images share is there once. Without an image, the store has nothing of it.
own=$CASE_DIR/snapshotter/store
stored() { du -sk "$own/blobs" | awk '{ print $1 }'; }
tags() { puzzlefs list --json "$own" | wc -l; }
head -c 5000000 /dev/urandom >root/data
for version in 1 2; do
	echo "version $version" >root/version
	puzzlefs build -q --entrypoint /usr/bin/env --env "VERSION=$version" root "pulled:$version"
	puzzlefs copy -q --whole-packs "pulled:$version" "layout-$version:$version"
	tar -C "layout-$version" --exclude .puzzlefs -cf "pulled-$version.tar" .
	ctr image import --base-name localhost/pulled --snapshotter puzzlefs "pulled-$version.tar" >/dev/null
	assert_match "$(run_container --rm "localhost/pulled:$version" c)" "VERSION=$version"
	assert_eq "$(tags)" "$version" 'images in the store'
	((version == 1)) && first=$(stored)
done
layers=$(ctr content get "$(ctr image ls 'name==localhost/pulled:2' | awk 'NR == 2 { print $3 }')" |
	python3 -c 'import json, sys; print(len(json.load(sys.stdin)["layers"]))')
((layers > 1)) || fail "the second version has $layers layers"
(($(stored) < first + 200)) || fail "the second version takes $(($(stored) - first)) KiB"
puzzlefs verify -q "$own"
kill_snapshotter
restart_snapshotter
assert_match "$(run_container --rm localhost/pulled:2 c)" 'VERSION=2'
ctr image rm --sync localhost/pulled:1
assert_match "$(run_container --rm localhost/pulled:2 c)" 'VERSION=2'
ctr image rm --sync localhost/pulled:2
left >/dev/null
# containerd has another call for it after its own collection.
nothing_stored() { [[ $(tags) == 0 && $(stored) -lt 100 ]]; }
wait_for nothing_stored
echo "$SECONDS s: downloaded images"

# An image whose layers are unpacked goes as with any other snapshotter.
tar -C layout -cf plain.tar .
ctr image import --snapshotter puzzlefs plain.tar >/dev/null
assert_match "$(run_container --rm localhost/plain:app c)" 'FROM=the configuration'

for name in $(ctr image ls -q); do ctr image rm --sync "$name"; done
assert_eq "$(snapshots ls | tail -n +2)" '' 'snapshots'
assert_eq "$(left)" "0 0 0" 'what is left of images that are gone'
python3 -c '
import json, sys
state = json.load(open(sys.argv[1]))
assert not state["images"] and not state["snapshots"], state
' snapshotter/state.json
assert_eq "$(find "$run/images" -mindepth 1)" '' 'mount points'
kill "$containerd"
wait "$containerd" || true
find /sys/fs/cgroup/{containerd-case,default} -depth -type d -exec rmdir {} + || true
kill "$snapshotter"
wait "$snapshotter" || fail "the snapshotter does not end well: $(tail -3 snapshotter.log)"
