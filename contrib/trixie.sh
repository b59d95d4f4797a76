#!/bin/sh
# Makes DIR a small machine to chroot into, of Debian 13: stock openCryptoki 3.23, OpenSC,
# openssl(1) with its libcrypto, and Python, with the loader and the libraries that they
# need.
#
#	trixie.sh DIR
set -eu
dir=${1:?usage: trixie.sh DIR}
export DEBIAN_MIRROR=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
[ "$(id -u)" = 0 ] || { echo "trixie: only root can use it" >&2; exit 1; }
# What the machine is made of: packages, and how it is made (to be made anew when either changes).
made_by=$(cat "$0" "$(dirname "$0")/unpack.sh"; echo "$DEBIAN_MIRROR")
[ "$(cat "$dir/made-by" 2> /dev/null)" != "$made_by" ] || exit 0

sh "$(dirname "$0")/unpack.sh" "$dir" trixie "$(dpkg --print-architecture)" opencryptoki opensc busybox-static openssl python3-minimal libpython3-stdlib
for link in bin sbin lib lib64; do # which come with base-files, that nothing asks for
	ln -sfn usr/$link "$dir/$link"
done
for program in sh rm; do # the stock library runs them when it initialises a token
	ln -sf busybox "$dir/bin/$program"
done
echo 'root:x:0:0:root:/:/bin/sh
pkcsslotd:x:997:998::/:/bin/sh' > "$dir/etc/passwd"
printf '%s\n' root:x:0: pkcs11:x:998:root,pkcsslotd > "$dir/etc/group"
chgrp 998 "$dir/etc/opencryptoki/strength.conf"
chmod 0640 "$dir/etc/opencryptoki/strength.conf" # or the library refuses everything
mkdir -p "$dir/proc" "$dir/dev" "$dir/run" "$dir/tmp" "$dir/etc/opencryptoki" "$dir/var/lib/opencryptoki" "$dir/var/log/opencryptoki"
rm -rf "$dir/var/run" "$dir/var/lock"
ln -s /run "$dir/var/run"
ln -s /run/lock "$dir/var/lock"
printf '%s\n' "$made_by" > "$dir/made-by"
