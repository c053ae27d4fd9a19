# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck disable=SC2154 # mount_image sets mnt
#
# Ten containers of one image, run by crun, and one of each of ten versions of another, run by runc, with an
# overlay over the image: each is its own, a web server in one answers, each version is held to its digest.
#
# needs: sample
# timeout: 300
# klog-allow: overlayfs:

# bundle NAME LOWER COMMAND...: a container over a mounted image, for crun and runc.
bundle() {
	local name=$1 lower=$2
	shift 2
	mkdir -p "$name"/{upper,work,rootfs}
	mount -t overlay -o "lowerdir=$lower,upperdir=$name/upper,workdir=$name/work" overlay "$name/rootfs"
	(cd "$name" && crun spec)
	python3 - "$name/config.json" "$@" <<-'END'
		import json, sys
		with open(sys.argv[1]) as file:
		    config = json.load(file)
		config["process"].update(terminal=False, args=sys.argv[2:])
		config["root"]["readonly"] = False
		# The network is the guest's: a client is to reach the server.
		namespaces = config["linux"]["namespaces"]
		config["linux"]["namespaces"] = [n for n in namespaces if n["type"] != "network"]
		more = ["CAP_SETUID", "CAP_SETGID", "CAP_CHOWN", "CAP_DAC_OVERRIDE"]
		for kind in "bounding", "effective", "permitted":
		    config["process"]["capabilities"][kind] += more
		with open(sys.argv[1], "w") as file:
		    json.dump(config, file)
	END
}
crun() { command crun --root "$CASE_DIR/crun" --cgroup-manager=disabled "$@"; }

mount_image /payload/store:debian "$CASE_DIR/image" verify=digest

program='import os, sys, sqlite3
name = sys.argv[1]
with open("/etc/hostname", "w") as file: file.write(name)
base = sqlite3.connect("/var/lib/base")
base.execute("create table t (name)")
base.executemany("insert into t values (?)", [(name,)] * 100)
base.commit()
print(name, os.getpid(), base.execute("select count(*), min(name), max(name) from t").fetchone(), flush=True)'
for number in {1..10}; do
	bundle "one.$number" "$CASE_DIR/image" /usr/bin/python3 -c "$program" "number-$number"
	crun run --bundle "one.$number" "one.$number" >"one.$number/said" 2>&1 &
done
wait
for number in {1..10}; do
	assert_eq "$(<"one.$number/said")" "number-$number 1 (100, 'number-$number', 'number-$number')"
	assert_eq "$(<"one.$number/upper/etc/hostname")" "number-$number"
done
assert_same "$CASE_DIR/image/etc/debian_version" one.1/rootfs/etc/debian_version

# A web server, and a client outside.
cat >nginx.conf <<'END'
daemon off;
error_log stderr;
events {}
http {
    access_log off;
    server { listen 127.0.0.1:8080; location / { root /usr/share; autoindex on; } }
}
END
loopback_up
bundle web "$CASE_DIR/image" /usr/sbin/nginx -c /nginx.conf
cp nginx.conf web/rootfs/nginx.conf
crun run --bundle web web >web/said 2>&1 &
python3 - "$CASE_DIR/image/usr/share" <<'END'
import os, random, sys, urllib.request
from case import eventually
source, address = sys.argv[1], "http://127.0.0.1:8080"
def answers():
    try:
        return urllib.request.urlopen(f"{address}/").read()
    except OSError:
        return None
eventually(answers, "nginx does not answer")
files = sorted(os.path.join(at, name) for at, _, names in os.walk(source) for name in names
               if os.path.isfile(os.path.join(at, name)))
for path in random.Random(1).sample(files, 60):
    answer = urllib.request.urlopen(address + urllib.request.quote(path.removeprefix(source))).read()
    with open(path, "rb") as file:
        assert answer == file.read(), path
END
crun kill web TERM
wait

# Ten versions at once, of one program and a file that tells them apart; one number vouches for all
# that is read of each.
mkdir -p small/{usr/bin,lib64,lib/x86_64-linux-gnu}
cp -L "$CASE_DIR/image/usr/bin/cat" small/usr/bin/
cp -L "$CASE_DIR/image/lib64/ld-linux-x86-64.so.2" small/lib64/
cp -L "$CASE_DIR/image/lib/x86_64-linux-gnu/libc.so.6" small/lib/x86_64-linux-gnu/
for number in {1..10}; do
	echo "version $number" >small/version
	image=$CASE_DIR/versions:$number
	puzzlefs build -q small "$image" >/dev/null
	puzzlefs enable-verity -q "$image" >said
	mount_image "$image" "$CASE_DIR/version.$number" "$(grep -oE '^digest=[0-9a-f]+' said)"
	bundle "of.$number" "$mnt" /usr/bin/cat /version
	runc --root "$CASE_DIR/runc" run --bundle "of.$number" "of.$number" >"of.$number/said" 2>&1 &
done
wait
for number in {1..10}; do assert_eq "$(<"of.$number/said")" "version $number"; done
for name in one.{1..10} web of.{1..10}; do umount "$name/rootfs"; done
