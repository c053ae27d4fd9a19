# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck disable=SC2154 # mount_image sets mnt
#
# apt and dpkg install, upgrade and remove packages in an overlay over an image, and the lower layer
# stays as it was.
#
# needs: sample
# timeout: 240
# klog-allow: overlayfs:

mount_image /payload/store:debian
mkdir -p upper work root
mount -t overlay -o "lowerdir=$mnt,upperdir=upper,workdir=work" overlay root
in_root() { chroot root env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
	DEBIAN_FRONTEND=noninteractive "$@"; }
package() { # VERSION
	mkdir -p "root/tmp/p/DEBIAN" root/tmp/p/usr/share/hello root/tmp/p/etc
	echo "version $1" >root/tmp/p/usr/share/hello/greeting
	echo "setting=1" >root/tmp/p/etc/hello.conf
	printf '%s\n' 'Package: hello-puzzle' "Version: $1" 'Architecture: all' \
		'Maintainer: nobody <nobody@example.org>' 'Description: greets' >root/tmp/p/DEBIAN/control
	echo /etc/hello.conf >root/tmp/p/DEBIAN/conffiles
	printf '#!/bin/sh\nset -e\necho configured >/usr/share/hello/state\n' >root/tmp/p/DEBIAN/postinst
	printf '#!/bin/sh\nset -e\nrm -f /usr/share/hello/state\n' >root/tmp/p/DEBIAN/prerm
	chmod 755 root/tmp/p/DEBIAN/p*
	in_root dpkg-deb --root-owner-group -b /tmp/p "/tmp/hello_$1.deb" >/dev/null
}
package 1
package 2
in_root apt-get -y install /tmp/hello_1.deb >log 2>&1 || fail "apt-get install: $(tail -3 log)"
assert_eq "$(cat root/usr/share/hello/greeting root/usr/share/hello/state)" "version 1"$'\n'configured
in_root dpkg -i /tmp/hello_2.deb >log 2>&1 || fail "dpkg -i: $(tail -3 log)"
assert_eq "$(cat root/usr/share/hello/greeting)" "version 2"
# A package of the image itself goes, with what it brought.
in_root dpkg -r --force-depends iputils-ping >log 2>&1 || fail "dpkg -r: $(tail -3 log)"
[[ ! -e root/usr/bin/ping && -e $mnt/usr/bin/ping ]] || fail "ping is in the wrong places"
in_root apt-get -y purge hello-puzzle >log 2>&1 || fail "apt-get purge: $(tail -3 log)"
[[ ! -e root/usr/share/hello && ! -e root/etc/hello.conf ]] || fail "the package left something"
assert_eq "$(in_root dpkg --verify 2>&1)" "" "dpkg --verify"
in_root apt-get check >log 2>&1 || fail "apt-get check: $(tail -3 log)"
umount root
