package securekey

import (
	"bytes"
	"context"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"p11fs/locks"
	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/secret"
	"p11fs/tokens"
	"p11fs/tokens/store"
	"p11fs/tokens/store/format"
	"p11fs/tokens/store/storetest"
)

// parse is a template.
func parse(t testing.TB, text string) p11.Attributes {
	t.Helper()
	a, err := p11.ParseTemplate(text)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestStock reads what stock's EP11 token of openCryptoki 3.8.1 wrote on s390x, over our card.
func TestStock(t *testing.T) {
	dir := storetest.Untar(t, "ep11tok-be")
	lock, err := locks.Open(filepath.Join(t.TempDir(), "lock"), locks.NoGroup)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	kind, _ := format.KindOf("ep11tok")
	s, err := store.Open(t.Context(), store.Config{
		Dir: dir, Format: Reading(format.V38(kind, rand.Reader)), Lock: lock, Group: store.NoGroup, Log: slog.New(slog.DiscardHandler), Now: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	pin, err := secret.New([]byte(storetest.UserPIN))
	if err != nil {
		t.Fatal(err)
	}
	defer pin.Close()
	l, err := s.Login(t.Context(), p11.CKU_USER, pin)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if d := s.Damaged(); len(d) > 0 {
		t.Fatal(d)
	}
	for _, want := range []struct {
		label, has string
		without    []p11.AttributeType
	}{
		{"theirs-aes", "class=secret-key value-len=32", []p11.AttributeType{p11.CKA_VALUE}},
		{"theirs-mac-given", "class=secret-key value-len=32", []p11.AttributeType{p11.CKA_VALUE}},
		{"theirs-prime256v1", "class=public-key", nil},
		{"theirs-prime256v1", "class=private-key", []p11.AttributeType{p11.CKA_VALUE, p11.CKA_VALUE_LEN}},
		{"theirs-rsa", "class=private-key public-exponent=0x010001", []p11.AttributeType{p11.CKA_PRIVATE_EXPONENT, p11.CKA_VALUE_LEN}},
	} {
		t.Run(want.label+" "+want.has, func(t *testing.T) {
			list, err := s.Find(t.Context(), parse(t, "label="+want.label+" "+strings.Fields(want.has)[0]), true)
			if err != nil || len(list) != 1 {
				t.Fatalf("%d objects (%v)", len(list), err)
			}
			a, err := list[0].Acquire()
			if err != nil {
				t.Fatal(err)
			}
			defer list[0].Release()
			if blob, ok := Blob(a); !ok || len(blob) < 200 || !a.Match(parse(t, want.has)) {
				t.Errorf("it has %v and %d bytes", a, len(blob))
			}
			for _, at := range want.without {
				if v, ok := a.Get(at); ok {
					t.Errorf("%s has %d bytes", at, len(v))
				}
			}
			if point, ok := a.Get(p11.CKA_EC_POINT); ok {
				params, _ := a.Get(p11.CKA_EC_PARAMS)
				c, err := pkix.CurveOf(params)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := pkix.ECPublic(pkix.GoArithmetic{}, c, point); err != nil || len(point) != 67 {
					t.Errorf("the point has %d bytes (%v)", len(point), err)
				}
			}
			if err := change(t.Context(), s, list[0]); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// change writes an object anew.
func change(ctx context.Context, s *store.Store, o *tokens.Object) error {
	_, err := s.Update(ctx, o.Handle, func(a p11.Attributes) (p11.Attributes, error) { return a.With(p11.CKA_ID, []byte{1}), nil })
	return err
}

// TestRead has what stock stores of keys.
func TestRead(t *testing.T) {
	x, y := elliptic.P256().Params().Gx, elliptic.P256().Params().Gy
	point := make([]byte, 65)
	point[0] = 4
	x.FillBytes(point[1:33])
	y.FillBytes(point[33:])
	der := pkix.DERPoint(point)
	ed := bytes.Repeat([]byte{4}, 32)
	for name, tt := range map[string]struct {
		curve, params string
		given, want   []byte
	}{
		"raw":                      {"ec", "0x06082a8648ce3d030107", point, der},
		"raw and a byte":           {"ec", "0x06082a8648ce3d030107", append(bytes.Clone(point), 4), der},
		"DER":                      {"ec", "0x06082a8648ce3d030107", der, der},
		"DER and a byte":           {"ec", "0x06082a8648ce3d030107", append(bytes.Clone(der), 0), der},
		"DER and two bytes":        {"ec", "0x06082a8648ce3d030107", append(bytes.Clone(der), 0, 0), append(bytes.Clone(der), 0, 0)},
		"too short":                {"ec", "0x06082a8648ce3d030107", point[:64], point[:64]},
		"of a curve nobody knows":  {"ec", "0x06022a03", point, point},
		"of Edwards, raw":          {"ec-edwards", "0x06032b6570", ed, pkix.DERPoint(ed)},
		"of Edwards, raw and more": {"ec-edwards", "0x06032b6570", append(bytes.Clone(ed), 1), pkix.DERPoint(ed)},
		"of Edwards, DER and more": {"ec-edwards", "0x06032b6570", append(pkix.DERPoint(ed), 1), pkix.DERPoint(ed)},
		"empty":                    {"ec", "0x06082a8648ce3d030107", nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			a := parse(t, "class=public-key key-type="+tt.curve+" ec-params="+tt.params)
			a.Set(p11.CKA_EC_POINT, tt.given)
			got, _ := Read(a).Get(p11.CKA_EC_POINT)
			if !bytes.Equal(got, tt.want) {
				t.Errorf("%x is %x, not %x", tt.given, got, tt.want)
			}
		})
	}
	for name, tt := range map[string]struct{ given, want string }{
		"zeros are no value":          {"class=secret-key key-type=aes value=0x00000000000000000000000000000000 ibm-opaque=0x01", "class=secret-key key-type=aes ibm-opaque=0x01 value-len=16"},
		"nor are they of length 0":    {"class=secret-key key-type=generic-secret value-len=0 value=0x0000 ibm-opaque=0x01", "class=secret-key key-type=generic-secret value-len=2 ibm-opaque=0x01"},
		"nothing is no value":         {"class=secret-key key-type=aes value-len=16 value=\"\" ibm-opaque=0x01", "class=secret-key key-type=aes value-len=16 ibm-opaque=0x01"},
		"noise is no length":          {"class=private-key key-type=rsa value-len=71565728 modulus=\"\" public-exponent=\"\" private-exponent=\"\" ibm-opaque=0x01", "class=private-key key-type=rsa ibm-opaque=0x01"},
		"a key without blob is its":   {"class=secret-key key-type=aes value=0x00000000000000000000000000000000", "class=secret-key key-type=aes value=0x00000000000000000000000000000000"},
		"an empty blob is none":       {"class=secret-key key-type=aes value=0x00 ibm-opaque=\"\"", "class=secret-key key-type=aes value=0x00 ibm-opaque=\"\""},
		"data that looks like it":     {"class=data value=0x00 application=a", "class=data value=0x00 application=a"},
		"another blob is no value":    {"class=secret-key key-type=aes value-len=16 ibm-opaque=0x01 ibm-opaque-reenc=0x02", "class=secret-key key-type=aes value-len=16 ibm-opaque=0x01 ibm-opaque-reenc=0x02"},
		"a subprime is no prime":      {"class=private-key key-type=dsa prime=0x0102 subprime=\"\" ibm-opaque=0x01", "class=private-key key-type=dsa subprime=0x0102 ibm-opaque=0x01"},
		"public numbers are no noise": {"class=public-key key-type=rsa modulus=0x01 value-len=3 ibm-opaque=0x30", "class=public-key key-type=rsa modulus=0x01 value-len=3 ibm-opaque=0x30"},
	} {
		t.Run(name, func(t *testing.T) {
			got, want := Read(parse(t, tt.given)), parse(t, tt.want)
			if !got.Match(want) || !want.Match(got) {
				t.Errorf("%v, not %v", got, want)
			}
		})
	}
}

// TestWritten reads back what is written.
func TestWritten(t *testing.T) {
	kind, _ := format.KindOf("ep11tok")
	o, err := Reading(format.V38(kind, rand.Reader)).Objects(nil)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := format.V38(kind, rand.Reader).Objects(nil)
	if err != nil {
		t.Fatal(err)
	}
	n, ok := format.ParseName("00000000")
	if !ok {
		t.Fatal("it is no name")
	}
	a := parse(t, "class=secret-key key-type=aes token=true private=false value-len=16 ibm-opaque=0x01")
	file, err := o.Seal(n, a, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, got, err := plain.Open(n, file)
	if v, ok := got.Get(p11.CKA_VALUE); err != nil || !ok || len(v) > 0 || len(got) != len(a)+1 {
		t.Errorf("written is %v (%v)", got, err)
	}
	_, got, err = o.Open(n, file)
	if err != nil || !got.Match(a) || !a.Match(got) {
		t.Errorf("read is %v (%v)", got, err)
	}
	a.Set(p11.CKA_IBM_OPAQUE, make([]byte, MaxBlob+1))
	if file, err = plain.Seal(n, a, nil); err != nil {
		t.Fatal(err)
	}
	if _, _, err := o.Open(n, file); !errors.Is(err, format.ErrDamaged) {
		t.Errorf("a blob of %d bytes: %v", MaxBlob+1, err)
	}
}

// adopter completes as a token does whose keys have values.
type adopter struct{}

func (adopter) Adopt(_ context.Context, a p11.Attributes) (p11.Attributes, error) {
	if err := pkix.Complete(&a); err != nil {
		a.Wipe()
		return nil, err
	}
	return a, nil
}

// TestAdopt gives keys into a card, and refuses what it cannot have.
func TestAdopt(t *testing.T) {
	value := bytes.Repeat([]byte{7}, 16)
	give := func() p11.Attributes {
		a := parse(t, "class=secret-key key-type=aes")
		a.Set(p11.CKA_VALUE, bytes.Clone(value))
		return a
	}
	a := give()
	given, _ := a.Get(p11.CKA_VALUE)
	a, err := Adopt(t.Context(), a, adopter{}, func(_ context.Context, a p11.Attributes) ([]byte, error) {
		if v, _ := a.Get(p11.CKA_VALUE); !bytes.Equal(v, value) {
			t.Errorf("the card gets %x", v)
		}
		return []byte("blob"), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n, _ := a.Ulong(p11.CKA_VALUE_LEN); a.Has(p11.CKA_VALUE) || n != 16 || !bytes.Equal(given, make([]byte, 16)) {
		t.Errorf("left is %v of %x", a, given)
	}
	for at, want := range map[p11.AttributeType]tokens.Visibility{
		p11.CKA_VALUE: tokens.Withheld, p11.CKA_IBM_OPAQUE: tokens.Shown, p11.CKA_IBM_OPAQUE_OLD: tokens.Shown, p11.CKA_LABEL: tokens.Readable,
	} {
		if got := Visibility(a, at); got != want {
			t.Errorf("%s: %v, not %v", at, got, want)
		}
	}
	if got := Visibility(give(), p11.CKA_VALUE); got != tokens.Readable {
		t.Errorf("the value of a key that is no blob: %v", got)
	}
	refused := errors.New("refused")
	for name, answer := range map[string]struct {
		blob []byte
		err  error
		rv   p11.RV
	}{
		"an error":        {nil, p11.Errorf(p11.CKR_DEVICE_REMOVED, "%w", refused), p11.CKR_DEVICE_REMOVED},
		"nothing":         {nil, nil, p11.CKR_DEVICE_ERROR},
		"a blob too long": {make([]byte, MaxBlob+1), nil, p11.CKR_DEVICE_ERROR},
	} {
		a := give()
		given, _ := a.Get(p11.CKA_VALUE)
		_, err := Adopt(t.Context(), a, adopter{}, func(context.Context, p11.Attributes) ([]byte, error) { return answer.blob, answer.err })
		if p11.RVOf(err) != answer.rv || !bytes.Equal(given, make([]byte, 16)) {
			t.Errorf("%s: %v, and %x is left", name, err, given)
		}
	}
}

// FuzzRead has no object that hands out a value beside a blob, or is another when it is
// read again.
func FuzzRead(f *testing.F) {
	for _, text := range []string{
		"class=secret-key key-type=aes value=0x0000 ibm-opaque=0x01",
		"class=public-key key-type=ec ec-params=0x06082a8648ce3d030107 ec-point=0x0404040404",
		"class=private-key key-type=ec-edwards ec-params=0x06032b6570 ec-point=0x0401 ibm-opaque=0x3000 value-len=1",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a, err := p11.ParseTemplate(text)
		if err != nil {
			return
		}
		once := Read(a.Clone())
		if again := Read(once.Clone()); !again.Match(once) || !once.Match(again) {
			t.Errorf("%v is %v, and then %v", a, once, again)
		}
		if Secured(once) && once.Has(p11.CKA_VALUE) {
			t.Errorf("%v has a value", once)
		}
		if w := Read(Written(once).Clone()); !w.Match(once) || !once.Match(w) {
			t.Errorf("%v is written and read as %v", once, w)
		}
	})
}
