// Package integration drives the built p11fs binary, as its own process, with
// the programs that people use: shells, cat, cp, openssl, python3, pkcs11-tool
// and the stock openCryptoki 3.8.1 library.
//
// The binary is built once per test run, with the race detector when the tests
// have it. Everything happens in temporary directories: the system's own
// /p11, /etc/opencryptoki and /var/lib/opencryptoki are never touched, and
// stock programs run in private namespaces. A run that leaves a mount, a
// process, a descriptor or a segment behind fails. Programs of a big-endian machine
// run under qemu, where make test-s390x has fetched them.
//
// A POSIX session is what p11fs takes for one application, so the tests act
// through terminals: shells that each lead a session of their own.
package integration
