// Package pqc is the post-quantum schemes of NIST: ML-DSA (FIPS 204), SLH-DSA
// (FIPS 205) and ML-KEM (FIPS 203), by their parameter sets. The arithmetic is
// that of github.com/cloudflare/circl.
//
// A [Set] makes keys and reads them from the encodings of the standards, which are
// what CKA_VALUE and CKA_SEED hold (PKCS#11 v3.2 §6.67 to §6.69). All that comes in
// is checked; of keys, that a private one is whole and which public one belongs to it.
//
// Private values are the caller's to wipe. The numbers of ML-DSA that the library makes
// of them are wiped after each use; those of the others cannot be reached.
package pqc
