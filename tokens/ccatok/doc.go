// Package ccatok is the kind of token whose keys a card in CCA mode has, as openCryptoki's
// CCA token: objects are in a token directory, and of a key they have a key token that is
// encrypted under a master key of the card (tokens/card/cca), in CKA_IBM_OPAQUE.
//
// What needs a secret or private key is done by the card's verbs, but for paddings around
// RSA and CBC; digests, and what public keys do, are done here. A public object has the
// public key's token: stock gives it the private one, with which whoever sees the object
// can sign.
//
// A card that does not answer leaves the token where it is: objects are listed, and what
// needs the card gives CKR_DEVICE_REMOVED.
package ccatok
