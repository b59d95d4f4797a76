// Package libcard is a C library with the interface of the host library of IBM Z's cards in
// EP11 mode, libep11.so, whose calls go over a socket to p11fs card serve. So stock
// openCryptoki, and any program that calls m_… itself, runs over software cards. It is in
// src; what is the same in libp11fs.so is that one's. This package has its tests.
package libcard
