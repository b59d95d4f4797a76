#!/bin/sh
# Runs each fuzz target of the module for a while: fuzz.sh [TIME]
set -eu
time=${1:-10s}
status=0
for package in $(go list ./...); do
	for target in $(go test -list '^Fuzz' "$package" | grep '^Fuzz' || :); do
		echo "fuzz: $package $target"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "$package" || status=1
	done
done
exit $status
