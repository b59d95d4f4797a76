package pkix

import (
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"p11fs/p11"
)

// An ECDSA signature is two numbers, r and s. PKCS#11 v3.1 §6.3.1 puts them side
// by side, each as long as the order of the curve; everyone else writes the
// Ecdsa-Sig-Value of RFC 3279 §2.2.3, a DER SEQUENCE of two INTEGERs.

// maxECDSA is the longest raw signature taken, in bytes: that of P-521 is 132.
const maxECDSA = 256

// ECDSARawToDER converts a signature from the form of PKCS#11. It returns
// CKR_SIGNATURE_LEN_RANGE for a length that no curve has.
func ECDSARawToDER(sig []byte) ([]byte, error) {
	if len(sig) == 0 || len(sig)%2 != 0 || len(sig) > maxECDSA {
		return nil, p11.Errorf(p11.CKR_SIGNATURE_LEN_RANGE, "an ECDSA signature of %d bytes", len(sig))
	}
	half := len(sig) / 2
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1BigInt(new(big.Int).SetBytes(sig[:half]))
		b.AddASN1BigInt(new(big.Int).SetBytes(sig[half:]))
	})
	return b.BytesOrPanic(), nil // two short integers always fit
}

// ECDSADERToRaw converts a DER signature to the form of PKCS#11, size bytes
// long in all. It returns CKR_SIGNATURE_INVALID for what is not strictly DER or
// has bytes left over, and CKR_SIGNATURE_LEN_RANGE for numbers that do not fit.
func ECDSADERToRaw(sig []byte, size int) ([]byte, error) {
	if size <= 0 || size%2 != 0 || size > maxECDSA {
		return nil, p11.Errorf(p11.CKR_SIGNATURE_LEN_RANGE, "an ECDSA signature of %d bytes", size)
	}
	var seq cryptobyte.String
	var r, s big.Int
	in := cryptobyte.String(sig)
	if len(sig) > 2*maxECDSA || !in.ReadASN1(&seq, asn1.SEQUENCE) || !in.Empty() ||
		!seq.ReadASN1Integer(&r) || !seq.ReadASN1Integer(&s) || !seq.Empty() {
		return nil, p11.Errorf(p11.CKR_SIGNATURE_INVALID, "the ECDSA signature is not a DER sequence of two numbers")
	}
	half := size / 2
	if r.Sign() < 0 || s.Sign() < 0 || r.BitLen() > 8*half || s.BitLen() > 8*half {
		return nil, p11.Errorf(p11.CKR_SIGNATURE_LEN_RANGE, "the ECDSA signature is from a longer key")
	}
	raw := make([]byte, size)
	r.FillBytes(raw[:half])
	s.FillBytes(raw[half:])
	return raw, nil
}

// DERSignatureLen returns how long the DER signature is that begins with prefix,
// so that it can be cut from the data that follows. Three bytes of prefix always
// suffice. ok is false for what does not begin a DER signature, and for a prefix
// too short to tell.
func DERSignatureLen(prefix []byte) (n int, ok bool) {
	if len(prefix) < 2 || prefix[0] != 0x30 {
		return 0, false
	}
	switch l := prefix[1]; {
	case l < 0x80:
		n = 2 + int(l)
	case l == 0x81 && len(prefix) > 2 && prefix[2] >= 0x80:
		n = 3 + int(prefix[2])
	default:
		return 0, false
	}
	return n, n >= 8 // two INTEGERs of one byte each
}
