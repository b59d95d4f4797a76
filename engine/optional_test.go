package engine

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/tokentest/hooks"
)

// watchedToken has a mechanism list that changes.
type watchedToken struct {
	*hooks.Token
	list    []p11.MechanismInfo
	changed func()
}

func (t *watchedToken) Mechanisms() []p11.MechanismInfo { return t.list }

func (t *watchedToken) Watch(changed func()) (stop func()) {
	t.changed = changed
	return func() { t.changed = nil }
}

func TestWatcher(t *testing.T) {
	ctx := t.Context()
	token := &watchedToken{Token: hooks.New("tok", hooks.Options{})}
	b := benchOf(t, token.Token, token, Limits{})
	s := b.session(t, b.app(), rw)
	sha := mech(t, "sha256")
	want(t, s.DigestInit(ctx, sha), p11.CKR_MECHANISM_INVALID)
	token.list = token.Token.Mechanisms()
	token.changed()
	want(t, s.DigestInit(ctx, sha), p11.CKR_OK)
	want(t, s.SessionCancel(ctx, p11.CKF_DIGEST), p11.CKR_OK)
	token.list = slices.DeleteFunc(slices.Clone(token.list), func(m p11.MechanismInfo) bool { return m.Type == p11.CKM_SHA256 })
	token.changed()
	want(t, s.DigestInit(ctx, sha), p11.CKR_MECHANISM_INVALID)
	if _, err := b.slot.Mechanism(p11.CKM_SHA512); err != nil {
		t.Error(err)
	}
	want(t, b.Close(), p11.CKR_OK)
	if token.changed != nil {
		t.Error("the engine is closed, and still watches")
	}
}

// offlineToken is there although its keys may not be.
type offlineToken struct {
	*hooks.Token
	why error
}

func (t *offlineToken) Offline() error { return t.why }

func TestOffliner(t *testing.T) {
	ctx := t.Context()
	token := &offlineToken{Token: hooks.New("tok", hooks.Options{})}
	b := benchOf(t, token.Token, token, Limits{})
	s := b.user(t)
	mac, aes := create(t, s, macKey+" label=x"), create(t, s, aesKey+" wrap=true unwrap=true extractable=true")
	hmac, cbc := mech(t, "sha256-hmac"), mech(t, "aes-cbc-pad,iv="+zeroIV)
	wrapped, err := s.WrapKey(ctx, cbc, aes, aes)
	if err != nil {
		t.Fatal(err)
	}
	calls := map[string]func() error{
		"Sign":     func() error { _, err := s.Begin(ctx, p11.CKF_SIGN, hmac, mac); return err },
		"SignInit": func() error { return s.SignInit(ctx, hmac, mac) },
		"GenerateKey": func() error {
			_, err := s.GenerateKey(ctx, mech(t, "aes-key-gen"), tmpl(t, "value-len=16"))
			return err
		},
		"WrapKey": func() error { _, err := s.WrapKey(ctx, cbc, aes, aes); return err },
		"UnwrapKey": func() error {
			_, err := s.UnwrapKey(ctx, cbc, aes, wrapped, tmpl(t, "class=secret-key key-type=aes"))
			return err
		},
		"GeneratePair": func() error {
			_, _, err := s.GenerateKeyPair(ctx, mech(t, "ec-key-pair-gen"), tmpl(t, "ec-params=secp256r1"), nil)
			return err
		},
	}
	for rv, why := range map[p11.RV]error{
		p11.CKR_DEVICE_REMOVED: errors.New("the card was taken out"),
		p11.CKR_DEVICE_ERROR:   p11.Errorf(p11.CKR_DEVICE_ERROR, "no contact"),
	} {
		token.why = why
		for name, call := range calls {
			t.Run(name, func(t *testing.T) {
				err := call()
				want(t, err, rv)
				if !errors.Is(err, token.why) {
					t.Errorf("%v does not say why", err)
				}
			})
		}
	}
	if err := b.slot.Offline(); !errors.Is(err, token.why) {
		t.Errorf("the slot says %v", err)
	}
	found, err := s.Find(ctx, tmpl(t, "label=x"))
	if err != nil || len(found) != 1 {
		t.Errorf("found %v, %v", found, err)
	}
	want(t, get(t, s, mac, p11.CKA_LABEL).Err, p11.CKR_OK)
	want(t, s.SetAttributeValue(ctx, mac, tmpl(t, "label=y")), p11.CKR_OK)
	token.why = nil
	for name, call := range calls {
		t.Run(name+" again", func(t *testing.T) { want(t, call(), p11.CKR_OK) })
	}
	want(t, b.slot.Offline(), p11.CKR_OK)
}

// restingToken is away until it is asked and has come back.
type restingToken struct {
	offlineToken
	away, back error
}

func (t *restingToken) Away() (time.Time, error) { return time.Unix(1, 0), t.away }

func (t *restingToken) Describe(context.Context) []string {
	t.away = t.back
	return nil
}

// TestRester: for who watches it a token that may be tried again is offline until something
// answers. It is asked when it may be, and then alone.
func TestRester(t *testing.T) {
	token := &restingToken{offlineToken: offlineToken{Token: hooks.New("tok", hooks.Options{})}}
	b := benchOf(t, token.Token, token, Limits{})
	gone := errors.New("no server")
	for _, step := range []struct {
		name              string
		away, offline, on error
		want              bool
	}{
		{"never tried", nil, nil, nil, false},
		{"has just failed", gone, gone, nil, true},
		{"may be tried, and fails", gone, nil, gone, true},
		{"is left alone", gone, gone, nil, true},
		{"may be tried, and answers", gone, nil, nil, false},
	} {
		token.away, token.why, token.back = step.away, step.offline, step.on
		if got := b.slot.away(t.Context()); got != step.want {
			t.Errorf("%s: offline %v", step.name, got)
		}
	}
}

// remoteToken has keys elsewhere: Adopt puts a name in the place of their values,
// which nobody sees, and Forget is told which are not needed any more.
type remoteToken struct {
	*hooks.Token
	adopted   []string          // labels
	values    map[string][]byte // what is elsewhere, by name
	forgotten []string          // names
}

const remoteName = p11.CKA_VENDOR_DEFINED | 1

func newRemoteBench(t *testing.T, o hooks.Options) (*bench, *remoteToken) {
	t.Helper()
	token := &remoteToken{Token: hooks.New("tok", o), values: make(map[string][]byte)}
	return benchOf(t, token.Token, token, Limits{}), token
}

func (t *remoteToken) Adopt(ctx context.Context, attrs p11.Attributes) (p11.Attributes, error) {
	attrs, err := t.Token.Adopt(ctx, attrs)
	if err != nil {
		return nil, err
	}
	t.adopted = append(t.adopted, attrs.Label())
	if class, _ := attrs.Class(); isSecretClass(class) {
		value, _ := attrs.Get(p11.CKA_VALUE)
		name := string(rune('a' + len(t.values)))
		t.values[name] = slices.Clone(value)
		attrs.Set(remoteName, []byte(name))
	}
	return attrs, nil
}

func (t *remoteToken) Forget(attrs p11.Attributes) {
	if name, ok := attrs.Get(remoteName); ok {
		t.forgotten = append(t.forgotten, string(name))
	}
}

func (t *remoteToken) Visibility(_ p11.Attributes, at p11.AttributeType) tokens.Visibility {
	switch at {
	case remoteName:
		return tokens.Hidden
	case p11.CKA_VALUE:
		return tokens.Withheld
	}
	return tokens.Readable
}

// EncapsulateKey is no cryptography: the ciphertext is the secret.
func (t *remoteToken) EncapsulateKey(_ context.Context, _ p11.Mechanism, _ *tokens.Object, template p11.Attributes) ([]byte, p11.Attributes, error) {
	template.Set(p11.CKA_VALUE, []byte("a shared secret"))
	return []byte("a shared secret"), template, nil
}

func (t *remoteToken) DecapsulateKey(_ context.Context, _ p11.Mechanism, _ *tokens.Object, ciphertext []byte, template p11.Attributes) (p11.Attributes, error) {
	if len(ciphertext) == 0 {
		return template, p11.CKR_ENCRYPTED_DATA_INVALID
	}
	template.Set(p11.CKA_VALUE, slices.Clone(ciphertext))
	return template, nil
}

func (t *remoteToken) Mechanisms() []p11.MechanismInfo {
	return append(t.Token.Mechanisms(), p11.MechanismInfo{Type: p11.CKM_ML_KEM, Flags: p11.CKF_ENCAPSULATE | p11.CKF_DECAPSULATE})
}

// Whatever comes to be is adopted once, and a copy never.
func TestAdopter(t *testing.T) {
	ctx := t.Context()
	b, token := newRemoteBench(t, hooks.Options{})
	s := b.user(t)
	cbc := mech(t, "aes-cbc-pad,iv="+zeroIV)
	aes := create(t, s, aesKey+" wrap=true unwrap=true extractable=true")
	wrapped, err := s.WrapKey(ctx, cbc, aes, aes)
	if err != nil {
		t.Fatal(err)
	}
	pub, priv := generateEC(t, s, "", "derive=true")
	point := get(t, s, pub, p11.CKA_EC_POINT)
	ecdh := p11.Mechanism{Type: p11.CKM_ECDH1_DERIVE, Param: &p11.ECDH1Params{KDF: p11.CKD_NULL, PublicData: point.Value[2:]}}
	kem := func(class string) p11.ObjectHandle {
		return b.token.Put(tmpl(t, "token=true private=false key-type=ml-kem encapsulate=true decapsulate=true class="+class)).Handle
	}
	public, private := kem("public-key"), kem("private-key")
	m := p11.Mechanism{Type: p11.CKM_ML_KEM, Param: nil}

	for _, where := range []string{"token=false", "token=true"} {
		for name, c := range map[string]struct {
			make func(template string) (p11.ObjectHandle, error)
			want []string
		}{
			"create": {func(x string) (p11.ObjectHandle, error) { return s.CreateObject(ctx, tmpl(t, macKey+x)) }, []string{"new"}},
			"data":   {func(x string) (p11.ObjectHandle, error) { return s.CreateObject(ctx, tmpl(t, "class=data"+x)) }, []string{"new"}},
			"generate": {func(x string) (p11.ObjectHandle, error) {
				return s.GenerateKey(ctx, mech(t, "aes-key-gen"), tmpl(t, "value-len=16"+x))
			}, []string{"new"}},
			"generate a pair": {func(x string) (p11.ObjectHandle, error) {
				_, h := generateEC(t, s, x+"-pub", x)
				return h, nil
			}, []string{"new-pub", "new"}},
			"unwrap": {func(x string) (p11.ObjectHandle, error) {
				return s.UnwrapKey(ctx, cbc, aes, wrapped, tmpl(t, "class=secret-key key-type=aes"+x))
			}, []string{"new"}},
			"derive": {func(x string) (p11.ObjectHandle, error) {
				return s.DeriveKey(ctx, ecdh, priv, tmpl(t, "value-len=16"+x))
			}, []string{"new"}},
			"encapsulate": {func(x string) (p11.ObjectHandle, error) {
				_, h, err := s.EncapsulateKey(ctx, m, public, tmpl(t, x), NoLimit)
				return h, err
			}, []string{"new"}},
			"decapsulate": {func(x string) (p11.ObjectHandle, error) {
				return s.DecapsulateKey(ctx, m, private, []byte("secret"), tmpl(t, x))
			}, []string{"new"}},
		} {
			t.Run(name+" "+where, func(t *testing.T) {
				token.adopted = nil
				h, err := c.make(" " + where + " label=new")
				if err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(token.adopted, c.want) {
					t.Errorf("adopted %q, want %q", token.adopted, c.want)
				}
				token.adopted = nil
				for _, copied := range []string{"token=false", "token=true"} {
					if _, err := s.CopyObject(ctx, h, tmpl(t, copied)); err != nil {
						t.Error(err)
					}
				}
				want(t, s.SetAttributeValue(ctx, h, tmpl(t, "label=renamed")), p11.CKR_OK)
				if token.adopted != nil {
					t.Errorf("a copy or a change was adopted: %q", token.adopted)
				}
			})
		}
	}
}

// Both sides of a key encapsulation come to one secret.
func TestEncapsulator(t *testing.T) {
	ctx := t.Context()
	b, token := newRemoteBench(t, hooks.Options{})
	s := b.user(t)
	m := p11.Mechanism{Type: p11.CKM_ML_KEM}
	put := func(template string) p11.ObjectHandle {
		return b.token.Put(tmpl(t, "token=true private=false key-type=ml-kem "+template)).Handle
	}
	public, private := put("class=public-key encapsulate=true"), put("class=private-key decapsulate=true")
	ciphertext, here, err := s.EncapsulateKey(ctx, m, public, tmpl(t, "label=here"), NoLimit)
	want(t, err, p11.CKR_OK)
	there, err := s.DecapsulateKey(ctx, m, private, ciphertext, tmpl(t, "label=there"))
	want(t, err, p11.CKR_OK)
	if a, b := token.values["a"], token.values["b"]; string(a) != "a shared secret" || string(b) != string(a) {
		t.Errorf("the secrets are %q and %q", a, b)
	}
	for _, h := range []p11.ObjectHandle{here, there} {
		if r := get(t, s, h, p11.CKA_KEY_TYPE); string(r.Value) != string(p11.Ulong(p11.CKK_GENERIC_SECRET)) || flag(t, s, h, p11.CKA_LOCAL) {
			t.Errorf("key type %x (%v)", r.Value, r.Err)
		}
	}
	for _, room := range []int{OnlyLength, len(ciphertext) - 1} { // and no key is left
		var short *BufferError
		if _, _, err := s.EncapsulateKey(ctx, m, public, tmpl(t, "label=lost"), room); !errors.As(err, &short) || short.Need != len(ciphertext) {
			t.Errorf("room of %d: %v", room, err)
		}
	}
	if left, err := s.Find(ctx, tmpl(t, "label=lost")); err != nil || len(left) != 0 || len(token.forgotten) != 0 {
		t.Errorf("%d keys, %q, %v", len(left), token.forgotten, err)
	}
	for _, h := range []p11.ObjectHandle{here, there} {
		if flag(t, s, h, p11.CKA_ALWAYS_SENSITIVE) || flag(t, s, h, p11.CKA_NEVER_EXTRACTABLE) || !flag(t, s, h, p11.CKA_EXTRACTABLE) {
			t.Error("the key says that nobody else has it")
		}
	}
	strict := b.token.Put(tmpl(t, "token=true private=false key-type=ml-kem class=public-key encapsulate=true").With(
		p11.CKA_ENCAPSULATE_TEMPLATE, p11.EncodeTemplate(tmpl(t, "extractable=false")))).Handle
	_, _, err = s.EncapsulateKey(ctx, m, strict, nil, NoLimit)
	want(t, err, p11.CKR_KEY_HANDLE_INVALID)
	_, _, err = s.EncapsulateKey(ctx, m, strict, tmpl(t, "extractable=false"), NoLimit)
	want(t, err, p11.CKR_OK)
	imposing := b.token.Put(tmpl(t, "token=true private=false key-type=ml-kem class=private-key decapsulate=true").With(
		p11.CKA_DECAPSULATE_TEMPLATE, p11.EncodeTemplate(tmpl(t, "label=imposed")))).Handle
	h, err := s.DecapsulateKey(ctx, m, imposing, ciphertext, nil)
	want(t, err, p11.CKR_OK)
	if r := get(t, s, h, p11.CKA_LABEL); string(r.Value) != "imposed" {
		t.Errorf("label %q", r.Value)
	}
	_, err = s.DecapsulateKey(ctx, m, imposing, ciphertext, tmpl(t, "label=another"))
	want(t, err, p11.CKR_TEMPLATE_INCONSISTENT)
	_, _, err = s.EncapsulateKey(ctx, m, private, nil, NoLimit)
	want(t, err, p11.CKR_KEY_FUNCTION_NOT_PERMITTED)
	_, err = s.DecapsulateKey(ctx, m, public, ciphertext, nil)
	want(t, err, p11.CKR_KEY_FUNCTION_NOT_PERMITTED)
	_, err = s.DecapsulateKey(ctx, m, private, nil, nil)
	want(t, err, p11.CKR_ENCRYPTED_DATA_INVALID)

	// A token without it may say what it likes in its list.
	b2 := newBench(t, hooks.Options{})
	_, _, err = b2.user(t).EncapsulateKey(ctx, m, 1, nil, NoLimit)
	want(t, err, p11.CKR_MECHANISM_INVALID)
}

// What a token hides is not there, and what it withholds cannot be read, whatever the
// key's own attributes say.
func TestHider(t *testing.T) {
	ctx := t.Context()
	b, _ := newRemoteBench(t, hooks.Options{})
	s := b.user(t)
	h := create(t, s, macKey+" label=x sensitive=false extractable=true")
	want(t, get(t, s, h, remoteName).Err, p11.CKR_ATTRIBUTE_TYPE_INVALID)
	want(t, get(t, s, h, p11.CKA_VALUE).Err, p11.CKR_ATTRIBUTE_SENSITIVE)
	want(t, get(t, s, h, p11.CKA_LABEL).Err, p11.CKR_OK)
	info, err := s.Application().Object(ctx, b.slot, h)
	if err != nil || info.Attrs.Has(remoteName) || info.Attrs.Has(p11.CKA_VALUE) || !info.Attrs.Has(p11.CKA_LABEL) {
		t.Errorf("%v, %v", info.Attrs, err)
	}
	named := p11.Attributes{{Type: remoteName, Value: []byte("a")}}
	for _, template := range []p11.Attributes{named, tmpl(t, "value=0x0001020304050607")} {
		if found, err := s.Find(ctx, template); err != nil || len(found) != 0 {
			t.Errorf("found %v, %v", found, err)
		}
	}
	want(t, s.SetAttributeValue(ctx, h, named), p11.CKR_ATTRIBUTE_TYPE_INVALID)
	_, err = s.CopyObject(ctx, h, named)
	want(t, err, p11.CKR_ATTRIBUTE_TYPE_INVALID)
	_, err = s.CreateObject(ctx, tmpl(t, macKey).Merge(named))
	want(t, err, p11.CKR_ATTRIBUTE_TYPE_INVALID)
	want(t, s.DigestInit(ctx, mech(t, "sha256")), p11.CKR_OK)
	want(t, s.DigestKey(ctx, h), p11.CKR_KEY_INDIGESTIBLE)

	// The size of an object without what is hidden tells nothing of it.
	hidden, err := s.ObjectSize(ctx, h)
	want(t, err, p11.CKR_OK)
	plain := newBench(t, hooks.Options{})
	p := plain.user(t)
	size, err := p.ObjectSize(ctx, create(t, p, macKey+" label=x sensitive=false extractable=true"))
	if err != nil || size != hidden {
		t.Errorf("%d bytes, and without anything hidden %d (%v)", hidden, size, err)
	}
}

// A session key is forgotten once, when nothing holds it any more.
func TestForgetter(t *testing.T) {
	const key = macKey + " label=key"
	hmac := p11.Mechanism{Type: p11.CKM_SHA256_HMAC}
	for name, c := range map[string]struct {
		use  func(t *testing.T, s *Session, h p11.ObjectHandle) (end func())
		want []string // forgotten at the end of the session, of "a"
	}{
		"itself": {func(*testing.T, *Session, p11.ObjectHandle) func() { return nil }, []string{"a"}},
		"versions": {func(t *testing.T, s *Session, h p11.ObjectHandle) func() {
			want(t, s.SetAttributeValue(t.Context(), h, tmpl(t, "label=two")), p11.CKR_OK)
			want(t, s.SetAttributeValue(t.Context(), h, tmpl(t, "label=three")), p11.CKR_OK)
			return nil
		}, []string{"a"}},
		"a copy": {func(t *testing.T, s *Session, h p11.ObjectHandle) func() {
			c, err := s.CopyObject(t.Context(), h, tmpl(t, "label=copy"))
			want(t, err, p11.CKR_OK)
			want(t, s.DestroyObject(t.Context(), h), p11.CKR_OK)
			_, err = s.CopyObject(t.Context(), c, tmpl(t, "label=again"))
			want(t, err, p11.CKR_OK)
			return nil
		}, []string{"a"}},
		"an operation": {func(t *testing.T, s *Session, h p11.ObjectHandle) func() {
			o, err := s.Begin(t.Context(), p11.CKF_SIGN, hmac, h)
			want(t, err, p11.CKR_OK)
			want(t, s.SetAttributeValue(t.Context(), h, tmpl(t, "label=two")), p11.CKR_OK)
			want(t, s.DestroyObject(t.Context(), h), p11.CKR_OK)
			return o.Close
		}, []string{"a"}},
		"a copy in the token": {func(t *testing.T, s *Session, h p11.ObjectHandle) func() {
			_, err := s.CopyObject(t.Context(), h, tmpl(t, "token=true"))
			want(t, err, p11.CKR_OK)
			return nil
		}, nil},
		"a copy that fails": {func(t *testing.T, s *Session, h p11.ObjectHandle) func() {
			_, err := s.CopyObject(t.Context(), h, tmpl(t, "token=true label=refused"))
			want(t, err, p11.CKR_DEVICE_MEMORY)
			return nil
		}, []string{"a"}},
	} {
		t.Run(name, func(t *testing.T) {
			full := false
			b, token := newRemoteBench(t, hooks.Options{Before: func(method string) error {
				if full && method == "Create" {
					return p11.CKR_DEVICE_MEMORY
				}
				return nil
			}})
			full = name == "a copy that fails"
			s := b.user(t)
			end := c.use(t, s, create(t, s, key))
			if token.forgotten != nil {
				t.Errorf("%q is forgotten, and still there", token.forgotten)
			}
			if end != nil {
				end()
			}
			want(t, s.Close(), p11.CKR_OK)
			if !slices.Equal(token.forgotten, c.want) {
				t.Errorf("forgotten %q, want %q", token.forgotten, c.want)
			}
		})
	}
}

// What was adopted and is not made is forgotten too, in the token or not.
func TestForgetterOfWhatIsNotMade(t *testing.T) {
	ctx := t.Context()
	fail := ""
	b, token := newRemoteBench(t, hooks.Options{Before: func(method string) error {
		if method == fail {
			return p11.CKR_DEVICE_MEMORY
		}
		return nil
	}})
	s := b.user(t)
	fail = "Create"
	// The first is the token's to give up, since it was given to it.
	_, err := s.CreateObjects(ctx, []p11.Attributes{
		tmpl(t, macKey+" token=true label=a"), tmpl(t, macKey+" token=true label=b"), tmpl(t, macKey+" label=c"),
	})
	want(t, err, p11.CKR_DEVICE_MEMORY)
	if slices.Sort(token.forgotten); !slices.Equal(token.forgotten, []string{"b", "c"}) {
		t.Errorf("forgotten %q", token.forgotten)
	}
	fail, token.forgotten = "Adopt", nil
	_, err = s.CreateObjects(ctx, []p11.Attributes{tmpl(t, macKey)})
	want(t, err, p11.CKR_DEVICE_MEMORY)
	if token.forgotten != nil {
		t.Errorf("forgotten %q, which it did not adopt", token.forgotten)
	}
	fail = ""
	for name, limits := range map[string]Limits{"number": {SessionObjects: 1}, "bytes": {Bytes: 2 << 10}} {
		if forgotten := overTheLimit(t, limits); !slices.Equal(forgotten, []string{"a"}) {
			t.Errorf("forgotten %q of what is over the limit in %s", forgotten, name)
		}
	}
}

// overTheLimit makes one session object too many, and returns what is forgotten.
func overTheLimit(t *testing.T, limits Limits) []string {
	t.Helper()
	token := &remoteToken{Token: hooks.New("tok", hooks.Options{}), values: make(map[string][]byte)}
	b := benchOf(t, token.Token, token, limits)
	s := b.user(t)
	create(t, s, "class=data")
	_, err := s.CreateObject(t.Context(), tmpl(t, macKey))
	want(t, err, p11.CKR_DEVICE_MEMORY)
	return token.forgotten
}
