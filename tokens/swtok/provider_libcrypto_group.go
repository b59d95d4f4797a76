//go:build cgo

package swtok

import (
	"context"
	"math/big"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/tokens/swtok/libcrypto"
)

func (*system) MakesGroups(p11.KeyType) bool { return true }

func (p *system) GenerateGroup(ctx context.Context, kt p11.KeyType, bits, subprime int) (pkix.Group, error) {
	kind, params := "DH", []libcrypto.Param{libcrypto.Number("pbits", uint64(bits))}
	if kt == p11.CKK_DSA {
		kind, params = "DSA", append(params, libcrypto.Number("qbits", uint64(subprime)))
	}
	k, err := p.lib.GenerateParametersUntil(ctx, kind, params...)
	if err != nil {
		return pkix.Group{}, err
	}
	data, err := k.Data(libcrypto.Parameters)
	if err != nil {
		return pkix.Group{}, err
	}
	g := pkix.Group{P: new(big.Int).SetBytes(data["p"]), G: new(big.Int).SetBytes(data["g"])}
	if kt == p11.CKK_DSA {
		g.Q = new(big.Int).SetBytes(data["q"])
	}
	return g, nil
}

// groupParams are the parameters of a group.
func groupParams(g pkix.Group, more ...libcrypto.Param) []libcrypto.Param {
	params := append(more, libcrypto.Int("p", g.P), libcrypto.Int("g", g.G))
	if g.Q != nil {
		params = append(params, libcrypto.Int("q", g.Q))
	}
	return params
}

func (p *system) NewDHPrivateKey(g pkix.Group, private *big.Int) (DHPrivateKey, error) {
	// libcrypto wants the public value, too, of which agreement makes nothing.
	public, err := publicOf(g, private)
	if err != nil {
		return nil, err
	}
	k, err := p.lib.NewKey("DH", libcrypto.Pair, groupParams(g, libcrypto.Int("pub", public), libcrypto.Int("priv", private))...)
	return &systemDH{p.lib, k, g}, err
}

type systemDH struct {
	lib   *libcrypto.Library
	key   *libcrypto.Key
	group pkix.Group
}

func (k *systemDH) Agree(public *big.Int) ([]byte, error) {
	peer, err := k.lib.NewKey("DH", libcrypto.Public, groupParams(k.group, libcrypto.Int("pub", public))...)
	if err != nil {
		return nil, err
	}
	return k.key.Derive(bytesOf(k.group.P.BitLen()), peer, libcrypto.Number("pad", 1))
}

func (p *system) NewDSAPublicKey(g pkix.Group, public *big.Int) (DSAPublicKey, error) {
	k, err := p.lib.NewKey("DSA", libcrypto.Public, groupParams(g, libcrypto.Int("pub", public))...)
	return ecPublicKey{k}, err
}

func (p *system) NewDSAPrivateKey(g pkix.Group, private *big.Int) (DSAPrivateKey, error) {
	public, err := publicOf(g, private)
	if err != nil {
		return nil, err
	}
	k, err := p.lib.NewKey("DSA", libcrypto.Pair, groupParams(g, libcrypto.Int("pub", public), libcrypto.Int("priv", private))...)
	return &systemDSA{k, 2*bytesOf(g.Q.BitLen()) + 16}, err
}

type systemDSA struct {
	key  *libcrypto.Key
	room int
}

func (k *systemDSA) Sign(digest []byte) ([]byte, error) { return k.key.Sign(k.room, digest) }
