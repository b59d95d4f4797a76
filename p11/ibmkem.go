package p11

// A RoomGiver is the parameter of a derivation with room for what comes beside the key.
type RoomGiver interface {
	// OutRoom is how many bytes that may have. More are CKR_BUFFER_TOO_SMALL, and there is
	// no key.
	OutRoom() uint64
}

// OutRoom is the room for the ciphertext.
func (v *IBMMLKEMParams) OutRoom() uint64 { return v.Room }

// OutRoom is the room for the ciphertext.
func (v *IBMMLKEMECDHParams) OutRoom() uint64 { return v.Room }

// A Teller is the parameter of a derivation that may tell of its other keys.
type Teller interface {
	// Tells says whether the new key may tell their value. It is then as safe as they are.
	Tells() bool
}

// Tells says whether the new key may tell the value of the other key: what comes out is
// then a part of what goes in.
func (v *IBMMLKEMParams) Tells() bool {
	return v.Secret != 0 && (v.KDF == CKD_NULL || v.KDF == CKD_IBM_HYBRID_NULL)
}
