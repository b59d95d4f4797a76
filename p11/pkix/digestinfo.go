package pkix

import (
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"p11fs/p11"
)

// DigestInfoPrefix is the DER of a DigestInfo up to the digest itself (RFC 8017
// §9.2, note 1).
func DigestInfoPrefix(h p11.Hash) []byte {
	digest := make([]byte, h.Size)
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		addAlgorithm(b, algorithm{h.OID, null()})
		b.AddASN1OctetString(digest)
	})
	info := b.BytesOrPanic() // the table's object identifiers are
	return info[:len(info)-len(digest)]
}
