package tokentest

import (
	"math/big"

	"p11fs/p11"
	"p11fs/p11/pkix"
)

// Group is a group for tests, as short as one may be that is not slow: of modp1536 for
// Diffie-Hellman, and of 1024 and 224 bits for DSA, which openssl dsaparam made.
func Group(kt p11.KeyType) pkix.Group {
	if kt == p11.CKK_DH {
		g, _ := pkix.GroupNamed("modp1536")
		return g
	}
	number := func(hex string) *big.Int {
		n, ok := new(big.Int).SetString(hex, 16)
		if !ok {
			panic("tokentest: no number: " + hex)
		}
		return n
	}
	return pkix.Group{
		P: number("87c36bdfee968911067ec8f97543446f280a24087a785f4cbd833e59c52d5ef82f0ebf8fa198af40429dd0679d37b83f" +
			"184d21a14b54be12ee5f1cc34fb7d77ce5a44fafc536a73a35b313a5f58c9cad98506a47996a88e8de4bb755a21b863f" +
			"7d0a9ae08c5adf13e4e153effa6d182d7ae7fe125cd4abb66382fed6b60a63b7"),
		Q: number("acf4ebdea4a67214881ee183be030081cebb371d73949e46903b75bb"),
		G: number("0362877a6dd49c14a039c9633aafe13ea0aa0e700e75257f988d8dda9fc70dfd9fd6a6b7d34eb760135dba5b3d60753a" +
			"b6014119a8a1e6c7bf6a46286a48de300d7de6445ab74c64fccca1ae5c856f473d099effc3c800de0131ef817c67c471" +
			"764c8758b551d93be5fbfb076298794b4c7c0bdcf0493855311ba421c3f59e32"),
	}
}
