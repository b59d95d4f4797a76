#!/bin/sh
# Runs fuzz targets for a while: fuzz.sh [TIME [PACKAGE TARGET]], or all of the
# module's.
set -eu
time=${1:-10s}
status=0
for package in ${2:-$(go list ./...)}; do
	for target in ${3:-$(go test -list '^Fuzz' "$package" | grep '^Fuzz' || :)}; do
		echo "fuzz: $package $target"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 10x "$package" || status=1
	done
done
exit $status
