# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash disable=SC2154 # mount_image sets mnt
#
# File capabilities and set-uid, set-gid bits: shown, in effect, and out of effect with nosuid.
# The sticky bit and modes without any.
#
# formats: 3 4
# timeout: 60

mkdir src
cp "$(readlink -f "$(command -v id)")" src/id-setuid
cp src/id-setuid src/id-setgid
cp src/id-setuid src/id-plain
chown 4321:8765 src/id-setuid src/id-setgid
chmod 4755 src/id-setuid
chmod 2755 src/id-setgid
cp "$(readlink -f "$(command -v grep)")" src/grep-capable
setcap cap_net_raw,cap_dac_override+ep src/grep-capable
cp "$(readlink -f "$(command -v grep)")" src/grep-plain
mkdir -m 1777 src/sticky
mkdir -m 2750 src/setgid-directory
touch src/nobody && chmod 0 src/nobody
touch src/all && chmod 7777 src/all

source=$(build_image src)
mount_image "$source" "" suid
modes() { (cd "$1" && find . -mindepth 1 -printf '%p %m %U:%G\n' | sort); }
diff <(modes src) <(modes "$mnt") || fail "modes differ, as shown"
assert_eq "$(cd "$mnt" && getcap -r .)" "$(cd src && getcap -r .)" "capabilities"
assert_match "$(getcap "$mnt/grep-capable")" \
	'cap_dac_override,cap_net_raw=ep|cap_net_raw,cap_dac_override=ep' "getcap"

nobody() { setpriv --reuid 65534 --regid 65534 --clear-groups -- "$@"; }
bounding() { nobody "$1" CapEff /proc/self/status; }
assert_eq "$(nobody "$mnt/id-plain" -u)" 65534 "the user of a plain program"
assert_eq "$(nobody "$mnt/id-setuid" -u)" 4321 "the user of a set-uid program"
assert_eq "$(nobody "$mnt/id-setuid" -ru)" 65534 "its real user"
assert_eq "$(nobody "$mnt/id-setgid" -g)" 8765 "the group of a set-gid program"
# CAP_DAC_OVERRIDE is bit 1, CAP_NET_RAW bit 13.
assert_eq "$(bounding "$mnt/grep-capable")" "$(printf 'CapEff:\t%016x' $((1 << 1 | 1 << 13)))" \
	"the capabilities in effect"
assert_eq "$(bounding "$mnt/grep-plain")" "$(printf 'CapEff:\t%016x' 0)" "those of a plain program"

unmount_image
mount_image "$source" "" nosuid
assert_eq "$(nobody "$mnt/id-setuid" -u)" 65534 "the user of a set-uid program under nosuid"
assert_eq "$(nobody "$mnt/id-setgid" -g)" 65534 "the group of a set-gid program under nosuid"
assert_eq "$(bounding "$mnt/grep-capable")" "$(printf 'CapEff:\t%016x' 0)" "the capabilities under nosuid"
assert_eq "$(stat -c %a "$mnt/id-setuid")" 4755 "the mode is shown under nosuid, too"
