#!/bin/sh
# Runs fuzz targets for a while: fuzz.sh [TIME [PACKAGE TARGET [PROCESSES]]], or all of
# the module's. An input that fails is printed and kept in build/fuzz: go test writes
# it among the sources, where every later run of the tests would take it.
set -eu
cd "$(dirname "$0")/.."
time=${1:-10s}
processes=${4:-$(nproc)}
status=0
kept=build/fuzz
mkdir -p $kept
stamp=$(mktemp $kept/.started.XXXXXX)

# keep moves the failing inputs out of the sources.
keep() {
	find . -path ./build -prune -o -path '*/testdata/fuzz/*' -type f -newer "$stamp" -print |
		while read -r input; do
			mkdir -p "$kept/${input%/*}"
			mv "$input" "$kept/$input"
			echo "fuzz: the failing input is in $kept/${input#./}; in ${input#./} it is a test. It is:"
			cat "$kept/$input"
			rmdir -p "${input%/*}" 2> /dev/null || :
		done
	rm -f "$stamp"
}
trap keep EXIT
trap 'exit 1' INT TERM

for package in ${2:-$("${GO:-go}" list ./...)}; do
	for target in ${3:-$("${GO:-go}" test -list '^Fuzz' "$package" | grep '^Fuzz' || :)}; do
		echo "fuzz: $package $target"
		"${GO:-go}" test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 10x -parallel "$processes" "$package" || status=1
	done
done
exit $status
