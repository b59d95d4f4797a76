package pqc

import (
	"io"
	_ "unsafe" // for go:linkname

	"github.com/cloudflare/circl/sign/mldsa/mldsa44"
	"github.com/cloudflare/circl/sign/mldsa/mldsa65"
	"github.com/cloudflare/circl/sign/mldsa/mldsa87"
	"github.com/cloudflare/circl/sign/slhdsa"
)

// The functions that the standards call internal: FIPS 204 algorithms 7 and 8, FIPS
// 205 algorithms 19 and 20. HashML-DSA, and HashSLH-DSA of a digest that is given, are
// made of them, and the library exports them in no other way: what it exports puts the
// prefix of a message that is signed whole before what it gets. The version of the
// library is fixed by go.sum; one that has other functions does not link, and the
// vectors of NIST find one that does something else.

//go:linkname signInternal44 github.com/cloudflare/circl/sign/mldsa/mldsa44/internal.SignTo
func signInternal44(k *mldsa44.PrivateKey, message func(io.Writer), random [32]byte, signature []byte)

//go:linkname signInternal65 github.com/cloudflare/circl/sign/mldsa/mldsa65/internal.SignTo
func signInternal65(k *mldsa65.PrivateKey, message func(io.Writer), random [32]byte, signature []byte)

//go:linkname signInternal87 github.com/cloudflare/circl/sign/mldsa/mldsa87/internal.SignTo
func signInternal87(k *mldsa87.PrivateKey, message func(io.Writer), random [32]byte, signature []byte)

//go:linkname verifyInternal44 github.com/cloudflare/circl/sign/mldsa/mldsa44/internal.Verify
func verifyInternal44(k *mldsa44.PublicKey, message func(io.Writer), signature []byte) bool

//go:linkname verifyInternal65 github.com/cloudflare/circl/sign/mldsa/mldsa65/internal.Verify
func verifyInternal65(k *mldsa65.PublicKey, message func(io.Writer), signature []byte) bool

//go:linkname verifyInternal87 github.com/cloudflare/circl/sign/mldsa/mldsa87/internal.Verify
func verifyInternal87(k *mldsa87.PublicKey, message func(io.Writer), signature []byte) bool

//go:linkname signInternalSLH github.com/cloudflare/circl/sign/slhdsa.slhSignInternal
func signInternalSLH(k *slhdsa.PrivateKey, message, random []byte) ([]byte, error)

//go:linkname verifyInternalSLH github.com/cloudflare/circl/sign/slhdsa.slhVerifyInternal
func verifyInternalSLH(k *slhdsa.PublicKey, message, signature []byte) bool
