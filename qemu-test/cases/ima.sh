# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash disable=SC2154 # mount_image sets mnt
#
# IMA measures files of an image, and appraises them by their security.ima, as it does those of
# ext4. Tried with the security modules of Debian's kernel as it boots (IMA beside AppArmor
# and TOMOYO without policies): labels of others are shown, not enforced.
#
# timeout: 60

lsm=$(</sys/kernel/security/lsm)
echo "security modules: $lsm"
policy=/sys/kernel/security/ima/policy
measurements=/sys/kernel/security/ima/ascii_runtime_measurements
[[ -e $policy ]] || skip "no IMA policy can be written here (security modules: $lsm)"

# Owners that no other case has: the policy stays until the guest ends.
mkdir src
head -c 700001 /dev/urandom >src/measured
cp /usr/bin/true src/program
touch src/empty
chown 61234 src/*
for name in right wrong without; do
	head -c 300001 /dev/urandom >src/$name
	chown 61235 src/$name
done
# IMA_XATTR_DIGEST_NG, HASH_ALGO_SHA256, the digest.
digest() { sha256sum "$1" | cut -d' ' -f1; }
setfattr -n security.ima -v "0x0404$(digest src/right)" src/right
setfattr -n security.ima -v "0x0404$(digest src/right)" src/wrong
# Labels of modules that are not at work here.
setfattr -n security.selinux -v system_u:object_r:bin_t:s0 src/program
setfattr -n security.SMACK64 -v _ src/program
digests=$(cd src && sha256sum measured program empty)

# Before the policy, which keeps the builder from reading, too.
source=$(build_image src)

cat >"$policy" <<-END || skip "the kernel takes no IMA policy"
	measure func=FILE_CHECK mask=MAY_READ fowner=61234
	measure func=BPRM_CHECK fowner=61234
	measure func=MMAP_CHECK mask=MAY_EXEC fowner=61234
	appraise func=FILE_CHECK fowner=61235
END

for options in '' verify=digest; do
	directory=$CASE_DIR/mnt-${options:-plain}
	mount_image "$source" "$directory" "$options"
	cat "$directory/measured" "$directory/empty" >/dev/null
	"$directory/program"
	while read -r sum name; do
		# An empty file has nothing to measure: IMA gives it a digest of its own kind, or this one.
		grep -F " $directory/$name" "$measurements" | grep -qF "sha256:$sum" ||
			fail "IMA has measured $name otherwise: $(grep -F " $directory/$name" \
			"$measurements"), should be $sum"
	done <<<"$digests"

	# ext4 is what it should be like.
	for where in src "$directory"; do
		for name in right wrong without; do
			if cat "$where/$name" >/dev/null 2>said; then answer=allowed; else answer=$(<said); fi
			case $where-$name-$answer in
			*-right-allowed | *-wrong-*"Permission denied" | *-without-*"Permission denied") ;;
			*) fail "IMA appraises $where/$name: $answer" ;;
			esac
		done
	done
	assert_eq "$(getfattr -n security.ima -e hex --only-values "$directory/right" | od -An -tx1 |
		tr -d ' \n')" \
		"0404$(grep -oE '^[0-9a-f]*' <<<"$(sha256sum <"$directory/right")")" "security.ima"
	assert_eq "$(getfattr -n security.selinux --only-values "$directory/program")" \
		system_u:object_r:bin_t:s0
	assert_eq "$(getfattr -n security.SMACK64 --only-values "$directory/program")" _
	unmount_image "$directory"
done
