// Package lite is the token of a mainframe whose keys are in the clear, as stock
// openCryptoki's ICA token: a token directory of its own kind, the cryptography of the
// software token, and a list of mechanisms in stock's order that says what the CPU does.
//
// Go's library and libcrypto use the instructions of the CPU themselves, so there is
// nothing to load for them. RSA on accelerator cards is libica's: package libica.
package lite
