package soft

import (
	"bytes"
	"encoding/binary"
	"testing"

	"p11fs/p11"
	"p11fs/tokens/card/ep11"
)

// FuzzBlob opens keys and states, changed in every way.
func FuzzBlob(f *testing.F) {
	wk := wrappingKey{bytes.Repeat([]byte{3}, KeyLen)}
	attrs := func() p11.Attributes {
		return p11.Attributes{{Type: p11.CKA_CLASS, Value: p11.Ulong(p11.CKO_SECRET_KEY)}, {Type: p11.CKA_VALUE, Value: []byte("value")}}
	}
	f.Add([]byte(wk.seal(&key{attrs: attrs(), bits: 5}, binary.BigEndian)))
	f.Add([]byte(wk.seal(&key{attrs: attrs()}, binary.LittleEndian)))
	state, err := wk.sealState(&state{use: p11.CKF_DIGEST, mech: p11.Mechanism{Type: p11.CKM_SHA256}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(state)
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := wk.openState(b, p11.CKF_DIGEST); err == nil {
			if again, err := wk.sealState(s); err != nil || len(again) != len(b) {
				t.Errorf("a state of %d bytes becomes one of %d, %v", len(b), len(again), err)
			}
		}
		blob := ep11.Blob(b)
		open := wk.open
		if blob.IsSPKI() {
			open = wk.openPublic
		}
		if k, err := open(blob); err == nil {
			k.wipe()
		} else if p11.RVOf(err) == p11.CKR_GENERAL_ERROR {
			t.Errorf("%v has no return value", err)
		}
		// With a MAC that is good: what is in it is anything.
		if len(b) > ep11.BlobSealed && !blob.IsSPKI() {
			sealed := append(bytes.Clone(b), wk.mac(b)...)
			if k, err := wk.open(sealed); err == nil {
				if again := wk.seal(k, orderOf(sealed[ep11.BlobVersion:])); len(again) != len(sealed) {
					t.Errorf("a blob of %d bytes becomes one of %d", len(sealed), len(again))
				}
				k.wipe()
			}
		}
	})
}
