// Package icsffile has the files of stock openCryptoki's icsf token, byte for byte: the
// configuration of a slot's token, which pkcsicsf writes and confname names, and in the token
// directory the master key under the PINs, the server's password under the master key, and
// what follows the token's data in NVTOK.DAT.
//
// A directory is of use on machines of one byte order, which the numbers in it have.
package icsffile
