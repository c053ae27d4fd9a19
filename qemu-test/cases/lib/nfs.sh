# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash disable=SC2154 # the case's directory is the runner's
#
# The kernel's NFS server, whose client is this guest as well.

# nfs_start: serves what nfs_export says. Skips the case where the kernel has no NFS. Whoever calls it
# has to say `trap 'nfs_stop; _at_exit' EXIT`.
nfs_start() {
	local filesystem
	# They are modules, or in the kernel.
	modprobe -a nfsd nfs || true
	for filesystem in nfsd nfs4; do
		grep -qw "$filesystem" /proc/filesystems || skip "this kernel has no NFS"
	done
	loopback_up
	mkdir -p /var/lib/nfs/{v4recovery,sm,sm.bak} "$CASE_DIR/client"
	touch /var/lib/nfs/{etab,rmtab,state}
	mountpoint -q /proc/fs/nfsd || mount -t nfsd nfsd /proc/fs/nfsd
	rpc.mountd --foreground --no-udp --no-nfs-version 3 >"$CASE_DIR/mountd.log" 2>&1 &
	nfs_mountd=$!
}

# nfs_export OPTIONS DIRECTORY
nfs_export() { exportfs -o "$1,no_root_squash,no_subtree_check,insecure,fsid=0" "127.0.0.1:$2"; }

# nfs_mount OPTIONS: mounts what is exported at client/.
nfs_mount() {
	rpc.nfsd --no-nfs-version 3 --grace-time 10 --lease-time 10 --no-udp 2
	mount -t nfs -o "vers=4.2,sec=sys,$1" 127.0.0.1:/ "$CASE_DIR/client" ||
		fail "the client does not mount: $(cat "$CASE_DIR/mountd.log")"
}

nfs_stop() {
	umount -l "$CASE_DIR/client" 2>/dev/null || true
	rpc.nfsd 0 || true
	exportfs -ua || true
	[[ ! ${nfs_mountd:-} ]] || kill "$nfs_mountd"
	umount /proc/fs/nfsd || true
}
