package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"p11fs/engine"
	"p11fs/locks"
	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/tokens"
	"p11fs/tokens/swtok"
	"p11fs/tokens/tokentest/wycheproof"
)

// A ruling is what we say to vectors of a flag that their authors leave open.
type ruling struct {
	files, flag string // the beginning of the file's name
	accepts     bool
	why         string
}

// rulings decide about "acceptable" vectors: the first that is of one of a vector's flags
// does. A flag that is not here fails the test, and so does one that no vector has.
var rulings = []ruling{
	{"aes_wrap", "ShortKey", false, "RFC 3394 §2 wraps two blocks of 8 bytes or more"},
	{"ecdh_", "CompressedPublic", true, "PKCS#11 v3.1 §6.3.16 leaves the form of the point to us, and each is one of the curve"},
	{"ecdh_", "UnnamedCurve", false, "its numbers are not all those of a curve here, and whoever may choose one of them may choose whose keys are his"},
	{"ecdh_", "InvalidAsn", false, "DER has one form of a length"},
	{"rsa_oaep", "SmallIntegerCiphertext", true, "it is as good as any other"},
	{"rsa_pkcs1", "WeakHash", true, "whoever has the key may ask for it; the machine's policy can refuse it"},
	{"rsa_pkcs1", "SmallPublicKey", true, "PKCS #1 takes the exponent 3, and the padding is checked as a whole"},
	{"rsa_signature", "MissingNull", false, "RFC 8017 §9.2: the parameters of the hash are NULL"},
	{"x", "ZeroSharedSecret", false, "RFC 7748 §6.1 lets one refuse it, and there is no secret in it"},
	{"x", "Twist", true, "RFC 7748 §5: the curves are made for points of the twist, too"},
	{"x", "NonCanonicalPublic", true, "RFC 7748 §5: an implementation must take it"},
}

// A deviation is where we do not give the vector's verdict.
type deviation struct {
	files   string
	of      func(*wycheproof.Case) bool
	accepts bool
	why     string
}

// deviations are all of them.
var deviations = []deviation{
	{"aes_gcm", func(c *wycheproof.Case) bool {
		p, ok := c.M.Param.(*p11.GCMParams)
		return ok && len(p.IV) > 256
	}, false, "PKCS#11 v3.1 §6.13.3: an IV has at most 256 bytes"},
}

// An examiner puts cases to a session.
type examiner struct {
	*engine.Session
	ctx      context.Context
	provider swtok.Provider
	lists    map[p11.MechanismType]bool
	met      map[string]bool // rulings and deviations

	// A group has one key: the last one stays.
	last   p11.Attributes
	handle p11.ObjectHandle
}

var errDiffers = errors.New("the result differs")

// TestWycheproof puts the sample of Wycheproof's vectors to the engine over a soft token,
// with each provider: by C_CreateObject and the functions for the mechanism.
func TestWycheproof(t *testing.T) {
	met := examine(t, wycheproof.Sample(t), 1)
	whole := len(providers()) > 1 // Go's library has not all the curves that some are about
	for _, r := range rulings {
		if whole && !met[r.why] {
			t.Errorf("no vector of %s* is acceptable by %s", r.files, r.flag)
		}
	}
}

// TestWycheproofWhole does so with the whole set, or with some of it: the race detector has
// nothing to find in the arithmetic.
func TestWycheproofWhole(t *testing.T) {
	met := examine(t, wycheproof.Whole(t), vectorStride)
	for _, d := range deviations {
		if vectorStride == 1 && !met[d.why] {
			t.Errorf("no vector of %s* deviates, because %s", d.files, d.why)
		}
	}
}

// examine puts every stride-th case, and says which rulings and deviations it has met.
func examine(t *testing.T, files []wycheproof.File, stride int) map[string]bool {
	met := map[string]bool{}
	for _, p := range providers() {
		s := newSession(t, p)
		e := &examiner{Session: s, ctx: t.Context(), provider: p, lists: map[p11.MechanismType]bool{}, met: met}
		for _, m := range s.Slot().Mechanisms() {
			e.lists[m.Type] = true
		}
		for _, f := range files {
			t.Run(p.Name()+"/"+f.Name, func(t *testing.T) {
				n := 0
				for _, g := range f.Groups {
					for i := range g {
						if n++; n%stride == 0 || stride > len(g) && i == 0 {
							e.examine(t, f.Name, &g[i])
						}
					}
				}
			})
		}
	}
	return met
}

func providers() []swtok.Provider {
	list := []swtok.Provider{swtok.GoProvider()}
	if p := swtok.LoadProvider(slog.New(slog.DiscardHandler)); p.Name() != "go" {
		list = append(list, p)
	}
	return list
}

// lacks says that a provider does not list a mechanism, or has not the curve of a key.
func (e *examiner) lacks(c *wycheproof.Case) bool {
	if params, ok := c.Key.Get(p11.CKA_EC_PARAMS); ok {
		curve, err := pkix.CurveOf(params)
		if err == nil && curve.KeyType == p11.CKK_EC && !e.provider.HasCurve(curve) {
			return true
		}
	}
	return !e.lists[c.M.Type]
}

// examine compares the verdict on a case with what it is to be.
func (e *examiner) examine(t *testing.T, file string, c *wycheproof.Case) {
	if e.lacks(c) {
		if e.provider.Name() != "go" {
			t.Errorf("%s: %s is not here", c, c.M.Type)
		}
		return
	}
	accepts, why := c.Result == "valid", ""
	if c.Result == "acceptable" {
		i := slices.IndexFunc(rulings, func(r ruling) bool { return strings.HasPrefix(file, r.files) && c.Has(r.flag) })
		if i < 0 {
			t.Errorf("%s: no ruling on its flags", c)
			return
		}
		accepts, why = rulings[i].accepts, rulings[i].why
	}
	if i := slices.IndexFunc(deviations, func(d deviation) bool { return strings.HasPrefix(file, d.files) && d.of(c) }); i >= 0 {
		accepts, why = deviations[i].accepts, deviations[i].why
	}
	e.met[why] = true
	err := e.put(c)
	if curve, ok := c.Key.Get(p11.CKA_EC_PARAMS); ok && c.Use == p11.CKF_VERIFY && c.Has("SignatureSize") {
		accepts, why = e.halves(t, c, curve), "r and s may come without zeros in front (PKCS#11 v3.1 §6.3.1)"
	}
	if (err == nil) != accepts || err != nil && !refusal(err) {
		t.Errorf("%s, and got %v; %s", c, err, why)
	}
}

// halves says whether r and s are a signature at their full length: two halves, none of
// which is longer than a number of the curve.
func (e *examiner) halves(t *testing.T, c *wycheproof.Case, params []byte) bool {
	t.Helper()
	curve, err := pkix.CurveOf(params)
	if err != nil {
		t.Fatal(err)
	}
	half, size := len(c.Signature)/2, curve.Size()
	if curve.KeyType != p11.CKK_EC || len(c.Signature)%2 != 0 || half > size {
		return false
	}
	whole := *c
	whole.Signature = make([]byte, 2*size)
	copy(whole.Signature[size-half:], c.Signature[:half])
	copy(whole.Signature[2*size-half:], c.Signature[half:])
	return e.put(&whole) == nil
}

// refusal says whether an error is about a vector, and not about how it is put.
func refusal(err error) bool {
	return errors.Is(err, errDiffers) || slices.Contains([]p11.RV{
		p11.CKR_SIGNATURE_INVALID, p11.CKR_SIGNATURE_LEN_RANGE, p11.CKR_ENCRYPTED_DATA_INVALID, p11.CKR_ENCRYPTED_DATA_LEN_RANGE,
		p11.CKR_AEAD_DECRYPT_FAILED, p11.CKR_MECHANISM_PARAM_INVALID, p11.CKR_KEY_SIZE_RANGE, p11.CKR_ATTRIBUTE_VALUE_INVALID,
	}, p11.RVOf(err))
}

// put makes the key and the call, and whatever undoes the call where it can be undone. It
// says what is wrong with the case.
func (e *examiner) put(c *wycheproof.Case) error {
	if c.Refused != nil {
		return fmt.Errorf("%w: %w", errDiffers, c.Refused)
	}
	key := c.Key.Clone()
	if class, _ := key.Class(); class == p11.CKO_SECRET_KEY {
		for _, use := range []p11.AttributeType{p11.CKA_ENCRYPT, p11.CKA_SIGN} {
			key.SetBool(use, true)
		}
	}
	if c.M.Type == p11.CKM_RSA_PKCS && c.Use == p11.CKF_DECRYPT {
		// Its other numbers are found from these.
		key = slices.DeleteFunc(key, func(a p11.Attribute) bool { return a.Type >= p11.CKA_PRIME_1 && a.Type <= p11.CKA_COEFFICIENT })
	}
	if c.Key != nil && !reflect.DeepEqual(key, e.last) {
		if e.last != nil {
			e.last = nil
			if err := e.DestroyObject(e.ctx, e.handle); err != nil {
				return err
			}
		}
		made := key.Clone()
		made.SetBool(p11.CKA_PRIVATE, false) // nobody has logged in
		var err error
		if e.handle, err = e.CreateObject(e.ctx, made); err != nil {
			return err
		}
		e.last = key
	}
	h := e.handle
	switch c.Use {
	case p11.CKF_VERIFY:
		if _, err := e.do(p11.CKF_VERIFY, c.M, h, c.Data, c.Signature); err != nil {
			return err
		}
		return e.undo(c, p11.CKF_SIGN, h, c.Data, c.Signature)
	case p11.CKF_DECRYPT:
		if err := same(e.do(p11.CKF_DECRYPT, c.M, h, c.Data, nil))(c.Want); err != nil {
			return err
		}
		return e.undo(c, p11.CKF_ENCRYPT, h, c.Want, c.Data)
	case p11.CKF_SIGN:
		return same(e.do(p11.CKF_SIGN, c.M, h, c.Data, nil))(c.Want)
	}
	return same(e.make(c, h))(c.Want)
}

// undo makes with a secret key what was verified or decrypted.
func (e *examiner) undo(c *wycheproof.Case, use p11.Flags, h p11.ObjectHandle, in, out []byte) error {
	if class, _ := c.Key.Class(); class != p11.CKO_SECRET_KEY {
		return nil
	}
	return same(e.do(use, c.M, h, in, nil))(out)
}

func same(got []byte, err error) func(want []byte) error {
	return func(want []byte) error {
		if err == nil && !bytes.Equal(got, want) {
			return errDiffers
		}
		return err
	}
}

// do is an operation on data that comes in parts, of lengths that are no block's, where
// there are parts.
func (e *examiner) do(use p11.Flags, m p11.Mechanism, key p11.ObjectHandle, data, signature []byte) ([]byte, error) {
	if err := e.Init(e.ctx, use, m, key); err != nil {
		return nil, err
	}
	const part = 23
	if len(data) <= part {
		return e.Do(e.ctx, use, data, signature, engine.NoLimit)
	}
	var out []byte
	for piece := range slices.Chunk(data, part) {
		got, err := e.Update(e.ctx, use, piece, engine.NoLimit)
		if err != nil {
			return nil, err
		}
		out = append(out, got...)
	}
	last, err := e.Final(e.ctx, use, signature, engine.NoLimit)
	return append(out, last...), err
}

// make is the value of the key that is derived, or generated of a password.
func (e *examiner) make(c *wycheproof.Case, base p11.ObjectHandle) ([]byte, error) {
	template, err := p11.ParseTemplate("class=secret-key key-type=generic-secret token=false private=false sensitive=false extractable=true")
	if err != nil {
		return nil, err
	}
	template.SetUlong(p11.CKA_VALUE_LEN, c.Size)
	var made p11.ObjectHandle
	if c.Use == p11.CKF_GENERATE {
		made, err = e.GenerateKey(e.ctx, c.M, template)
	} else {
		made, err = e.DeriveKey(e.ctx, c.M, base, template)
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = e.DestroyObject(e.ctx, made) }()
	r, err := e.GetAttributeValue(e.ctx, made, p11.CKA_VALUE)
	if err != nil {
		return nil, err
	}
	return r[0].Value, r[0].Err
}

// newSession is a session with a new soft token of a provider, on a disk that nothing is
// written to.
func newSession(t testing.TB, p swtok.Provider) *engine.Session {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	dir, ctx := t.TempDir(), context.Background()
	lock, err := locks.Open(filepath.Join(dir, "LCK"), locks.NoGroup)
	check(err)
	t.Cleanup(func() { _ = lock.Close() })
	tok, err := swtok.NewKind(p).Open(ctx, tokens.Place{Name: "tok", Dir: filepath.Join(dir, "tok"), Lock: lock, Create: true, Group: locks.NoGroup,
		Log: slog.New(slog.DiscardHandler), Now: time.Now})
	check(err)
	e, err := engine.New(engine.Config{Slots: []engine.SlotConfig{{ID: 0, Token: tok}}})
	check(err)
	t.Cleanup(func() {
		check(e.Close())
		check(tok.Close())
	})
	slot, err := e.SlotNamed("tok")
	check(err)
	s, err := e.NewApplication(engine.Owner{UID: 1}, engine.ForPrograms).OpenSession(ctx, slot, p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION)
	check(err)
	return s
}
