package ccatok

import (
	"context"
	"slices"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens/card"
	"p11fs/tokens/card/cca"
)

// maxWhole is the longest message that the card must have at once: what fits a call.
const maxWhole = 8 << 20

// gcm is AES-GCM, which the card does of a whole message alone.
type gcm struct {
	p       *p11.GCMParams
	decrypt bool
}

// newGCM is the way of a mechanism's parameter.
func newGCM(m p11.Mechanism, decrypt bool) (way, error) {
	p, ok := m.Param.(*p11.GCMParams)
	if !ok {
		return nil, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "%s does not take its parameter as bytes", m.Type.Short())
	}
	switch n := p.TagBits; {
	case n%8 != 0 || n != 32 && n != 64 && (n < 96 || n > 128):
		return nil, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "the card makes tags of 32, 64 and 96 to 128 bits, not %d", n)
	case len(p.IV) == 0:
		return nil, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "%s takes an initialisation vector of one byte or more", m.Type.Short())
	}
	return &gcm{p, decrypt}, nil
}

func (g *gcm) clone() way { return g }

func (g *gcm) keeps(n, _ int) int { return n }

func (g *gcm) blocks(context.Context, *operation, []byte) ([]byte, error) { return nil, nil }

func (g *gcm) last(ctx context.Context, o *operation, in []byte) (out []byte, err error) {
	rules, n := cca.Rules{"AES", "GCM", "KEYIDENT", "ONLY"}.Bytes(), int(g.p.TagBits/8)
	if g.decrypt && len(in) < n {
		return nil, p11.Errorf(p11.CKR_ENCRYPTED_DATA_LEN_RANGE, "the data is shorter than its tag of %d bytes", n)
	}
	err = o.link.withKey(ctx, o.attrs, func(via card.Transport, key []byte) (err error) {
		if g.decrypt {
			text, tag := in[:len(in)-n], in[len(in)-n:]
			out, err = cca.CSNBSAD(ctx, via, nil, rules, key, tag, g.p.IV, text, g.p.AAD)
			return err
		}
		tag, cipher, err := cca.CSNBSAE(ctx, via, nil, rules, key, n, g.p.IV, in, g.p.AAD)
		out = slices.Concat(cipher, tag)
		return err
	})
	want := len(in) + n
	if g.decrypt {
		want = len(in) - n
	}
	if err == nil && len(out) != want {
		secret.Wipe(out)
		err = p11.Errorf(p11.CKR_DEVICE_ERROR, "the card gives %d bytes, not %d", len(out), want)
	}
	if err != nil {
		return nil, err
	}
	return out, nil
}

// eddsa is a signature of EdDSA, for which the card has the message twice.
type eddsa struct{}

// newEdDSA is the way of a mechanism's parameter: the card signs the message itself, without
// a context.
func newEdDSA(m p11.Mechanism) (way, error) {
	if p, ok := m.Param.(*p11.EdDSAParams); m.Param != nil && (!ok || p.Prehash || len(p.Context) > 0) {
		return nil, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "the card takes no context and no hash for %s", m.Type.Short())
	}
	return eddsa{}, nil
}

func (eddsa) clone() way { return eddsa{} }

func (eddsa) keeps(n, _ int) int { return n }

func (eddsa) blocks(context.Context, *operation, []byte) ([]byte, error) { return nil, nil }

func (eddsa) last(ctx context.Context, o *operation, in []byte) (out []byte, err error) {
	err = o.link.withKey(ctx, o.attrs, func(via card.Transport, key []byte) (err error) {
		out, err = cca.CSNDDSG(ctx, via, nil, cca.Rules{"EDDSA", "ED-HASH", "MESSAGE"}.Bytes(), key, in)
		return err
	})
	if err == nil && len(out) != o.size {
		err = p11.Errorf(p11.CKR_DEVICE_ERROR, "the card's signature has %d bytes, not %d", len(out), o.size)
	}
	if err != nil {
		return nil, err
	}
	return out, nil
}
