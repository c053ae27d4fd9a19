# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash disable=SC2154 # mount_image sets mnt
#
# SELinux, enforcing, takes an image's labels from security.selinux and the one of a mount's
# context= option from there, as it does with ext4.
#
# boot: own
# kernel-args: security=selinux selinux=1 enforcing=0
# timeout: 120
# klog-allow: SELinux:

[[ $(</sys/kernel/security/lsm) == *selinux* ]] || skip "this kernel has no SELinux"
mountpoint -q /sys/fs/selinux || mount -t selinuxfs selinuxfs /sys/fs/selinux
# Without it, libselinux takes SELinux for disabled, and mount(8) drops context=.
mkdir -p /etc/selinux
touch /etc/selinux/config

# The least policy that tells two types apart: everything may be done to public_t, nothing be read
# or listed of secret_t. What it does not define, it allows (-U allow).
initial=(kernel security unlabeled fs file file_labels init any_socket port netif netmsg node
	igmp_packet icmp_socket tcp_socket sysctl_modprobe sysctl sysctl_fs sysctl_kernel sysctl_net
	sysctl_net_unix sysctl_vm sysctl_dev kmod policy scmp_packet devnull)
{
	printf 'class %s\n' process file dir
	printf 'sid %s\n' "${initial[@]}"
	echo 'class process { transition dyntransition }'
	echo 'class file { read open }'
	echo 'class dir { read open search }'
	echo 'type public_t; type secret_t;'
	echo 'role system_r; role system_r types { public_t secret_t };'
	echo 'allow public_t public_t:process { transition dyntransition };'
	echo 'allow public_t public_t:file { read open };'
	echo 'allow public_t public_t:dir { read open search };'
	echo 'user system_u roles { system_r };'
	printf 'sid %s system_u:system_r:public_t\n' "${initial[@]}"
	printf 'fs_use_xattr %s system_u:object_r:public_t;\n' ext4 puzzlefs
	printf 'fs_use_trans %s system_u:object_r:public_t;\n' tmpfs devtmpfs devpts
	echo 'genfscon proc / system_u:object_r:public_t'
} >policy.conf
checkpolicy -U allow -o policy policy.conf || fail "checkpolicy does not take the policy"
cat policy >/sys/fs/selinux/load

mkdir -p src/secret-directory
for name in public secret without; do echo "$name" >src/$name; done
echo inside >src/secret-directory/file
setfattr -n security.selinux -v system_u:object_r:public_t src/public
setfattr -n security.selinux -v system_u:object_r:secret_t src/secret
setfattr -n security.selinux -v system_u:object_r:secret_t src/secret-directory
setfattr -x security.selinux src/without 2>/dev/null || true
source=$(build_image src)
mount_image "$source"
mount_image "$source" "$CASE_DIR/labelled" context=system_u:object_r:secret_t
labelled=$mnt mnt=$CASE_DIR/mnt
grep -q " $labelled puzzlefs .*context=system_u:object_r:secret_t" /proc/mounts ||
	fail "the option is not shown: $(grep "$labelled" /proc/mounts)"

echo 1 >/sys/fs/selinux/enforce
for tree in src "$mnt"; do
	assert_eq "$(cat "$tree/public" "$tree/without")" "public"$'\n'"without" "what may be read of $tree"
	expect_errno EACCES cat "$tree/secret"
	expect_errno EACCES cat "$tree/secret-directory/file"
	expect_errno EACCES ls "$tree/secret-directory"
	assert_eq "$(getfattr --only-values -n security.selinux "$tree/secret")" system_u:object_r:secret_t
done
expect_errno EACCES cat "$labelled/public"
assert_eq "$(getfattr --only-values -n security.selinux "$labelled")" system_u:object_r:secret_t
echo 0 >/sys/fs/selinux/enforce
assert_eq "$(cat "$labelled/public" "$mnt/secret")" "public"$'\n'"secret" "when it does not enforce"
