# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash disable=SC2154,SC2016 # mount_image sets mnt; single quotes are meant
#
# A reader in a memory control group reads and maps a tree that is larger than its limit, raw and
# not verified, and compressed and verified: nobody is killed for it, and what it reads is right.
#
# formats: 3 4
# timeout: 90

group=/sys/fs/cgroup/memory-limit
grep -qw memory /sys/fs/cgroup/cgroup.controllers || skip "no memory controller"
echo +memory >/sys/fs/cgroup/cgroup.subtree_control
mkdir $group
leave() {
	local status=$?
	echo 1 >$group/cgroup.kill || true
	wait_until 'the control group is empty' rmdir $group
	# What a case that failed has mounted, the runner unmounts.
	((status == 0)) || exit "$status"
	_at_exit
}
trap leave EXIT
echo 16M >$group/memory.max
echo 0 >$group/memory.swap.max 2>/dev/null || true

# Ten files of 6 MB, each a shuffle of the same few blocks: quickly made and stored.
mkdir src
head -c 6000000 /dev/urandom >src/0
for i in {1..9}; do
	{
		tail -c +$((i * 500000 + 1)) src/0
		head -c $((i * 500000)) src/0
	} >"src/$i"
done
mount_image "$(build_image src image --compress=0)"
mount_image "$(build_image src zstd --compress=1)" "$CASE_DIR/verified" verify=digest
mnt=$CASE_DIR/mnt

for file in src/*; do sha256sum <"$file"; done >wanted
for image in "$mnt" "$CASE_DIR/verified"; do
	bash -c '
		echo $$ >"$1/cgroup.procs"
		for file in "$2"/*; do sha256sum <"$file"; done
	' bash $group "$image" >got || fail "a reader of $image under a limit: status $?"
	diff wanted got || fail "what was read of $image under a limit differs"
done
bash -c '
	echo $$ >"$1/cgroup.procs"
	exec python3 - "$2" <<-"END"
		import mmap, os, sys
		for name in "0123456789":
		    fd = os.open(f"{sys.argv[1]}/{name}", os.O_RDONLY)
		    with mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ) as view:
		        with open(f"src/{name}", "rb") as wanted:
		            for at in range(0, len(view), 400_000):
		                wanted.seek(at)
		                assert view[at:at + 4000] == wanted.read(4000), (name, at)
	END
' bash $group "$mnt" || fail "a reader by maps under a limit: status $?"

assert_eq "$(awk '$1 == "oom_kill" { print $2 }' $group/memory.events)" 0 "processes killed"
[[ $(awk '$1 == "max" { print $2 }' $group/memory.events) -gt 0 ]] ||
	fail "the limit was never reached: the case tests nothing"
peak=$(<$group/memory.peak)
((peak <= 17 << 20)) || fail "the group's peak is $peak bytes"
