# SPDX-License-Identifier: MIT OR Apache-2.0
# The Debian packages: they install, mount an image by a line in fstab, and leave nothing when purged.
# boot: own
# kernel: distribution
# needs: packages
# timeout: 180

# All that there is on the root filesystem, but for what dpkg and depmod keep for themselves. (What is mounted
# on /run has a size that tells of entries: mount(8) makes one.)
files() {
	find / -xdev -path /run -prune -o -not -path '/var/lib/dpkg/*' -not -path '/var/log/*' \
		-not -path '/tmp/*' -not -path '*/modules.*' -printf '%p %y %m %s\n' | sort
}
# The guest's own are out of the way.
rmmod puzzlefs
for tool in puzzlefs mount.puzzlefs puzzlefs-snapshotter; do
	while type -P "$tool" >/dev/null; do rm "$(type -P "$tool")"; hash -r; done
done
rm -f /sbin/mount.puzzlefs
# depmod reads every module, and the processor is emulated.
rm -r /usr/lib/modules/"$(uname -r)"/kernel/{drivers,net,sound}
files >before
mkdir src mnt
echo contents >src/file

# The guest's kernel was not installed as a package.
dpkg -i --force-depends /payload/deb/puzzlefs-{tools,modules,snapshotter}*.deb >log 2>&1 ||
	fail "dpkg: $(tail -3 log)"
# (dpkg also knows of those that these conflict with.)
installed() { dpkg-query -Wf '${db:Status-Abbrev}${Package}\n' 'puzzlefs-*' | sed -n 's/^ii *//p'; }
assert_eq "$(installed | paste -sd' ')" "puzzlefs-modules-$(uname -r) puzzlefs-snapshotter puzzlefs-tools" \
	'the packages that are installed'
assert_match "$(modinfo -n puzzlefs)" '/updates/puzzlefs.ko$' 'the module that is found'
hash -r
puzzlefs build -q src "$CASE_DIR/store:image"
echo "$CASE_DIR/store:image $CASE_DIR/mnt puzzlefs nofail 0 0" >fstab
# The module comes by its alias.
mount -T fstab -a
assert_same src/file mnt/file
# The line is known again.
mount -T fstab -a
assert_eq "$(grep -c " $CASE_DIR/mnt puzzlefs " /proc/mounts)" 1 'how often the image is mounted'
assert_match "$(grep '^puzzlefs ' /proc/modules)" Live 'the module'
umount mnt
for file in /usr/share/man/man1/puzzlefs-{build,snapshotter}.1.gz /usr/share/man/man8/mount.puzzlefs.8.gz \
	/usr/share/doc/puzzlefs-tools/puzzlefs.rst.gz /usr/share/bash-completion/completions/puzzlefs; do
	[[ -s $file ]] || fail "no $file"
done
assert_eq "$(dpkg --verify puzzlefs-tools puzzlefs-snapshotter)" '' 'dpkg --verify'
for unit in puzzlefs-snapshotter puzzlefs-fetchd; do
	[[ -L /etc/systemd/system/multi-user.target.wants/$unit.service ]] || fail "$unit is not enabled"
	systemd-analyze verify --man=no --recursive-errors=no "/usr/lib/systemd/system/$unit.service"
done
# As if it had run.
mkdir -p /var/lib/puzzlefs-snapshotter/snapshots/1/fs /run/puzzlefs-snapshotter/images/x
mount -t tmpfs image /run/puzzlefs-snapshotter/images/x

# Once more over what is there, as an upgrade is; then they go.
dpkg -i --force-depends /payload/deb/puzzlefs-{tools,modules,snapshotter}*.deb >log 2>&1 ||
	fail "dpkg, again: $(tail -3 log)"
modprobe -r puzzlefs
mapfile -t packages < <(installed)
dpkg --purge "${packages[@]}" >log 2>&1 || fail "dpkg --purge: $(tail -3 log)"
expect_failure modprobe puzzlefs >/dev/null
[[ ! -e /run/puzzlefs-snapshotter ]] || fail 'what the snapshotter has mounted is left'
files | diff before - || fail 'files are left, or gone'
