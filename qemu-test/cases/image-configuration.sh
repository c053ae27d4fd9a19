# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck disable=SC2154 # mount_image sets mnt
#
# skopeo and umoci read the configuration of a built image, and crun runs it from a mount.
#
# needs: sample
# timeout: 180
# klog-allow: overlayfs:

mkdir -p tree/srv
cp -a /payload/inventory tree/file
store=$CASE_DIR/store
puzzlefs build -q --platform linux/amd64 --entrypoint /usr/bin/env --cmd '["A=2", "sh"]' --env LANG=C.UTF-8 \
	--label version=1 --user 1000:1000 --workdir /srv tree "$store:app"
puzzlefs build -q tree "$store:plain"
puzzlefs verify "$store" >/dev/null

# field EXPRESSION: a value of the JSON on standard input.
field() { python3 -c 'import json, sys; print(json.dumps(eval(sys.argv[1], {"it": json.load(sys.stdin)})))' \
	"$1"; }
run_config='[it["config"][key] for key in ("Entrypoint", "Cmd", "Env", "Labels", "User", "WorkingDir")]'
wanted='[["/usr/bin/env"], ["A=2", "sh"], ["LANG=C.UTF-8"], {"version": "1"}, "1000:1000", "/srv"]'
assert_eq "$(skopeo inspect --config "oci:$store:app" |
	field "$run_config")" "$wanted" "the configuration that skopeo sees"
skopeo inspect "oci:$store:app" >inspected
assert_eq "$(field '[it["Os"], it["Architecture"], it["Labels"], it["Env"]]' <inspected)" \
	'["linux", "amd64", {"version": "1"}, ["LANG=C.UTF-8"]]' "the image that skopeo sees"
layers=$(field 'len(it["Layers"])' <inspected)
assert_eq "$(skopeo inspect --config "oci:$store:app" |
	field 'len(it["rootfs"]["diff_ids"])')" "$layers" "the layers"

umoci stat --image "$store:app" --json >seen
assert_eq "$(field 'it["history"] or []' <seen)" '[]' "the history that umoci sees"
assert_match "$(umoci list --layout "$store")" "app" "the tags that umoci sees"
# umoci changes the configuration of a copy, whose tree stays the same.
skopeo --insecure-policy copy --quiet "oci:$store:app" oci:changed:app
umoci config --image changed:app --config.user 2000 --config.label by=umoci --no-history
puzzlefs reindex -q changed
assert_eq "$(puzzlefs inspect --json changed:app |
	field '[it["user"], it["labels"]["by"], it["rootfs_digest"]]')" \
	"$(puzzlefs inspect --json "$store:app" |
	field '["2000", "umoci", it["rootfs_digest"]]')" "what umoci changed"
mount_image "$CASE_DIR/changed:app"
/payload/inventory "$mnt" | diff - <(/payload/inventory tree) || fail "the tree that umoci left differs"
unmount_image

# A runtime gets the program and its environment from the image.
mount_image /payload/store:debian
puzzlefs build -q --entrypoint /usr/bin/env --cmd '["sh", "-c", "echo $GREETING $(id -u):$(id -g) $PWD"]' \
	--env GREETING=hello --env PATH=/usr/bin --user 1000:2000 --workdir /usr "$mnt" "$store:debian"
unmount_image
mount_image "$store:debian"
mkdir -p bundle/{upper,work,rootfs}
mount -t overlay -o "lowerdir=$mnt,upperdir=bundle/upper,workdir=bundle/work" overlay bundle/rootfs
(cd bundle && crun spec)
puzzlefs inspect --json "$store:debian" | python3 -c '
import json, sys
image = json.load(sys.stdin)
with open("bundle/config.json") as file:
    config = json.load(file)
uid, gid = map(int, image["user"].split(":"))
config["process"].update(terminal=False, args=image["entrypoint"] + image["cmd"], env=image["env"],
                         cwd=image["working_dir"], user={"uid": uid, "gid": gid})
with open("bundle/config.json", "w") as file:
    json.dump(config, file)
'
said=$(command crun --root "$CASE_DIR/crun" --cgroup-manager=disabled run --bundle bundle app)
umount bundle/rootfs
assert_eq "$said" "hello 1000:2000 /usr" "what the container says"
