// Package softcca is a software card in IBM's CCA mode: a domain with master keys, and the
// verbs that openCryptoki's token and the token kind ccatok call (cca.Card).
//
// It is for developing and testing programs: it keeps nothing from root, nothing of it is
// certified, and its key tokens are none of a real card. Their layout is that of the cards
// as far as programs look; how a key is wrapped is not, since that binds keys to a secret
// of this card. From a master key and what a token is come by HKDF the keys that wrap it:
//
//	DES    24 bytes, CBC with 3DES; the first bytes of an HMAC over all else are the
//	       validation value, which on a card everybody can compute
//	AES    32 bytes, CBC with AES, likewise
//	HMAC, RSA, EC   AES-GCM with a random nonce, over all else as additional data
//
// The cryptography with opened keys is swtok's, of objects that are made for one call.
package softcca
