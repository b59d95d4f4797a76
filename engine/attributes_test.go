package engine

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"p11fs/p11"
	"p11fs/tokens/swtok"
	"p11fs/tokens/tokentest"
	"p11fs/tokens/tokentest/hooks"
)

// Each attribute of each kind of object, missing, malformed, twice, forbidden, secret or
// not the object's own, in each template that PKCS#11 has: what is answered is what the
// notes of its table say (v3.2 §4.1, §4.3), and nothing is left of what was refused.

// wholeToken lists all that the software token does.
type wholeToken struct {
	*hooks.Token
	list []p11.MechanismInfo
}

func (t wholeToken) Mechanisms() []p11.MechanismInfo { return t.list }

// attributeBench makes objects of all kinds.
type attributeBench struct {
	*bench
	t       *testing.T
	s       *Session
	rules   *rules
	samples map[kind]p11.Attributes // that C_CreateObject takes
	huge    []byte                  // made once: it takes its time
	tried   int
}

// noSuch are attributes that nothing has: a vendor's, one of the standard's for something
// else, and one that nobody knows.
func noSuch() []p11.AttributeType {
	return []p11.AttributeType{p11.CKA_VENDOR_DEFINED | 0x777, p11.CKA_PIXEL_X, 0x7ffffff0}
}

func TestAttributes(t *testing.T) {
	token := hooks.New("tok", hooks.Options{})
	b := &attributeBench{
		bench: benchOf(t, token, wholeToken{token, swtok.NewCrypto(swtok.GoProvider(), nil).Mechanisms()}, Limits{}),
		t:     t, rules: newRules(), samples: map[kind]p11.Attributes{}, huge: make([]byte, p11.MaxTemplateBytes+1),
	}
	b.s = b.user(t)
	b.makeSamples()
	for k, sample := range b.samples {
		t.Run(fmt.Sprintf("%s %#x", k.class.Short(), k.sub), func(t *testing.T) {
			b.t = t
			set := b.rules.exact[k]
			b.create(set, sample)
			b.change(set, sample)
			b.find(set, sample)
			if isKey(k.class) {
				b.generate(k, set, sample)
			}
			if isSecretClass(k.class) {
				b.unwrap(set, sample)
				b.sensitive(sample)
			}
			if k.class == p11.CKO_SECRET_KEY {
				b.derive(set, sample)
			}
		})
	}
	t.Logf("%d templates", b.tried)
	if b.tried < 5000 {
		t.Errorf("only %d templates were tried", b.tried)
	}
}

// makeSamples makes a template for each kind of object: by hand, or of what was
// generated.
func (b *attributeBench) makeSamples() {
	texts := map[kind]string{
		{class: p11.CKO_DATA}:                                  "class=data value=0x01",
		{p11.CKO_CERTIFICATE, uint64(p11.CKC_X_509)}:           certificate,
		{p11.CKO_CERTIFICATE, uint64(p11.CKC_X_509_ATTR_CERT)}: "class=certificate certificate-type=x-509-attr-cert owner=0x3000 value=0x3000",
		{p11.CKO_CERTIFICATE, uint64(p11.CKC_WTLS)}:            "class=certificate certificate-type=wtls subject=0x3000 value=0x3000",
		{p11.CKO_DOMAIN_PARAMETERS, uint64(p11.CKK_DH)}:        "class=domain-parameters key-type=dh prime=0x17 base=0x02",
		{p11.CKO_DOMAIN_PARAMETERS, uint64(p11.CKK_DSA)}:       "class=domain-parameters key-type=dsa prime=0x17 subprime=0x0b base=0x02",
	}
	for k := range b.rules.exact {
		switch {
		case texts[k] != "":
			b.samples[k] = tmpl(b.t, texts[k])
		case k.class == p11.CKO_SECRET_KEY:
			n := uint64(16)
			if lengths := p11.KeyLengths(p11.KeyType(k.sub)); len(lengths) > 0 {
				n = lengths[0]
			}
			value := make([]byte, n)
			for i := range value {
				value[i] = byte(i*7 + 1)
			}
			b.samples[k] = keySample(k).With(p11.CKA_VALUE, value)
		case k.class == p11.CKO_PRIVATE_KEY:
			b.sampleOfPair(k)
		case !isKey(k.class):
			b.t.Errorf("there is no sample of %s %#x", k.class.Short(), k.sub)
		}
	}
}

func keySample(k kind) p11.Attributes {
	a := p11.Attributes{
		{Type: p11.CKA_CLASS, Value: p11.Ulong(k.class)}, {Type: p11.CKA_KEY_TYPE, Value: p11.Ulong(k.sub)},
		{Type: p11.CKA_PRIVATE, Value: p11.Bool(false)},
	}
	if isSecretClass(k.class) {
		a.SetBool(p11.CKA_SENSITIVE, false)
		a.SetBool(p11.CKA_EXTRACTABLE, true)
	}
	return a
}

// publicPart is what a pair of that type is generated from.
func publicPart(kt p11.KeyType) string {
	return map[p11.KeyType]string{
		p11.CKK_RSA: "modulus-bits=512 public-exponent=0x010001", p11.CKK_EC: "ec-params=secp256r1",
		p11.CKK_EC_EDWARDS: "ec-params=ed25519", p11.CKK_EC_MONTGOMERY: "ec-params=x25519",
		p11.CKK_DH: groupText(p11.CKK_DH), p11.CKK_DSA: groupText(p11.CKK_DSA),
		p11.CKK_ML_DSA: "parameter-set=0x1", p11.CKK_ML_KEM: "parameter-set=0x1", p11.CKK_SLH_DSA: "parameter-set=0x3",
		p11.CKK_IBM_ML_DSA: "ibm-parameter-set=0x1", p11.CKK_IBM_ML_KEM: "ibm-parameter-set=0x1",
	}[kt]
}

// groupText is a group as a template has it.
func groupText(kt p11.KeyType) string {
	var a p11.Attributes
	tokentest.Group(kt).Put(&a)
	return a.Text()
}

// pairMechanism is what generates pairs of a type, if the token and publicPart do.
func (b *attributeBench) pairMechanism(kt p11.KeyType) (m p11.Mechanism, ok bool) {
	for _, info := range b.slot.Mechanisms() {
		facts, _ := p11.MechanismFacts(info.Type)
		if info.Flags&p11.CKF_GENERATE_KEY_PAIR != 0 && slices.Equal(facts.KeyTypes, []p11.KeyType{kt}) && publicPart(kt) != "" && facts.Param == p11.ParamNone {
			return p11.Mechanism{Type: info.Type}, true
		}
	}
	return m, false
}

func (b *attributeBench) sampleOfPair(k kind) {
	kt := p11.KeyType(k.sub)
	m, ok := b.pairMechanism(kt)
	switch {
	case !ok && (kt == p11.CKK_DH || kt == p11.CKK_DSA): // which no mechanism uses
		return
	case !ok:
		b.t.Errorf("there is no sample of a pair of type %s", kt.Short())
		return
	}
	public := kind{p11.CKO_PUBLIC_KEY, k.sub}
	pub, priv, err := b.s.GenerateKeyPair(b.t.Context(), m, tmpl(b.t, publicPart(kt)).Merge(keySample(public)), keySample(k))
	if err != nil {
		b.t.Fatal(err)
	}
	for k, h := range map[kind]p11.ObjectHandle{public: pub, k: priv} {
		sample := keySample(k)
		for _, one := range b.rules.exact[k].rules {
			if r := get(b.t, b.s, h, one.attr); r.Err == nil && one.traits&(needCreate|keyPart) != 0 && one.traits&noCreate == 0 {
				sample.Set(one.attr, r.Value)
			}
		}
		b.samples[k] = sample
	}
}

// A bad value of an attribute, and what a template with it may be answered.
type bad struct {
	name  string
	value []byte
	rvs   []p11.RV
}

// badValues are those whose form is not the attribute's.
func (b *attributeBench) badValues(t p11.AttributeType) []bad {
	invalid := []p11.RV{p11.CKR_ATTRIBUTE_VALUE_INVALID}
	huge := bad{"huge", b.huge, []p11.RV{p11.CKR_ATTRIBUTE_VALUE_INVALID, p11.CKR_TEMPLATE_INCONSISTENT}}
	switch k := p11.KindOf(t); {
	case k.IsUlong():
		return []bad{{"short", make([]byte, 7), invalid}, {"empty", nil, invalid}, {"long", make([]byte, 9), invalid}}
	case k == p11.KindBool:
		return []bad{{"short", nil, invalid}, {"long", make([]byte, 2), invalid}, {"wrong", []byte{2}, invalid}}
	case k == p11.KindDate:
		return []bad{{"short", []byte("2026010"), invalid}, {"long", []byte("202601011"), invalid}, {"wrong", []byte("20261399"), invalid}}
	case k == p11.KindMechanismList:
		return []bad{{"short", make([]byte, 7), invalid}, {"long", make([]byte, 9), invalid}, huge}
	case k == p11.KindTemplate:
		return []bad{{"short", make([]byte, 15), invalid}, {"wrong", p11.EncodeTemplate(p11.Attributes{{Type: p11.CKA_TOKEN, Value: []byte{7}}}), invalid}, huge}
	}
	return []bad{huge}
}

// try makes an object of a template, checks the answer, and that nothing of it is left.
func (b *attributeBench) try(name string, make func() (p11.ObjectHandle, error), rvs ...p11.RV) {
	b.t.Helper()
	b.tried++
	before := b.Stats()
	h, err := make()
	if !slices.Contains(rvs, p11.RVOf(err)) {
		b.t.Errorf("%s: %v (%v), want %v", name, p11.RVOf(err), err, rvs)
	}
	if err == nil {
		want(b.t, b.s.DestroyObject(b.t.Context(), h), p11.CKR_OK)
	}
	if after := b.Stats(); after.SessionObjects != before.SessionObjects || after.PrivateObjects != before.PrivateObjects {
		b.t.Errorf("%s: %v: %d objects before, %d after", name, err, before.SessionObjects, after.SessionObjects)
	}
}

// templates tries what is wrong with each attribute of a template that make takes, which
// an object of that origin comes of.
func (b *attributeBench) templates(o origin, set *ruleset, sample p11.Attributes, make func(p11.Attributes) (p11.ObjectHandle, error)) {
	b.t.Helper()
	attempt := func(name string, t p11.AttributeType, template p11.Attributes, rvs ...p11.RV) {
		b.t.Helper()
		b.try(fmt.Sprintf("%s: %s %s", o, t.Short(), name), func() (p11.ObjectHandle, error) { return make(template) }, rvs...)
	}
	attempt("right", p11.CKA_CLASS, sample, p11.CKR_OK)
	for _, one := range set.rules {
		t := one.attr
		value, given := sample.Get(t)
		without := sample.Clone()
		without.Delete(t)
		switch {
		case given && one.traits&o.needs() != 0 && !mayLack(t, without, o):
			attempt("missing", t, without, p11.CKR_TEMPLATE_INCOMPLETE)
		case given && t != p11.CKA_CLASS && t != p11.CKA_KEY_TYPE: // which a mechanism may tell
			attempt("missing", t, without, p11.CKR_OK, p11.CKR_TEMPLATE_INCOMPLETE)
		}
		for _, v := range b.badValues(t) {
			if v.name == "huge" && o != created {
				continue // it is one check, and takes its time
			}
			attempt(v.name, t, append(slices.Clip(without), p11.Attribute{Type: t, Value: v.value}), v.rvs...)
		}
		if !given {
			value = plausible(t)
		}
		attempt("twice", t, append(without.With(t, value), p11.Attribute{Type: t, Value: value}), p11.CKR_TEMPLATE_INCONSISTENT)
		switch {
		case one.traits&computed == computed:
			attempt("read-only", t, without.With(t, value), p11.CKR_ATTRIBUTE_READ_ONLY)
		case one.traits&o.forbids() != 0:
			attempt("forbidden", t, without.With(t, value), p11.CKR_TEMPLATE_INCONSISTENT)
		case one.traits&trueBySO != 0:
			attempt("by the user", t, without.With(t, p11.Bool(true)), p11.CKR_ATTRIBUTE_READ_ONLY)
		}
	}
	for _, t := range noSuch() {
		attempt("unknown", t, sample.With(t, plausible(t)), p11.CKR_ATTRIBUTE_TYPE_INVALID)
	}
}

// plausible is a value of an attribute's form.
func plausible(t p11.AttributeType) []byte {
	switch k := p11.KindOf(t); {
	case k.IsUlong():
		return p11.Ulong[uint64](1)
	case k == p11.KindBool:
		return p11.Bool(true)
	case k == p11.KindDate:
		return []byte("20260101")
	case k == p11.KindMechanismList:
		return p11.Ulong(p11.CKM_AES_CBC)
	case k == p11.KindTemplate:
		return p11.EncodeTemplate(p11.Attributes{{Type: p11.CKA_TOKEN, Value: p11.Bool(false)}})
	}
	return []byte("x")
}

func (b *attributeBench) create(set *ruleset, sample p11.Attributes) {
	b.templates(created, set, sample, func(template p11.Attributes) (p11.ObjectHandle, error) {
		return b.s.CreateObject(b.t.Context(), template)
	})
	class, _ := sample.Class()
	for _, one := range []p11.AttributeType{p11.CKA_CLASS, subtype(class)} {
		if one == noAttribute {
			continue
		}
		for _, wrong := range []uint64{0x7777, p11.Unavailable} {
			b.try("another "+one.Short(), func() (p11.ObjectHandle, error) {
				return b.s.CreateObject(b.t.Context(), sample.With(one, p11.Ulong(wrong)))
			}, p11.CKR_ATTRIBUTE_VALUE_INVALID)
		}
	}
	// A key's numbers, one bit or byte off.
	for _, one := range set.rules {
		value, given := sample.Get(one.attr)
		if k := p11.KindOf(one.attr); !given || one.traits&keyPart == 0 || k != p11.KindBytes && k != p11.KindBigInt && k != p11.KindCurve {
			continue
		}
		flipped := bytes.Clone(value)
		flipped[len(flipped)-1] ^= 1
		for name, v := range map[string][]byte{"flipped": flipped, "cut": value[:len(value)-1], "long": append(bytes.Clone(value), 1), "empty": {}} {
			b.try(one.attr.Short()+" "+name, func() (p11.ObjectHandle, error) {
				return b.s.CreateObject(b.t.Context(), sample.With(one.attr, v))
			}, p11.CKR_OK, p11.CKR_ATTRIBUTE_VALUE_INVALID, p11.CKR_TEMPLATE_INCONSISTENT, p11.CKR_DOMAIN_PARAMS_INVALID, p11.CKR_CURVE_NOT_SUPPORTED)
		}
	}
}

func (b *attributeBench) generate(k kind, set *ruleset, sample p11.Attributes) {
	kt := p11.KeyType(k.sub)
	if k.class == p11.CKO_SECRET_KEY {
		for _, info := range b.slot.Mechanisms() {
			facts, _ := p11.MechanismFacts(info.Type)
			if info.Flags&p11.CKF_GENERATE == 0 || facts.Param != p11.ParamNone || !slices.Equal(facts.KeyTypes, []p11.KeyType{kt}) {
				continue
			}
			template := sample.Clone()
			value, _ := template.Get(p11.CKA_VALUE)
			template.Delete(p11.CKA_VALUE)
			if len(p11.KeyLengths(kt)) != 1 {
				template.SetUlong(p11.CKA_VALUE_LEN, uint64(len(value)))
			}
			b.templates(generated, set, template, func(template p11.Attributes) (p11.ObjectHandle, error) {
				return b.s.GenerateKey(b.t.Context(), p11.Mechanism{Type: info.Type}, template)
			})
			return
		}
		return
	}
	m, _ := b.pairMechanism(kt)
	public, private := tmpl(b.t, publicPart(kt)).Merge(keySample(kind{p11.CKO_PUBLIC_KEY, k.sub})), keySample(kind{p11.CKO_PRIVATE_KEY, k.sub})
	// The other half goes with it: try looks at what is left.
	pair := func(public, private p11.Attributes) (p11.ObjectHandle, error) {
		pub, priv, err := b.s.GenerateKeyPair(b.t.Context(), m, public, private)
		if err == nil {
			want(b.t, b.s.DestroyObject(b.t.Context(), priv), p11.CKR_OK)
		}
		return pub, err
	}
	if k.class == p11.CKO_PUBLIC_KEY {
		if kt == p11.CKK_RSA {
			public.Delete(p11.CKA_PUBLIC_EXPONENT) // which has a default
		}
		b.templates(generated, set, public, func(template p11.Attributes) (p11.ObjectHandle, error) { return pair(template, private) })
		return
	}
	b.templates(generated, set, private, func(template p11.Attributes) (p11.ObjectHandle, error) { return pair(public, template) })
}

func (b *attributeBench) unwrap(set *ruleset, sample p11.Attributes) {
	ctx := b.t.Context()
	cbc := mech(b.t, "aes-cbc-pad,iv="+zeroIV)
	under := create(b.t, b.s, aesKey+" wrap=true unwrap=true")
	inner, err := b.s.CreateObject(ctx, sample)
	if err != nil {
		b.t.Fatal(err)
	}
	wrapped, err := b.s.WrapKey(ctx, cbc, under, inner)
	if err != nil {
		b.t.Fatal(err)
	}
	class, _ := sample.Class()
	kt, _ := sample.KeyType()
	b.templates(unwrapped, set, keySample(kind{class, uint64(kt)}), func(template p11.Attributes) (p11.ObjectHandle, error) {
		return b.s.UnwrapKey(ctx, cbc, under, wrapped, template)
	})
	want(b.t, b.s.DestroyObject(ctx, inner), p11.CKR_OK)
	want(b.t, b.s.DestroyObject(ctx, under), p11.CKR_OK)
}

func (b *attributeBench) derive(set *ruleset, sample p11.Attributes) {
	ctx := b.t.Context()
	pub, priv := generateEC(b.t, b.s, "", "derive=true")
	point := get(b.t, b.s, pub, p11.CKA_EC_POINT)
	ecdh := p11.Mechanism{Type: p11.CKM_ECDH1_DERIVE, Param: &p11.ECDH1Params{KDF: p11.CKD_SHA512_KDF, PublicData: point.Value[2:]}}
	template := sample.Clone()
	value, _ := template.Get(p11.CKA_VALUE)
	template.Delete(p11.CKA_VALUE)
	if kt, _ := sample.KeyType(); len(p11.KeyLengths(kt)) != 1 {
		template.SetUlong(p11.CKA_VALUE_LEN, uint64(len(value)))
	}
	b.templates(derived, set, template, func(template p11.Attributes) (p11.ObjectHandle, error) {
		return b.s.DeriveKey(ctx, ecdh, priv, template)
	})
	want(b.t, b.s.DestroyObject(ctx, pub), p11.CKR_OK)
	want(b.t, b.s.DestroyObject(ctx, priv), p11.CKR_OK)
}

// change tries C_SetAttributeValue and C_CopyObject.
func (b *attributeBench) change(set *ruleset, sample p11.Attributes) {
	ctx := b.t.Context()
	object, err := b.s.CreateObject(ctx, sample)
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { want(b.t, b.s.DestroyObject(ctx, object), p11.CKR_OK) }()
	copied := func(name string, template p11.Attributes, rvs ...p11.RV) {
		b.t.Helper()
		b.try("copying: "+name, func() (p11.ObjectHandle, error) { return b.s.CopyObject(ctx, object, template) }, rvs...)
	}
	changed := func(name string, template p11.Attributes, rvs ...p11.RV) {
		b.t.Helper()
		b.tried++
		all := b.readable(object)
		err := b.s.SetAttributeValue(ctx, object, template)
		if !slices.Contains(rvs, p11.RVOf(err)) {
			b.t.Errorf("changing: %s: %v (%v), want %v", name, p11.RVOf(err), err, rvs)
		}
		if now := b.readable(object); err != nil && !slices.EqualFunc(all, now, sameAttribute) {
			b.t.Errorf("changing: %s: %v, and the object is another", name, err)
		}
	}
	for _, one := range set.rules {
		t := one.attr
		malformed := func(rvs []p11.RV) []p11.RV { return append(rvs, p11.CKR_ATTRIBUTE_READ_ONLY) }
		for _, v := range b.badValues(t) {
			copied(t.Short()+" "+v.name, p11.Attributes{{Type: t, Value: v.value}}, malformed(v.rvs)...)
			changed(t.Short()+" "+v.name, p11.Attributes{{Type: t, Value: v.value}}, malformed(v.rvs)...)
		}
		value := plausible(t)
		twice := p11.Attributes{{Type: t, Value: value}, {Type: t, Value: value}}
		copied(t.Short()+" twice", twice, p11.CKR_TEMPLATE_INCONSISTENT)
		changed(t.Short()+" twice", twice, p11.CKR_TEMPLATE_INCONSISTENT)
		if old, _ := b.readable(object).Get(t); one.traits&(modifiable|trueBySO|onCopy) == 0 && !bytes.Equal(old, value) {
			other := p11.Attributes{{Type: t, Value: value}}
			copied(t.Short()+" read-only", other, p11.CKR_ATTRIBUTE_READ_ONLY)
			changed(t.Short()+" read-only", other, p11.CKR_ATTRIBUTE_READ_ONLY)
		}
		if one.traits&trueBySO != 0 {
			changed(t.Short()+" by the user", p11.Attributes{{Type: t, Value: p11.Bool(true)}}, p11.CKR_ATTRIBUTE_READ_ONLY)
		}
	}
	for _, t := range noSuch() {
		unknown := p11.Attributes{{Type: p11.CKA_LABEL, Value: []byte("changed")}, {Type: t, Value: plausible(t)}}
		copied(t.Short()+" unknown", unknown, p11.CKR_ATTRIBUTE_TYPE_INVALID)
		changed(t.Short()+" unknown", unknown, p11.CKR_ATTRIBUTE_TYPE_INVALID)
		if r := get(b.t, b.s, object, t); p11.RVOf(r.Err) != p11.CKR_ATTRIBUTE_TYPE_INVALID {
			b.t.Errorf("reading %s: %v", t.Short(), r.Err)
		}
	}
}

// readable is what an object shows of itself.
func (b *attributeBench) readable(h p11.ObjectHandle) p11.Attributes {
	info, err := b.s.Application().Object(b.t.Context(), b.slot, h)
	if err != nil {
		b.t.Fatal(err)
	}
	return info.Attrs
}

func sameAttribute(x, y p11.Attribute) bool { return x.Type == y.Type && bytes.Equal(x.Value, y.Value) }
