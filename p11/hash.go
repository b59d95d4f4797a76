package p11

// HashSize returns the length in bytes of a digest mechanism's digest, and 0
// for a mechanism that is no digest.
func HashSize(hash MechanismType) uint64 {
	switch hash {
	case CKM_MD2, CKM_MD5, CKM_RIPEMD128:
		return 16
	case CKM_SHA_1, CKM_RIPEMD160, CKM_BLAKE2B_160:
		return 20
	case CKM_SHA224, CKM_SHA512_224, CKM_SHA3_224, CKM_IBM_SHA3_224:
		return 28
	case CKM_SHA256, CKM_SHA512_256, CKM_SHA3_256, CKM_BLAKE2B_256, CKM_IBM_SHA3_256, CKM_GOSTR3411:
		return 32
	case CKM_SHA384, CKM_SHA3_384, CKM_BLAKE2B_384, CKM_IBM_SHA3_384:
		return 48
	case CKM_SHA512, CKM_SHA3_512, CKM_BLAKE2B_512, CKM_IBM_SHA3_512:
		return 64
	}
	return 0
}

// MGFOf returns the mask generation function MGF1 over a digest, and 0 if there
// is none.
func MGFOf(hash MechanismType) MGF {
	switch hash {
	case CKM_SHA_1:
		return CKG_MGF1_SHA1
	case CKM_SHA224:
		return CKG_MGF1_SHA224
	case CKM_SHA256:
		return CKG_MGF1_SHA256
	case CKM_SHA384:
		return CKG_MGF1_SHA384
	case CKM_SHA512:
		return CKG_MGF1_SHA512
	case CKM_SHA3_224:
		return CKG_MGF1_SHA3_224
	case CKM_SHA3_256:
		return CKG_MGF1_SHA3_256
	case CKM_SHA3_384:
		return CKG_MGF1_SHA3_384
	case CKM_SHA3_512:
		return CKG_MGF1_SHA3_512
	}
	return 0
}

// HashOf returns the digest that a mask generation function uses, and 0 if it
// is not known.
func (v MGF) HashOf() MechanismType {
	switch v {
	case CKG_MGF1_SHA1:
		return CKM_SHA_1
	case CKG_MGF1_SHA224:
		return CKM_SHA224
	case CKG_MGF1_SHA256:
		return CKM_SHA256
	case CKG_MGF1_SHA384:
		return CKM_SHA384
	case CKG_MGF1_SHA512:
		return CKM_SHA512
	case CKG_MGF1_SHA3_224:
		return CKM_SHA3_224
	case CKG_MGF1_SHA3_256:
		return CKM_SHA3_256
	case CKG_MGF1_SHA3_384:
		return CKM_SHA3_384
	case CKG_MGF1_SHA3_512:
		return CKM_SHA3_512
	}
	return 0
}
