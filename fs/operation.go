package fs

import (
	"context"
	"slices"
	"strings"

	"p11fs/engine"
	"p11fs/p11"
)

// An operation is one kind of data file that keys have.
type operation struct {
	name     string
	usage    p11.AttributeType // that allows it
	function p11.Flags         // that a mechanism has for it
	classes  []p11.ObjectClass
	// defaults are the mechanisms that the bare name stands for, by key type:
	// the first that the token has.
	defaults map[p11.KeyType][]p11.Mechanism
	file     func(k *keyFile) *file
	template bool // attributes may follow the mechanism
}

// A keyFile is a data file of a key.
type keyFile struct {
	objects
	ref     objectRef
	path    string // names the file in the session's exchanges
	keyType p11.KeyType

	mechanism p11.Mechanism
	template  p11.Attributes
	// bare is set if the mechanism is the default one, whose form is that of the
	// openssl command line: DER for ECDSA, the IV in front of AES-GCM.
	bare bool
}

// operations are the data files that keys have, in the order of the listing.
func operations() []operation {
	mech := func(types ...p11.MechanismType) (list []p11.Mechanism) {
		for _, t := range types {
			list = append(list, p11.Mechanism{Type: t})
		}
		return list
	}
	oaep := []p11.Mechanism{{Type: p11.CKM_RSA_PKCS_OAEP, Param: &p11.OAEPParams{Hash: p11.CKM_SHA256, MGF: p11.CKG_MGF1_SHA256}}}
	signing := map[p11.KeyType][]p11.Mechanism{
		p11.CKK_RSA:            mech(p11.CKM_SHA256_RSA_PKCS),
		p11.CKK_EC:             mech(p11.CKM_ECDSA_SHA256),
		p11.CKK_EC_EDWARDS:     mech(p11.CKM_EDDSA),
		p11.CKK_DSA:            mech(p11.CKM_DSA_SHA256),
		p11.CKK_GENERIC_SECRET: mech(p11.CKM_SHA256_HMAC),
		p11.CKK_SHA256_HMAC:    mech(p11.CKM_SHA256_HMAC),
		p11.CKK_AES:            mech(p11.CKM_AES_CMAC),
		p11.CKK_ML_DSA:         mech(p11.CKM_ML_DSA),
		p11.CKK_SLH_DSA:        mech(p11.CKM_SLH_DSA),
		p11.CKK_IBM_ML_DSA:     mech(p11.CKM_IBM_ML_DSA),
	}
	ciphers := map[p11.KeyType][]p11.Mechanism{
		p11.CKK_RSA: oaep,
		p11.CKK_AES: mech(p11.CKM_AES_GCM),
	}
	wrapping := map[p11.KeyType][]p11.Mechanism{
		p11.CKK_RSA:           oaep,
		p11.CKK_EC:            {{Type: p11.CKM_ECDH_AES_KEY_WRAP, Param: ecdhAES()}},
		p11.CKK_EC_MONTGOMERY: {{Type: p11.CKM_ECDH_X_AES_KEY_WRAP, Param: ecdhAES()}},
		p11.CKK_AES:           mech(p11.CKM_AES_KEY_WRAP_KWP, p11.CKM_AES_KEY_WRAP_PAD, p11.CKM_AES_KEY_WRAP),
	}
	ecdh := []p11.Mechanism{{Type: p11.CKM_ECDH1_DERIVE, Param: &p11.ECDH1Params{KDF: p11.CKD_NULL}}}
	deriving := map[p11.KeyType][]p11.Mechanism{p11.CKK_EC: ecdh, p11.CKK_EC_MONTGOMERY: ecdh, p11.CKK_DH: mech(p11.CKM_DH_PKCS_DERIVE)}
	agreed := []p11.Mechanism{{Type: p11.CKM_ECDH1_DERIVE, Param: &p11.ECDH1Params{KDF: p11.CKD_SHA256_KDF}}}
	kem := map[p11.KeyType][]p11.Mechanism{p11.CKK_ML_KEM: mech(p11.CKM_ML_KEM), p11.CKK_EC: agreed, p11.CKK_EC_MONTGOMERY: agreed}
	holders := []p11.ObjectClass{p11.CKO_PRIVATE_KEY, p11.CKO_SECRET_KEY}
	others := []p11.ObjectClass{p11.CKO_PUBLIC_KEY, p11.CKO_SECRET_KEY}
	return []operation{
		{"sign", p11.CKA_SIGN, p11.CKF_SIGN, holders, signing, signFile, false},
		{"verify", p11.CKA_VERIFY, p11.CKF_VERIFY, others, signing, verifyFile, false},
		{"encrypt", p11.CKA_ENCRYPT, p11.CKF_ENCRYPT, others, ciphers, encryptFile, false},
		{"decrypt", p11.CKA_DECRYPT, p11.CKF_DECRYPT, holders, ciphers, decryptFile, false},
		{"wrap", p11.CKA_WRAP, p11.CKF_WRAP, others, wrapping, wrapFile, false},
		{"unwrap", p11.CKA_UNWRAP, p11.CKF_UNWRAP, holders, wrapping, unwrapFile, true},
		{"derive", p11.CKA_DERIVE, p11.CKF_DERIVE, holders, deriving, deriveFile, true},
		{"encapsulate", p11.CKA_ENCAPSULATE, p11.CKF_ENCAPSULATE, others, kem, encapsulateFile, true},
		{"decapsulate", p11.CKA_DECAPSULATE, p11.CKF_DECAPSULATE, holders, kem, decapsulateFile, true},
	}
}

// ecdhAES is the parameter of wrapping through ECDH where none is given.
func ecdhAES() *p11.ECDHAESKeyWrapParams {
	return &p11.ECDHAESKeyWrapParams{AESKeyBits: 256, KDF: p11.CKD_SHA256_KDF}
}

// allowed reports whether the key's class has the operation and its attributes
// allow it.
func (o operation) allowed(i engine.ObjectInfo) bool {
	return o.serves(i) && i.Attrs.Bool(o.usage)
}

// serves says whether keys of the class do what the operation does. To openCryptoki,
// encapsulation is a derivation with a public key.
func (o operation) serves(i engine.ObjectInfo) bool {
	return slices.Contains(o.classes, i.Class) || o.function == p11.CKF_DERIVE && i.KeyType == p11.CKK_IBM_ML_KEM
}

// derivesPublic says whether the operation makes the public half of a private key, which
// needs no leave.
func (o operation) derivesPublic(i engine.ObjectInfo, spec string) bool {
	if o.function != p11.CKF_DERIVE || i.Class != p11.CKO_PRIVATE_KEY {
		return false
	}
	m, _, err := p11.ParseOperation(spec)
	return err == nil && m.Type == p11.CKM_PUB_KEY_FROM_PRIV_KEY
}

// refusal says why the key has no file for the operation.
func (o operation) refusal(slot *engine.Slot, i engine.ObjectInfo) error {
	can := func(m p11.MechanismInfo) bool {
		facts, _ := p11.MechanismFacts(m.Type)
		return m.Flags&o.function != 0 && slices.Contains(facts.KeyTypes, i.KeyType)
	}
	why := "the key has no " + o.usage.Short() + "=true"
	advice := "use a key that has, or give it that, as p11fs set KEY " + o.usage.Short() + "=true does"
	switch {
	case !slices.ContainsFunc(slot.Mechanisms(), can):
		why, advice = "no key of type "+i.KeyType.Short()+" can "+o.name, "use a key of another type; the key's file mechanisms lists what this one can do"
	case !o.serves(i):
		why, advice = "a "+i.Class.Short()+" does not "+o.name, "use the other key of the pair"
	}
	return p11.Advise(p11.Errorf(p11.CKR_KEY_FUNCTION_NOT_PERMITTED, "%s", why), advice)
}

// byDefault is the mechanism that the bare name stands for: the first of the defaults that
// the key allows, or the only one that it allows at all, if that needs no parameter.
func (o operation) byDefault(slot *engine.Slot, i engine.ObjectInfo) (p11.Mechanism, error) {
	only, restricted := i.Attrs.Mechanisms()
	can := func(t p11.MechanismType) bool {
		info, err := slot.Mechanism(t)
		return err == nil && info.Flags&o.function != 0 && (!restricted || slices.Contains(only, t))
	}
	for _, m := range o.defaults[i.KeyType] {
		if can(m.Type) {
			return m, nil
		}
	}
	fits := slices.DeleteFunc(only, func(t p11.MechanismType) bool {
		facts, _ := p11.MechanismFacts(t)
		return !can(t) || !slices.Contains(facts.KeyTypes, i.KeyType)
	})
	if len(fits) == 1 {
		if m, err := p11.ParseMechanism(fits[0].Short()); err == nil && m.Validate() == nil {
			return m, nil
		}
	}
	return p11.Mechanism{}, p11.Advise(p11.Errorf(p11.CKR_MECHANISM_INVALID, "%s has no default for this key", o.name),
		"name a mechanism behind a colon; the key's file mechanisms lists those that fit")
}

// operation finds the data file of that name: sign, or sign:MECH,param=value…, or, of those
// that make keys, unwrap:,attribute=value…
func (d *objectDir) operation(i engine.ObjectInfo, name string) (*entry, error) {
	word, spec, exact := strings.Cut(name, ":")
	n := slices.IndexFunc(d.fs.ops, func(o operation) bool { return o.name == word })
	if n < 0 || !isKey(i.Class) {
		return nil, errNoView
	}
	o := d.fs.ops[n]
	if !o.allowed(i) && !o.derivesPublic(i, spec) {
		// Who asks for exactly this, or makes the file, gets a reason.
		if !exact && !slices.Contains(o.classes, i.Class) {
			return nil, errNoView
		}
		return nil, o.refusal(d.slot, i)
	}
	k := &keyFile{objects: d.objects, ref: d.ref, path: d.path(name), keyType: i.KeyType, bare: !exact}
	var err error
	switch {
	case !exact:
		k.mechanism, err = o.byDefault(d.slot, i)
	case o.template && strings.HasPrefix(spec, ","): // attributes alone
		if k.mechanism, err = o.byDefault(d.slot, i); err == nil {
			k.template, err = p11.ParseTemplate(spec[1:])
		}
	case o.template:
		k.mechanism, k.template, err = p11.ParseOperation(spec)
	default:
		k.mechanism, err = p11.ParseMechanism(spec)
	}
	if err != nil {
		return nil, err
	}
	if m, err := d.slot.Mechanism(k.mechanism.Type); err != nil {
		return nil, err
	} else if m.Flags&o.function == 0 {
		return nil, p11.Errorf(p11.CKR_MECHANISM_INVALID, "mechanism %s does not %s", k.mechanism.Type.Short(), o.name)
	}
	return &entry{place: d.place, path: k.path, perm: 0o660, file: o.file(k)}, nil
}

// key is what the application of s knows of the key, but for its value.
func (k *keyFile) key(ctx context.Context, s *session) (engine.ObjectInfo, error) {
	return k.outline(ctx, s.app.eng, k.ref)
}
