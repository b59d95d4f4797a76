// Package format says what the bytes of an openCryptoki token directory mean:
// the token's data (NVTOK.DAT), how its master key is kept under the two PINs
// (MK_SO, MK_USER), the object files, their names and the index that lists them
// (OBJ.IDX). It reads and writes no files and knows no directory; package store
// does.
//
// V38 is the format of openCryptoki 3.8. Its numbers are in the byte order of the
// machine that made the directory, and NVTOK.DAT shows which one that is. In
// memory a CK_ULONG attribute is as package p11 has it, whatever the directory's
// order.
//
// The cryptography of that format (3DES under MD5 and SHA-1, fixed
// initialisation vectors) protects little against who can read the directory.
package format
