package integration

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"p11fs/p11"
	"p11fs/tokens/tokentest"
)

// A crossWay is a mechanism from one side to the other.
type crossWay struct {
	t        *testing.T
	from, to *crossSide
	m        p11.Mechanism
	facts    p11.Facts
}

func (w *crossWay) word() string { return mechanismWord(w.m) }

// keys are the first side's key on both: the halves that either uses.
func (w *crossWay) keys() (public, private, otherPublic, otherPrivate string) {
	w.t.Helper()
	kt := p11.CKK_GENERIC_SECRET
	if len(w.facts.KeyTypes) > 0 {
		kt = w.facts.KeyTypes[0]
	}
	if ofTLS(w.m.Type) {
		one, other := w.from.secret(w.t, kt, []byte(masterSecret)), w.to.secret(w.t, kt, []byte(masterSecret))
		return one, one, other, other
	}
	k := w.from.key(w.t, kt)
	otherPrivate = w.to.call("create", encode(k.privateAttrs)).one()
	if otherPublic = otherPrivate; k.publicAttrs != nil {
		otherPublic = w.to.call("create", encode(k.publicAttrs)).one()
	}
	return k.public, k.private, otherPublic, otherPrivate
}

// crossMessage is data that every mechanism can sign: as long as a SHA-1 digest, or as the
// digest that its parameter names.
func (w *crossWay) message() string {
	data := "20 bytes to be sign."
	if p, ok := w.m.Param.(*p11.HashSignContext); ok {
		data = strings.Repeat(data, 4)[:p11.HashSize(p.Hash)]
	}
	return hexOf(data)
}

func (w *crossWay) digest() {
	one, two := w.from.operate("one", "digest", "-", w.word(), w.message()).one(), w.to.operate("one", "digest", "-", w.word(), w.message()).one()
	if one != two {
		w.t.Errorf("digests %s and %s", one, two)
	}
}

func (w *crossWay) sign() {
	_, private, public, _ := w.keys()
	sig := w.from.operate("one", "sign", private, w.word(), w.message()).one()
	w.to.call("verify", public, w.word(), w.message(), sig).must()
	other := hexOf("21" + string(unhex(w.t, w.message()))[2:])
	if got := w.to.call("verify", public, w.word(), other, sig); got.rv == p11.CKR_OK {
		w.t.Errorf("a signature of other data is taken")
	}
}

func (w *crossWay) recover() {
	_, private, public, _ := w.keys()
	sig := w.from.operate("one", "signrecover", private, w.word(), w.message()).one()
	if got := w.to.operate("one", "verifyrecover", public, w.word(), sig).one(); !strings.HasSuffix(got, w.message()) {
		w.t.Errorf("recovered %s", got)
	}
}

func (w *crossWay) encrypt() {
	public, _, _, private := w.keys()
	plain := hexOf(strings.Repeat("16 bytes a block", 3))
	ct := w.from.operate("one", "encrypt", public, w.word(), plain).one()
	got := w.to.operate("one", "decrypt", private, w.word(), ct).one()
	if w.m.Type == p11.CKM_RSA_X_509 {
		got = strings.TrimLeft(got, "0")
	}
	if len(got) == 2*bufferSize { // openCryptoki leaves the length as it is, in some modes
		got = got[:len(plain)]
	}
	if got != plain {
		w.t.Errorf("decrypted %s", got)
	}
}

// wrap takes a secret of whole blocks, and one of a part of a block where that is taken.
func (w *crossWay) wrap() {
	public, _, _, private := w.keys()
	for _, value := range []string{"a key of just 32 bytes to wrap..", "a key of 24 bytes......."} {
		key := w.from.secret(w.t, p11.CKK_GENERIC_SECRET, []byte(value))
		got := w.from.call("wrap", public, w.word(), key)
		if len(value)%16 != 0 && got.rv != p11.CKR_OK {
			continue
		}
		wrapped := got.one()
		if len(wrapped) == 2*bufferSize { // as above; what it has is whole blocks
			wrapped = wrapped[:2*((len(value)+15)/16*16)]
		}
		var out answer
		told := true                                                                                     // the length of the key, without which the zeros stay that fill it up
		for _, more := range []string{openKey + fmt.Sprintf(" value-len=%d", len(value)), openKey, ""} { // what templates may say differs
			told = strings.Contains(more, "value-len")
			out = w.to.call("unwrap", private, w.word(), wrapped, words("class=secret-key key-type=generic-secret"+more))
			if !slices.Contains([]p11.RV{p11.CKR_TEMPLATE_INCONSISTENT, p11.CKR_ATTRIBUTE_READ_ONLY, p11.CKR_ATTRIBUTE_TYPE_INVALID}, out.rv) {
				break
			}
		}
		unwrapped := w.to.get(out.one(), p11.CKA_VALUE).one()
		if !told {
			unwrapped = strings.Trim(unwrapped, "0")
		}
		if unwrapped != hexOf(value) {
			w.t.Errorf("unwrapped %s", unwrapped)
		}
	}
}

// derive has both sides derive with the first side's key, and compares.
func (w *crossWay) derive() {
	_, base, _, otherBase := w.keys()
	length := uint64(16) // the shortest digest
	switch p := w.m.Param.(type) {
	case *p11.ECDH1Params:
		p.PublicData = unhex(w.t, w.to.get(w.to.key(w.t, w.facts.KeyTypes[0]).public, p11.CKA_EC_POINT).one())
		length = 32
	case *p11.StringDataParams:
		p.Data = []byte("16 bytes of data")
	case *p11.CBCDataParams:
		p.Data = bytes.Repeat([]byte("16 bytes of data"), 2)
	case *p11.SSL3MasterParams:
		length = 48
	}
	if w.facts.Param == p11.ParamPublic {
		public := unhex(w.t, w.to.get(w.to.key(w.t, w.facts.KeyTypes[0]).public, p11.CKA_VALUE).one())
		// openCryptoki wants it as long as the prime, though its numbers have no zeros in front.
		prime := len(tokentest.Group(w.facts.KeyTypes[0]).P.Bytes())
		w.m.Param = p11.RawParam(append(make([]byte, max(0, prime-len(public))), public...))
		length = 32
	}
	made := template("class=secret-key key-type=generic-secret" + openKey)
	made.SetUlong(p11.CKA_VALUE_LEN, length)
	var got []string
	for _, side := range []struct {
		s    *crossSide
		base string
	}{{w.from, base}, {w.to, otherBase}} {
		key := side.s.call("deriveby", side.base, w.word(), encode(made)).one()
		got = append(got, side.s.get(key, p11.CKA_VALUE).one())
	}
	if w.facts.Param == p11.ParamPublic {
		// openCryptoki gives the whole secret, whatever the length, of which the standard has the end.
		for i := range got {
			got[i] = got[i][max(0, len(got[i])-2*int(length)):]
		}
	}
	if got[0] != got[1] || len(got[0]) == 0 {
		w.t.Errorf("derived %s and %s", got[0], got[1])
	}
}

// generate makes a key by the mechanism on the first side, which the other takes. Domain
// parameters it makes a key with.
func (w *crossWay) generate() {
	if facts := w.facts; w.from.flags[w.m.Type]&p11.CKF_GENERATE != 0 && len(facts.KeyTypes) > 0 && (facts.KeyTypes[0] == p11.CKK_DH || facts.KeyTypes[0] == p11.CKK_DSA) {
		w.parameters(facts.KeyTypes[0])
		return
	}
	if w.m.Param == nil {
		if maker, ok := w.from.makerOf(w.facts.KeyTypes[0]); !ok || maker != w.m.Type {
			w.t.Errorf("%s makes these keys", maker)
		}
		w.keys()
		return
	}
	key := w.from.call("generate", w.word(), words("class=secret-key key-type=generic-secret"+openKey)).one()
	w.to.secret(w.t, p11.CKK_GENERIC_SECRET, unhex(w.t, w.from.get(key, p11.CKA_VALUE).one()))
}

func (w *crossWay) parameters(kt p11.KeyType) {
	bits := map[p11.KeyType]uint64{p11.CKK_DH: 512, p11.CKK_DSA: 1024}[kt]
	asked := template("token=false private=false")
	asked.SetUlong(p11.CKA_PRIME_BITS, bits)
	made := w.from.call("generate", w.word(), encode(asked)).one()
	public := template("token=false private=false" + usesOf(p11.CKO_PUBLIC_KEY, kt))
	for _, at := range valuesOf(p11.CKO_PUBLIC_KEY, kt) {
		if at != p11.CKA_VALUE {
			public = public.With(at, unhex(w.t, w.from.get(made, at).one()))
		}
	}
	maker, ok := w.to.makerOf(kt)
	if !ok {
		w.t.Fatalf("nothing makes keys of type %s", kt)
	}
	w.to.call("pair", mech(maker), encode(public), words("token=false private=false"+usesOf(p11.CKO_PRIVATE_KEY, kt))).must()
}

func (w *crossWay) encapsulate() {
	public, _, _, private := w.keys()
	made := template("class=secret-key key-type=generic-secret" + openKey)
	made.SetUlong(p11.CKA_VALUE_LEN, 32)
	one := w.from.call("encapsulate", public, w.word(), encode(made)).must()
	two := w.to.call("decapsulate", private, w.word(), one.values[0], encode(made)).one()
	if a, b := w.from.get(one.values[1], p11.CKA_VALUE).one(), w.to.get(two, p11.CKA_VALUE).one(); a != b {
		w.t.Errorf("two secrets: %s and %s", a, b)
	}
}
