// Package tpm20 works with a TPM 2.0 (TCG, Trusted Platform Module Library, Family 2.0):
// keys that are made in it and never leave it, keys that are imported, and a secret that
// is sealed under a PIN. It knows no PKCS#11 objects and no token directories; package tpm
// does.
//
// A Chip is one TPM. One goroutine talks to it, since it does one thing at a time, and
// whoever waits for that can be interrupted. While nobody has used it for a second it
// holds nothing of the TPM, not even the connection: others want it too. A TPM that is
// away comes back with the next call.
//
// Keys hang below a storage key (Parent), and have random authorisations that never hold
// a zero byte: go-tpm cuts one at its first zero. Authorisations and secrets travel in
// HMAC sessions that are salted with the storage key and encrypt parameters, so that who
// listens on the bus learns nothing. No session outlives a burst of calls, or a second of one: a TPM has few,
// and one that is old keeps others from starting theirs.
package tpm20
