#!/bin/sh
# Makes DIR a folder of Debian packages, and of all that they need, of one release.
#
#	unpack.sh DIR RELEASE ARCHITECTURE PACKAGE...
#
# The packages are fetched with an APT configuration of their own. Neither dpkg nor
# what it has installed is touched, and nothing of the packages is run.
set -eu
dir=$1 release=$2 architecture=$3
shift 3
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}

say() { echo "unpack: $*" >&2; }

command -v apt-get > /dev/null || { say "only apt-get can fetch Debian's packages"; exit 1; }
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -e $keyring ] || { say "$keyring is missing: apt-get install debian-archive-keyring"; exit 1; }

rm -rf "$dir"
mkdir -p "$dir"
apt=$(mktemp -d)
trap 'rm -rf "$apt"' EXIT
mkdir -p "$apt/state/lists/partial" "$apt/cache/archives/partial"
: > "$apt/status"
echo "deb [signed-by=$keyring] $mirror $release main" > "$apt/sources.list"
cat > "$apt/conf" << END
Dir::State "$apt/state";
Dir::State::status "$apt/status";
Dir::Cache "$apt/cache";
Dir::Log "$apt";
Dir::Etc::SourceList "$apt/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
APT::Architecture "$architecture";
APT::Architectures { "$architecture"; "$(dpkg --print-architecture)"; };
APT::Install-Recommends "false";
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::Retries "3";
Acquire::http::Timeout "20";
END
export APT_CONFIG="$apt/conf"
say "fetching $* of $release for $architecture into $dir"
apt-get update -q > "$apt/log" 2>&1 &&
	apt-get install -q -y --download-only "$@" >> "$apt/log" 2>&1 || {
	cat "$apt/log" >&2
	say "the packages could not be fetched from $mirror"
	exit 1
}
for package in "$apt"/cache/archives/*.deb; do
	dpkg-deb -x "$package" "$dir"
done
