# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash disable=SC2154 # expect_failure sets said
#
# puzzlefs mount --lazy and puzzlefs fetch: an image is mounted before its data is there, and readers wait.
# timeout: 300
# klog-allow: puzzlefs: image|puzzlefs-fetch

mnt=$CASE_DIR/mnt lazy=$CASE_DIR/lazy
mkdir -p src/sub "$mnt"
head -c 6000000 /dev/urandom >src/large
head -c 2000000 /dev/urandom >src/other
for number in {1..400}; do
	seq "$number" 300 >"src/sub/$number"
done
cp -a /usr/lib/python3*/json src/
ln -s large src/link
setfattr -n user.a -v b src/other
puzzlefs build --compress src from:t >/dev/null
/payload/inventory src >wanted
image=file://$CASE_DIR/from:t

# The processes that fetch for a store.
fetchers() { pgrep -f "fetch --background.*$1"; }
no_fetcher() { ! fetchers "$1"; }
# waits PROCESS: in a way that only a fatal signal ends.
waits() { [[ $(awk '{ print $3 }' "/proc/$1/stat") == D ]]; }
assert_tree() {
	drop_caches
	/payload/inventory "$mnt" >found
	cmp wanted found || fail "the trees differ: $(diff wanted found | head)"
}
lazy_mount() { # [OPTION...]
	puzzlefs mount --lazy --store "$lazy:t" "$@" "$image" "$mnt"
	_mounted=("$mnt")
}
lazy_umount() {
	puzzlefs umount "$mnt"
	_mounted=()
}

# Next to nothing is there at first, and everything can be read.
lazy_mount --complete=never 2>said
pid=$(fetchers "$lazy")
assert_match "$(cat said)" "process $pid fetches chunks until 'kill $pid'" 'the process'
size=$(du -sb "$lazy/blobs" | cut -f1)
((size < 1000000)) || fail "$size bytes are there already"
assert_match "$(grep " $mnt " /proc/mounts)" "^$lazy $mnt puzzlefs ro," '/proc/mounts'
assert_tree
assert_same src/large "$mnt/large"
# A second mount of the same image has the same fetcher.
mkdir second
said=$(puzzlefs mount --lazy --complete=never --store "$lazy:t" "$image" "$CASE_DIR/second" 2>&1)
assert_eq "$said" '' 'the second mount'
assert_same src/other second/other
umount second
one_fetcher() { [[ $(fetchers "$lazy") == "$pid" ]]; }
wait_until 'one fetcher is left' one_fetcher
lazy_umount
kill "$pid"
wait_until 'the fetcher ends' no_fetcher "$lazy"

# A reader waits while a killed fetcher is replaced. The image is complete then, and needs no process.
rm -r "$lazy"
lazy_mount --complete=never 2>/dev/null
cmp src/sub/7 "$mnt/sub/7"
kill -KILL "$(fetchers "$lazy")"
wait_until 'the fetcher ends' no_fetcher "$lazy"
cat "$mnt/large" >large &
reader=$!
wait_until 'a reader waits for the next fetcher' waits "$reader"
said=$(puzzlefs fetch --complete=now "$image" "$lazy:t" 2>/dev/null)
assert_eq "$said" "$image is complete in $lazy:t" 'the fetch'
wait "$reader" || fail 'the reader has failed'
assert_same src/large large
assert_tree
lazy_umount
puzzlefs verify "$lazy:t"
puzzlefs gc "$lazy" >/dev/null
mount_image "$lazy:t" "$mnt" verify=digest
assert_tree
unmount_image "$mnt"
# Another lazy mount has nothing to fetch.
lazy_mount
wait_until 'the fetcher ends' no_fetcher "$lazy"
assert_tree
lazy_umount

# Without a fetcher, readers get EIO at their deadline, and killed ones end at once.
rm -r "$lazy"
lazy_mount --complete=never -o fetch_timeout=2 2>/dev/null
cmp src/sub/7 "$mnt/sub/7"
kill -KILL "$(fetchers "$lazy")"
wait_until 'the fetcher ends' no_fetcher "$lazy"
expect_errno EIO cat "$mnt/large"
lazy_umount
mount_image "$lazy:t" "$mnt" verify=digest
expect_errno EIO cat "$mnt/large"
unmount_image "$mnt"
lazy_mount --complete=never 2>/dev/null
kill -KILL "$(fetchers "$lazy")"
wait_until 'the fetcher ends' no_fetcher "$lazy"
cat "$mnt/large" >/dev/null &
reader=$!
wait_until 'a reader waits' waits "$reader"
kill -KILL "$reader"
wait "$reader" || true
lazy_umount

# From a server that goes away and comes back.
loopback_up
cat >server.py <<'END'
import http.server, re, sys

class Handler(http.server.SimpleHTTPRequestHandler):
    """Files with ranges, which the server of the library lacks."""
    def do_GET(self):
        try:
            with open(self.translate_path(self.path), "rb") as file:
                data = file.read()
        except OSError:
            return self.send_error(404)
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        first, last = (int(found[1]), min(int(found[2]), len(data) - 1)) if found else (0, len(data) - 1)
        self.send_response(206 if found else 200)
        if found:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.send_header("Content-Length", str(last + 1 - first))
        self.end_headers()
        self.wfile.write(data[first:last + 1])

http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
END
serve() {
	python3 server.py 8123 2>/dev/null &
	server=$!
	wait_until 'the server listens' bash -c 'exec 3<>/dev/tcp/127.0.0.1/8123'
}
serve
rm -r "$lazy"
image=http://127.0.0.1:8123/from:t
# The guest has no CA certificates, which TLS is set up with even if it is not used.
lazy_mount --complete=never --retries 0 --tls-verify=false 2>said || fail "$(cat said)"
assert_same src/other "$mnt/other"
kill "$server"
wait "$server" || true
expect_errno EIO cat "$mnt/large"
assert_match "$(kmsg_since_start)" "puzzlefs-fetch: $lazy: cannot fetch from http://127.0.0.1:8123" 'log'
serve
assert_same src/large "$mnt/large"
assert_tree
kill "$(fetchers "$lazy")"
kill "$server"
wait_until 'the fetcher ends' no_fetcher "$lazy"
lazy_umount

# In a store of its own. The rest arrives in the background, and the fetcher ends.
image=file://$CASE_DIR/from:t
puzzlefs mount --lazy "$image" "$mnt"
_mounted=("$mnt")
wait_until 'the fetcher ends' no_fetcher /var/lib/puzzlefs/lazy
mv from hidden
assert_tree
mv hidden from
lazy_umount
puzzlefs verify /var/lib/puzzlefs/lazy/*
rm -r /var/lib/puzzlefs/lazy

# The service continues the images of all stores after a restart.
puzzlefs mount --lazy --complete=never "$image" "$mnt" 2>/dev/null
_mounted=("$mnt")
cmp src/sub/7 "$mnt/sub/7"
kill -KILL "$(fetchers /var/lib/puzzlefs/lazy)"
wait_until 'the fetcher ends' no_fetcher /var/lib/puzzlefs/lazy
sed -i 's/"never"/"now"/' /var/lib/puzzlefs/lazy/*/.puzzlefs/fetches/*
mkdir -p /etc/puzzlefs
echo "$CASE_DIR/from" >/etc/puzzlefs/fetchd.conf
puzzlefs fetch --all >/dev/null 2>said || fail "$(cat said)"
echo /nonexistent >>/etc/puzzlefs/fetchd.conf
expect_failure puzzlefs fetch --all >/dev/null
assert_match "$said" '/nonexistent' 'the store that cannot be continued'
rm -r /etc/puzzlefs
mv from hidden
assert_tree
mv hidden from
lazy_umount
rm -r /var/lib/puzzlefs/lazy

# Two images in one store have one process. Another one continues both, and their readers wait meanwhile.
rm -r "$lazy"
mkdir src2
head -c 3000000 /dev/urandom >src2/own
cp src/other src2/
puzzlefs build --compress src2 from:u >/dev/null
lazy_mount --complete=never 2>/dev/null
pid=$(fetchers "$lazy")
puzzlefs mount --lazy --complete=never --store "$lazy:u" "file://$CASE_DIR/from:u" second 2>said
assert_match "$(cat said)" "process $pid fetches chunks until 'kill $pid'" 'the process of the second image'
_mounted=("$mnt" "$CASE_DIR/second")
assert_same src2/other second/other
assert_same src/sub/9 "$mnt/sub/9"
wait_until 'one fetcher is left' one_fetcher
state=$(puzzlefs status "$lazy")
assert_eq "$(grep -c 'in transfer *[tu] from file://' <<<"$state")" 2 'the images in transfer'
assert_match "$state" "fetcher $pid: 0 requests wait" 'the fetcher'
# A mount of a third image that fails leaves the others.
mkdir third
expect_failure puzzlefs mount --lazy --store "$lazy:v" -o nonsense "file://$CASE_DIR/from:u" third >/dev/null
one_fetcher || fail 'the fetcher has ended'
kill -KILL "$pid"
wait_until 'the fetcher ends' no_fetcher "$lazy"
cat second/own >own &
reader=$!
wait_until 'a reader waits for the next fetcher' waits "$reader"
puzzlefs fetch "$lazy" 2>/dev/null &
next=$!
wait "$reader" || fail 'the reader has failed'
assert_same src2/own own
assert_same src/large "$mnt/large"
kill "$next"
wait "$next" || fail 'the next fetcher has failed'
umount second
lazy_umount

# A mount that fails leaves no fetcher.
rm -r "$lazy"
expect_failure puzzlefs mount --lazy --store "$lazy:t" -o nonsense "$image" "$mnt" >/dev/null
wait_until 'the fetcher ends' no_fetcher "$lazy"
