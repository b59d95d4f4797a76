// Package libcard has two C libraries with the interfaces of the host libraries of IBM Z's
// cards, libep11.so in EP11 mode and libcsulcca.so in CCA mode, whose calls go over a socket to
// p11fs card serve. So stock openCryptoki, and any program that calls m_… or CSN… itself, runs
// over software cards. It is in
// src; what is the same in libp11fs.so is that one's. This package has its tests.
package libcard
