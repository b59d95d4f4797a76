// Package libp11fs holds the PKCS#11 module that programs load, libp11fs.so: a
// library in C under src, this package's tests of it, and what makes the tables that
// tie it to the rest (gen), those of mountd/rpc/wire too.
//
// The module marshals calls and nothing else. It holds no key and no rule of
// PKCS#11 but those on arguments and buffers; what it sends and what comes back
// stands in docs/rpc.md. It starts no thread, installs no signal handler and
// prints nothing, since it is a guest in the program that loads it.
//
// build.mk builds it; "make libp11fs" at the top does the same.
package libp11fs

//go:generate go run ./gen
