#!/bin/sh
# Makes DIR a small s390x machine to chroot into: stock openCryptoki and OpenSC of
# Debian 12, and qemu as /qemu, which runs them.
#
#	s390x.sh DIR
set -eu
dir=${1:?usage: s390x.sh DIR}
export DEBIAN_MIRROR=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
# What the machine is made of: packages, and how it is made (to be made anew when either changes).
made_by=$(cat "$0" "$(dirname "$0")/unpack.sh"; echo "$DEBIAN_MIRROR")
[ "$(cat "$dir/made-by" 2> /dev/null)" != "$made_by" ] || exit 0

qemu=$(command -v qemu-s390x-static) || { echo "s390x: qemu-s390x-static is missing" >&2; exit 1; }
# The stock library runs a shell when it initialises a token, and qemu hands
# that to the kernel, which runs no s390x program: it gets one of this machine's.
sh "$(dirname "$0")/unpack.sh" "$dir" bookworm s390x opencryptoki opensc "busybox-static:$(dpkg --print-architecture)"
cp "$qemu" "$dir/qemu"
for program in sh rm; do
	ln -sf busybox "$dir/bin/$program"
done
echo 'root:x:0:0:root:/:/bin/sh' > "$dir/etc/passwd"
printf '%s\n' root:x:0: pkcs11:x:998:root > "$dir/etc/group"
mkdir -p "$dir/proc" "$dir/dev" "$dir/run" "$dir/tmp" "$dir/etc/opencryptoki" "$dir/var/lib/opencryptoki" "$dir/var/log/opencryptoki"
rm -rf "$dir/var/run" "$dir/var/lock"
ln -s /run "$dir/var/run"
ln -s /run/lock "$dir/var/lock"
printf '%s\n' "$made_by" > "$dir/made-by"
