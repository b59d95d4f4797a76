package pqc

// SecretSize is the length in bytes of the secrets of ML-KEM (FIPS 203 §8).
const SecretSize = 32

// Encapsulate makes a secret and its ciphertext for the owner of the key (FIPS 203
// algorithm 20), with random numbers of the system's.
func (k *PublicKey) Encapsulate() (ciphertext, shared []byte, err error) {
	key, err := k.kem.UnmarshalBinaryPublicKey(k.value)
	if err != nil {
		return nil, nil, err
	}
	return k.kem.Encapsulate(key)
}

// Decapsulate returns the secret in a ciphertext of CiphertextSize bytes. One that
// nobody made for this key gives a secret that nobody else has (FIPS 203 algorithm 21).
func (k *PrivateKey) Decapsulate(ciphertext []byte) ([]byte, error) {
	if len(ciphertext) != k.CiphertextSize {
		return nil, k.wrongSize("ciphertext", len(ciphertext), k.CiphertextSize)
	}
	key, err := k.kem.UnmarshalBinaryPrivateKey(k.value)
	if err != nil {
		return nil, err
	}
	return k.kem.Decapsulate(key, ciphertext)
}
