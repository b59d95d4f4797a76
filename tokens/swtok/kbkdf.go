package swtok

import (
	"encoding/binary"
	"math"
	"slices"

	"p11fs/p11"
)

// The key derivations of NIST SP 800-108. libcrypto has the counter and the feedback mode
// with some of their encodings; PKCS#11 has any order of fields, so they are put together
// here of the library's MACs, as section 4 of that publication has it.

// maxFixed bounds what a MAC gets in each turn beside the iteration, in bytes.
const maxFixed = 8192

// kbkdfDerive is the family of CKM_SP800_108_COUNTER_KDF and its likes (PKCS#11 v3.1
// §6.42).
func kbkdfDerive() family {
	return family{deriveAll: func(u call, base any, wants []wanted) ([][]byte, []byte, error) {
		p, err := param[*p11.SP800108Params](u)
		if err != nil {
			return nil, nil, err
		}
		mac, err := u.kbkdfMAC(p.PRF, base)
		if err != nil {
			return nil, nil, err
		}
		d, err := newKBKDF(u, p, mac, wants)
		if err != nil {
			return nil, nil, err
		}
		values := make([][]byte, 0, len(wants))
		for _, w := range wants {
			value, err := d.key(w.n)
			if err != nil {
				wipe(values...)
				return nil, nil, err
			}
			values = append(values, value)
		}
		return values, nil, nil
	}}
}

// kbkdfMAC is the MAC that the parameter names, of those in PKCS#11 v3.1 §6.42.2, with
// the base key.
func (u call) kbkdfMAC(m p11.MechanismType, base any) (keyedMAC, error) {
	if h, ok := hmacHash(m); ok && h.MGF != 0 { // which tells SHA-1, SHA-2 and SHA-3 from the others
		k, err := secretOf(base)
		return hmacOf(h, k), err
	}
	types := map[p11.MechanismType][]p11.KeyType{
		p11.CKM_AES_CMAC:  {p11.CKK_AES},
		p11.CKM_DES3_CMAC: {p11.CKK_DES2, p11.CKK_DES3},
	}[m]
	if types == nil || !u.hasCMAC() {
		return keyedMAC{}, u.noPRF(m)
	}
	k, err := keyOf[*cipherKey](base)
	if err != nil || !slices.Contains(types, k.kt) {
		return keyedMAC{}, p11.Errorf(p11.CKR_KEY_TYPE_INCONSISTENT, "prf=%s wants a key of type %s", m.Short(), types[len(types)-1].Short())
	}
	return cmacOf(k.Block().BlockSize(), k.CMAC), nil
}

// A kbkdf is a derivation in progress.
type kbkdf struct {
	mac    keyedMAC
	mode   p11.MechanismType
	fields []p11.KDFField // those of keys are bytes
	bits   uint64         // of what is derived, as the length has it
	turn   uint64         // of the last segment, from 1 on
	last   []byte         // K(i-1) in feedback mode, A(i-1) in the double pipeline
}

func newKBKDF(u call, p *p11.SP800108Params, mac keyedMAC, wants []wanted) (*kbkdf, error) {
	d := &kbkdf{mac: mac, mode: u.m.Type, last: slices.Clone(p.IV)}
	segments, bytes := uint64(0), uint64(0)
	for _, w := range wants {
		if w.n < 0 {
			return nil, errNoLength
		}
		segments += uint64((w.n + mac.size - 1) / mac.size)
		bytes += uint64(w.n)
	}
	if bytes > maxSecret {
		return nil, p11.Errorf(p11.CKR_KEY_SIZE_RANGE, "all keys together have at most %d bytes, not %d", maxSecret, bytes)
	}
	fixed, others := 0, u.others
	for _, f := range p.Fields {
		switch f.Type {
		case p11.CK_SP800_108_KEY_HANDLE:
			value, err := secretOf(others[0])
			if err != nil {
				return nil, err
			}
			f, others = p11.KDFField{Type: p11.CK_SP800_108_BYTE_ARRAY, Data: value}, others[1:]
		case p11.CK_SP800_108_DKM_LENGTH:
			if d.bits = 8 * bytes; f.Method == p11.CK_SP800_108_DKM_LENGTH_SUM_OF_SEGMENTS {
				d.bits = 8 * segments * uint64(mac.size)
			}
			if d.bits > mostOf(f.Width) {
				return nil, p11.Errorf(p11.CKR_KEY_SIZE_RANGE, "a length of %d bits has no room for %d", f.Width, d.bits)
			}
		case p11.CK_SP800_108_ITERATION_VARIABLE, p11.CK_SP800_108_OPTIONAL_COUNTER:
			if f.Width != 0 && segments > mostOf(f.Width) {
				return nil, p11.Errorf(p11.CKR_KEY_SIZE_RANGE, "a counter of %d bits counts to %d, and the keys take %d", f.Width, mostOf(f.Width), segments)
			}
		}
		fixed += len(f.Data)
		d.fields = append(d.fields, f)
	}
	if fixed > maxFixed {
		return nil, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "the fields together have at most %d bytes, not %d", maxFixed, fixed)
	}
	if d.mode == p11.CKM_SP800_108_DOUBLE_PIPELINE_KDF {
		d.last = slices.Concat(d.parts(false)...) // A(0)
	}
	return d, nil
}

// mostOf is the highest number of n bits.
func mostOf(n uint64) uint64 {
	if n >= 64 {
		return math.MaxUint64
	}
	return 1<<n - 1
}

// key is the next key, of segments of its own.
func (d *kbkdf) key(n int) ([]byte, error) {
	out := make([]byte, 0, n+d.mac.size)
	for len(out) < n {
		s, err := d.segment()
		if err != nil {
			wipe(out)
			return nil, err
		}
		out = append(out, s...)
		wipe(s)
	}
	wipe(out[n:])
	return out[:n:n], nil
}

// segment is the next K(i) (NIST SP 800-108 §4.1 to §4.3).
func (d *kbkdf) segment() ([]byte, error) {
	d.turn++
	if d.mode == p11.CKM_SP800_108_DOUBLE_PIPELINE_KDF {
		a, err := d.mac.sum(d.last)
		if err != nil {
			return nil, err
		}
		d.last = a
	}
	s, err := d.mac.sum(d.parts(true)...)
	if err == nil && d.mode == p11.CKM_SP800_108_FEEDBACK_KDF {
		wipe(d.last)
		d.last = slices.Clone(s)
	}
	return s, err
}

// parts are the fields as bytes; what changes from turn to turn is among them if running
// is set.
func (d *kbkdf) parts(running bool) (parts [][]byte) {
	for _, f := range d.fields {
		switch f.Type {
		case p11.CK_SP800_108_BYTE_ARRAY:
			parts = append(parts, f.Data)
		case p11.CK_SP800_108_DKM_LENGTH:
			parts = append(parts, written(f, d.bits))
		default:
			switch {
			case !running:
			case f.Width == 0:
				parts = append(parts, d.last)
			default:
				parts = append(parts, written(f, d.turn))
			}
		}
	}
	return parts
}

// written is n as the field has it.
func written(f p11.KDFField, n uint64) []byte {
	size := f.Width / 8
	if f.LittleEndian {
		return binary.LittleEndian.AppendUint64(nil, n)[:size]
	}
	return binary.BigEndian.AppendUint64(nil, n)[8-size:]
}
