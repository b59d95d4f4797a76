package soft

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/des"
	"crypto/hmac"
	"encoding"
	"hash"
	"slices"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/secret"
	"p11fs/tokens/card/ep11"
)

// freeze is the state of a hash, which thaw makes one of again.
func freeze(h hash.Hash) ([]byte, error) {
	m, ok := h.(encoding.BinaryMarshaler)
	if !ok {
		return nil, ep11.Internal
	}
	return m.MarshalBinary()
}

func thaw(h p11.Hash, state []byte) (hash.Hash, error) {
	x := h.Go.New()
	u, ok := x.(encoding.BinaryUnmarshaler)
	if !ok {
		return nil, ep11.Internal
	}
	return x, u.UnmarshalBinary(state)
}

// pads of HMAC (RFC 2104 §2).
const innerPad, outerPad = 0x36, 0x5c

// padded begins one of the two hashes of an HMAC.
func padded(h p11.Hash, value []byte, pad byte) hash.Hash {
	x := h.Go.New()
	block := make([]byte, x.BlockSize())
	defer secret.Wipe(block)
	if len(value) > len(block) {
		x.Write(value)
		value = x.Sum(nil)
		defer secret.Wipe(value)
		x.Reset()
	}
	copy(block, value)
	for i := range block {
		block[i] ^= pad
	}
	x.Write(block)
	return x
}

// A shape is how a mechanism takes data in parts.
type shape int

const (
	whole  shape = iota // it must see all of it
	hashed              // a digest, or a signature over one
	hmacs
	blocks
)

func shapeOf(m p11.MechanismType) (shape, p11.Hash) {
	h, ok := p11.HashOf(hashOf(m))
	switch {
	case ok && h.HMAC == m:
		return hmacs, h
	case ok && slices.Contains([]p11.MechanismType{h.Type, h.PKCS1, h.PSS, h.ECDSA, h.DSA}, m):
		return hashed, h
	case slices.Contains([]p11.MechanismType{p11.CKM_AES_ECB, p11.CKM_AES_CBC, p11.CKM_AES_CBC_PAD, p11.CKM_DES3_ECB, p11.CKM_DES3_CBC, p11.CKM_DES3_CBC_PAD}, m):
		return blocks, h
	}
	return whole, h
}

// begin makes the state of an operation.
func (d *domain) begin(ctx context.Context, use p11.Flags, m p11.Mechanism, blob ep11.Blob) ([]byte, error) {
	s := &state{use: use, mech: m, blob: blob}
	defer s.wipe()
	if use == p11.CKF_DIGEST {
		if err := d.lists(m, use); err != nil {
			return nil, err
		}
		if err := d.ready(); err != nil {
			return nil, err
		}
		s.blob = nil
	}
	var k *key
	if use != p11.CKF_DIGEST {
		var err error
		if k, err = d.openFor(blob, use, m); err != nil {
			return nil, err
		}
		o := object(k)
		defer o.Drop()
		// What is wrong with the key or the parameter shows here, and not at the end.
		op, err := d.crypto.Begin(ctx, use, primitive(m), o)
		if err != nil {
			return nil, err
		}
		op.Close()
	}
	var err error
	switch shape, h := shapeOf(m.Type); shape {
	case hashed:
		s.hash, err = freeze(h.Go.New())
	case hmacs:
		value, _ := k.attrs.Get(p11.CKA_VALUE)
		s.hash, err = freeze(padded(h, value, innerPad))
	case blocks:
		if iv, ok := m.Param.(p11.IV); ok {
			s.iv = bytes.Clone(iv)
		}
	}
	if err != nil {
		return nil, err
	}
	return d.wk.sealState(s)
}

// resume opens the state of an operation.
func (d *domain) resume(b []byte, use p11.Flags) (*state, error) {
	if err := d.ready(); err != nil {
		return nil, err
	}
	return d.wk.openState(b, use)
}

// update takes the next part.
func (d *domain) update(ctx context.Context, use p11.Flags, b, data []byte) (newState, out []byte, err error) {
	s, err := d.resume(b, use)
	if err != nil {
		return nil, nil, err
	}
	defer s.wipe()
	switch shape, h := shapeOf(s.mech.Type); shape {
	case hashed, hmacs:
		err = s.absorb(h, data)
	case blocks:
		out, err = d.updateBlocks(ctx, s, data)
	default:
		if len(s.held)+len(data) > maxHeld {
			return nil, nil, ep11.TransportLimit
		}
		s.held = secret.Append(s.held, data)
	}
	if err == nil {
		newState, err = d.wk.sealState(s)
	}
	return newState, out, err
}

// absorb puts data into the hash of a state.
func (s *state) absorb(h p11.Hash, data []byte) error {
	x, err := thaw(h, s.hash)
	if err == nil {
		x.Write(data)
		secret.Wipe(s.hash)
		s.hash, err = freeze(x)
	}
	return err
}

// updateBlocks gives what whole blocks come to, and keeps the rest; of a padded decryption
// also the last block.
func (d *domain) updateBlocks(ctx context.Context, s *state, data []byte) ([]byte, error) {
	size, base := aes.BlockSize, p11.CKM_AES_CBC
	if !slices.Contains(keyTypes(s.mech.Type), p11.CKK_AES) {
		size, base = des.BlockSize, p11.CKM_DES3_CBC
	}
	in := secret.Append(s.held, data)
	n := len(in) / size * size
	pads := s.mech.Type == p11.CKM_AES_CBC_PAD || s.mech.Type == p11.CKM_DES3_CBC_PAD
	if pads && s.use == p11.CKF_DECRYPT && n == len(in) && n > 0 {
		n -= size
	}
	defer secret.Wipe(in)
	s.held = bytes.Clone(in[n:])
	if n == 0 {
		return []byte{}, nil
	}
	m := s.mech
	if pads {
		m.Type = base
	}
	out, err := d.useKey(ctx, s, m, in[:n], nil)
	if err != nil {
		return nil, err
	}
	if len(s.iv) > 0 {
		last := out
		if s.use == p11.CKF_DECRYPT {
			last = in[:n]
		}
		s.iv = bytes.Clone(last[n-size:])
	}
	return out, nil
}

// useKey is run with the key and the chaining value of a state.
func (d *domain) useKey(ctx context.Context, s *state, m p11.Mechanism, data, signature []byte) ([]byte, error) {
	k, err := d.openFor(s.blob, s.use, s.mech)
	if err != nil {
		return nil, err
	}
	o := object(k)
	defer o.Drop()
	if len(s.iv) > 0 {
		m.Param = p11.IV(s.iv)
	}
	return d.run(ctx, s.use, m, o, data, signature)
}

// final takes the last part and gives what there is still to give.
func (d *domain) final(ctx context.Context, use p11.Flags, b, data, signature []byte) ([]byte, error) {
	s, err := d.resume(b, use)
	if err != nil {
		return nil, err
	}
	defer s.wipe()
	shape, h := shapeOf(s.mech.Type)
	if shape == whole || shape == blocks {
		s.held = secret.Append(s.held, data) // which wipe wipes
		in := s.held
		return d.useKey(ctx, s, s.mech, in, signature)
	}
	if err := s.absorb(h, data); err != nil {
		return nil, err
	}
	x, err := thaw(h, s.hash)
	if err != nil {
		return nil, err
	}
	digest := x.Sum(nil) // no secret, but for the inner one of an HMAC
	switch m := s.mech; m.Type {
	case h.Type:
		return digest, nil
	case h.HMAC:
		defer secret.Wipe(digest)
		return d.finishHMAC(s, h, digest, signature)
	case h.PKCS1:
		return d.useKey(ctx, s, p11.Mechanism{Type: p11.CKM_RSA_PKCS}, append(pkix.DigestInfoPrefix(h), digest...), signature)
	case h.PSS:
		return d.useKey(ctx, s, p11.Mechanism{Type: p11.CKM_RSA_PKCS_PSS, Param: m.Param}, digest, signature)
	case h.DSA:
		return d.useKey(ctx, s, p11.Mechanism{Type: p11.CKM_DSA}, digest, signature)
	default:
		return d.useKey(ctx, s, p11.Mechanism{Type: p11.CKM_ECDSA}, digest, signature)
	}
}

// finishHMAC is the outer hash of an HMAC.
func (d *domain) finishHMAC(s *state, h p11.Hash, inner, signature []byte) ([]byte, error) {
	k, err := d.openFor(s.blob, s.use, s.mech)
	if err != nil {
		return nil, err
	}
	defer k.wipe()
	value, _ := k.attrs.Get(p11.CKA_VALUE)
	x := padded(h, value, outerPad)
	x.Write(inner)
	mac := x.Sum(nil)
	switch {
	case s.use == p11.CKF_SIGN:
		return mac, nil
	case len(signature) != len(mac):
		return nil, p11.CKR_SIGNATURE_LEN_RANGE
	case !hmac.Equal(mac, signature):
		return nil, p11.CKR_SIGNATURE_INVALID
	}
	return nil, nil
}

// single is an operation of one part.
func (d *domain) single(ctx context.Context, use p11.Flags, m p11.Mechanism, blob ep11.Blob, data, signature []byte) ([]byte, error) {
	if use == p11.CKF_DIGEST {
		if err := d.lists(m, use); err != nil {
			return nil, err
		}
		return d.run(ctx, use, m, nil, data, nil)
	}
	k, err := d.openFor(blob, use, m)
	if err != nil {
		return nil, err
	}
	o := object(k)
	defer o.Drop()
	return d.run(ctx, use, m, o, data, signature)
}
