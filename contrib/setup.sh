#!/bin/sh
# Makes this machine ready for p11fs: setup.sh run | test | s390x | bench
#
# As root it installs what is missing from contrib/packages.txt, without starting
# the services among it, and opens /dev/fuse to all users. An ordinary user is told the line that root has to
# type; "run" then fails, and the others go on, since tests say what they miss.
# Go it only looks for.
set -eu
cd "$(dirname "$0")"
purpose=${1:?usage: setup.sh run|test|s390x|bench}
wrong=0

say() { echo "setup: $*" >&2; }

missing=
while read -r group package file; do
	case $group in
	run) ;;
	test) [ "$purpose" != run ] || continue ;;
	s390x | bench) [ "$purpose" = "$group" ] || continue ;;
	*) continue ;;
	esac
	# The file may be a pattern, since some directories are named by machine.
	# shellcheck disable=SC2086
	set -- $file
	[ -e "$1" ] && continue
	case "$missing " in
	*" $package "*) ;;
	*) missing="$missing $package" ;;
	esac
done < packages.txt

if [ -n "$missing" ]; then
	if [ "$(id -u)" != 0 ]; then
		say "these packages are missing:$missing. As root: apt-get install -y$missing"
		wrong=1
	elif command -v apt-get > /dev/null; then
		say "installing$missing"
		export DEBIAN_FRONTEND=noninteractive
		# Servers that are only wanted for tests must not start on this machine.
		policy=/usr/sbin/policy-rc.d
		if [ ! -e $policy ]; then
			trap 'rm -f $policy' EXIT
			printf '#!/bin/sh\nexit 101\n' > $policy && chmod 755 $policy
		fi
		# shellcheck disable=SC2086 # a list of words
		install() {
			# A module for p11-kit's own list would be in the way of all its programs here.
			apt-get -o DPkg::Lock::Timeout=120 -o DPkg::Options::=--path-exclude=/usr/share/p11-kit/modules/tpm2_pkcs11.module \
				install -y -q --no-install-recommends $missing > /dev/null
		}
		install 2> /dev/null || { apt-get update -q > /dev/null && install; } ||
			{ say "apt-get could not install$missing"; wrong=1; }
	else
		say "these packages are missing, and this system has no apt-get:$missing"
		wrong=1
	fi
fi

if [ ! -e /dev/fuse ] && [ "$(id -u)" = 0 ]; then
	modprobe fuse 2> /dev/null || say "the kernel module fuse could not be loaded"
	[ -e /dev/fuse ] || mknod /dev/fuse c 10 229 || say "/dev/fuse could not be made"
fi
if [ ! -e /dev/fuse ]; then
	say "/dev/fuse is missing. As root: modprobe fuse (in a container: run it with --device /dev/fuse)"
	wrong=1
elif [ "$(id -u)" = 0 ]; then
	# 0666 is what udev gives it: mounting is fusermount3's to permit.
	case $(stat -c %a /dev/fuse) in
	*[67][67][67]) ;;
	*) chmod 0666 /dev/fuse && say "opened /dev/fuse to all users, as udev does" ;;
	esac
elif [ ! -r /dev/fuse ] || [ ! -w /dev/fuse ]; then
	say "/dev/fuse is closed to you. As root: chmod 0666 /dev/fuse"
	wrong=1
fi

if ! command -v "${GO:-go}" > /dev/null; then
	if [ -x /usr/local/go/bin/go ]; then
		say "go is not in PATH. Type: PATH=\$PATH:/usr/local/go/bin"
	else
		say "go is not in PATH: install Go 1.26 from https://go.dev/doc/install"
	fi
	wrong=1
fi

[ "$purpose" != run ] || exit $wrong
