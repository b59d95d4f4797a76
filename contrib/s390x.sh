#!/bin/sh
# Makes DIR a small s390x machine to chroot into: stock openCryptoki and OpenSC of
# Debian 12, and qemu as /qemu, which runs them.
#
#	s390x.sh DIR [RELEASE...]
#
# With RELEASEs it is stock openCryptoki of the first of them that can be fetched.
set -eu
dir=${1:?usage: s390x.sh DIR [RELEASE...]}
shift
[ $# != 0 ] || set -- bookworm
export DEBIAN_MIRROR=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
# What the machine is made of: packages, and how it is made (to be made anew when either changes).
made_by=$(cat "$0" "$(dirname "$0")/unpack.sh"; echo "$DEBIAN_MIRROR $*")
[ "$(cat "$dir/made-by" 2> /dev/null)" != "$made_by" ] || exit 0

qemu=$(command -v qemu-s390x-static) || { echo "s390x: qemu-s390x-static is missing" >&2; exit 1; }
for release; do
	packages=opencryptoki
	[ "$release" != bookworm ] || packages="opencryptoki opensc"
	# The stock library runs a shell when it initialises a token, and qemu hands
	# that to the kernel, which runs no s390x program: it gets one of this machine's.
	# shellcheck disable=SC2086 # a list of words
	if sh "$(dirname "$0")/unpack.sh" "$dir" "$release" s390x $packages "busybox-static:$(dpkg --print-architecture)"; then
		break
	fi
done
[ -d "$dir/usr" ] || exit 1
cp "$qemu" "$dir/qemu"
for link in bin sbin lib; do # later releases leave them to base-files, that nothing asks for
	[ -d "$dir/$link" ] || ln -s usr/$link "$dir/$link"
done
for program in sh rm; do
	ln -sf busybox "$dir/bin/$program"
done
printf '%s\n' root:x:0:0:root:/:/bin/sh pkcsslotd:x:997:998::/:/bin/sh > "$dir/etc/passwd"
printf '%s\n' root:x:0: pkcs11:x:998:root,pkcsslotd > "$dir/etc/group"
if [ -e "$dir/etc/opencryptoki/strength.conf" ]; then # the library refuses everything if it is of another group
	chgrp 998 "$dir/etc/opencryptoki/strength.conf"
	chmod 0640 "$dir/etc/opencryptoki/strength.conf"
fi
mkdir -p "$dir/proc" "$dir/sys" "$dir/dev" "$dir/run" "$dir/tmp" "$dir/etc/opencryptoki" "$dir/var/lib/opencryptoki" "$dir/var/log/opencryptoki"
rm -rf "$dir/var/run" "$dir/var/lock"
ln -s /run "$dir/var/run"
ln -s /run/lock "$dir/var/lock"
printf '%s\n' "$made_by" > "$dir/made-by"
