#!/bin/sh
# Makes DIR a small s390x machine to chroot into: stock openCryptoki and OpenSC of
# Debian 12, and qemu as /qemu, which runs them.
#
#	s390x.sh DIR
#
# The packages are fetched with an APT configuration of their own. Neither dpkg nor
# what it has installed is touched, and nothing of the packages is run.
set -eu
dir=${1:?usage: s390x.sh DIR}
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
# What the machine is made of: packages, and how it is made (to be made anew when either changes).
made_by=$(cat "$0"; echo "$mirror")
[ "$(cat "$dir/made-by" 2> /dev/null)" != "$made_by" ] || exit 0

say() { echo "s390x: $*" >&2; }

qemu=$(command -v qemu-s390x-static) || { say "qemu-s390x-static is missing"; exit 1; }
command -v apt-get > /dev/null || { say "only apt-get can fetch Debian's packages"; exit 1; }
native=$(dpkg --print-architecture)
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -e $keyring ] || { say "$keyring is missing: apt-get install debian-archive-keyring"; exit 1; }

rm -rf "$dir"
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
apt=$(mktemp -d)
trap 'rm -rf "$apt"' EXIT
mkdir -p "$apt/state/lists/partial" "$apt/cache/archives/partial"
: > "$apt/status"
echo "deb [signed-by=$keyring] $mirror bookworm main" > "$apt/sources.list"
cat > "$apt/conf" << END
Dir::State "$apt/state";
Dir::State::status "$apt/status";
Dir::Cache "$apt/cache";
Dir::Log "$apt";
Dir::Etc::SourceList "$apt/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
APT::Architecture "s390x";
APT::Architectures { "s390x"; "$native"; };
APT::Install-Recommends "false";
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::Retries "3";
END
export APT_CONFIG="$apt/conf"
say "fetching stock s390x programs into $dir"
apt-get update -q > "$apt/log" 2>&1 &&
	# The stock library runs a shell when it initialises a token, and qemu hands
	# that to the kernel, which runs no s390x program: it gets one of this machine's.
	apt-get install -q -y --download-only opencryptoki opensc "busybox-static:$native" >> "$apt/log" 2>&1 || {
	cat "$apt/log" >&2
	say "the packages could not be fetched from $mirror"
	exit 1
}
for package in "$apt"/cache/archives/*.deb; do
	dpkg-deb -x "$package" "$dir"
done
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
