// Package hostlib answers calls of cards by a vendor's host library, libep11.so or
// libcsulcca.so, which it loads into this process: that should have no keys of anybody's in
// it. The arguments in C of the functions are made from tokens/card's table.
//
// What a function sees of a call is one piece of memory, in which each value stands between
// guards. Nothing that came from a program is an address: parameters that are not taken
// apart, and attributes that hold others, are refused. What comes back is measured before it
// is believed, and a library that has written past a value is never called again.
package hostlib
