package integration

import (
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"p11fs/p11"
	"p11fs/tokens/tokentest"
)

// A crossSide is one of two tokens that are put together: a session with it.
type crossSide struct {
	*handle
	flags map[p11.MechanismType]p11.Flags
	keys  map[p11.KeyType]*crossKey // that it has made
}

// newSide logs in to the token of an application.
func newSide(t *testing.T, o *orders, pin string) *crossSide {
	t.Helper()
	r := &rig{t: t, met: map[string]bool{}}
	a := &application{r, o}
	s := &crossSide{handle: a.open(), flags: map[p11.MechanismType]p11.Flags{}, keys: map[p11.KeyType]*crossKey{}}
	s.login(p11.CKU_USER, pin).must()
	for _, word := range a.call("list").must().values {
		m, flags, _ := strings.Cut(word, ":")
		var n [2]uint64
		for i, text := range []string{m, flags} {
			var err error
			if n[i], err = strconv.ParseUint(text, 16, 64); err != nil {
				t.Fatal(err)
			}
		}
		s.flags[p11.MechanismType(n[0])] = p11.Flags(n[1])
	}
	return s
}

// A crossPeer is a token of others that a machine may have.
type crossPeer struct {
	name  string
	open  func(t *testing.T) *crossSide
	least int // how many mechanisms both have at least
	// reasons say why there is no cross-check of a mechanism that both have: of all of it,
	// or of what they would do, such as "des3-cbc wrap".
	reasons map[string]string
}

func crossPeers() []crossPeer {
	const (
		severalKeys = "it makes several keys, of which a test of the soft token knows what they are"
		noMechanism = "it is in their list, and they answer CKR_MECHANISM_INVALID"
	)
	return []crossPeer{
		{"openCryptoki 3.8.1", openStock381, 40, map[string]string{"ssl3-key-and-mac-derive": severalKeys}},
		{"openCryptoki 3.23", openStock323, 60, map[string]string{
			"ssl3-key-and-mac-derive": severalKeys,
			"aes-cts":                 "this number is another mechanism's there, CKM_AES_CMAC_GENERAL's",
			"aes-ctr":                 "they answer CKR_ARGUMENTS_BAD",
			"des-ofb64 wrap":          noMechanism, "des-ofb64 unwrap": noMechanism, "des-cfb64 wrap": noMechanism, "des-cfb64 unwrap": noMechanism,
			"des-cfb8 wrap": noMechanism, "des-cfb8 unwrap": noMechanism,
		}},
		{"SoftHSM2", openSoftHSM, 60, map[string]string{
			"des-ecb": noMechanism, "des-cbc": noMechanism, "des-cbc-pad": noMechanism, "des-ecb-encrypt-data": noMechanism, "des-cbc-encrypt-data": noMechanism,
			"des3-cbc wrap": noMechanism,
		}},
	}
}

func openStock381(t *testing.T) *crossSide {
	root := workDir(t, "tokens")
	unpackToken(t, root)
	h := startStock(t, root)
	t.Cleanup(h.stop)
	script, err := filepath.Abs("testdata/conformance.py")
	if err != nil {
		t.Fatal(err)
	}
	return newSide(t, h.application("python3 -B "+script+" "+h.module, ""), readManifest(t).UserPIN)
}

func openStock323(t *testing.T) *crossSide {
	host := start323(t, workDir(t, "tokens"))
	host.startSlotd()
	t.Cleanup(host.endSlotd)
	host.initToken("0")
	host.ok("cp testdata/conformance.py testdata/stock_client.py $R/tmp/")
	return newSide(t, host.application("on /usr/bin/python3 -B /tmp/conformance.py $LIBRARY", ""), userPIN)
}

func openSoftHSM(t *testing.T) *crossSide {
	needTools(t, "python3")
	_, err := os.Stat(softHSM)
	need(t, err == nil, softHSM)
	dir := workDir(t, "softhsm")
	conf := filepath.Join(dir, "conf")
	if err := os.WriteFile(conf, []byte("directories.tokendir = "+dir+"\nobjectstore.backend = file\nlog.level = ERROR\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := runOrders(t, exec.Command("env", "SOFTHSM2_CONF="+conf, "python3", "-B", "testdata/conformance.py", softHSM))
	r := &rig{t: t, so: soPIN, met: map[string]bool{}}
	r.a, r.b = &application{r, o}, &application{r, o}
	r.a.call("inittoken", hexOf(soPIN), hexOf("cross")).must()
	r.a.call("again").must()
	s := r.a.open()
	s.login(p11.CKU_SO, soPIN).must()
	s.call("initpin", hexOf(userPIN)).must()
	s.logout().must()
	s.close().must()
	return newSide(t, o, userPIN)
}

// TestCross puts the token beside those of others, with each of our libraries: for every
// mechanism that both list, what one makes, with a key that it has made, the other
// verifies, decrypts, unwraps or derives too, and the reverse.
func TestCross(t *testing.T) {
	t.Parallel()
	needTools(t, "python3")
	for _, provider := range []string{"auto", "go"} {
		for _, peer := range crossPeers() {
			t.Run(provider+"/"+peer.name, func(t *testing.T) {
				t.Parallel()
				theirs := peer.open(t)
				d, _ := ready(t, daemonConfig{binary: plainBinary(t), args: []string{"--provider", provider}})
				ours := newSide(t, newOrders(t, d, "sh", "-c", moduleApplication, "sh", ownModule(t)), userPIN)
				x := &crossing{t: t, ours: ours, theirs: theirs}
				x.all(peer.least, peer.reasons)
			})
		}
	}
}

// A crossing is two sides.
type crossing struct {
	t            *testing.T
	ours, theirs *crossSide
}

// all checks every mechanism that both sides have.
func (x *crossing) all(least int, reasons map[string]string) {
	var both []p11.MechanismType
	for m := range x.ours.flags {
		if _, ok := x.theirs.flags[m]; ok {
			both = append(both, m)
		}
	}
	slices.Sort(both)
	if len(both) < least {
		x.t.Errorf("both have %d mechanisms, not %d", len(both), least)
	}
	met, ran := map[string]bool{}, map[p11.MechanismType]bool{}
	for _, m := range both {
		x.t.Run(m.Short(), func(t *testing.T) {
			ran[m] = true
			for _, s := range []*crossSide{x.ours, x.theirs} {
				s.a.r.t, s.a.o.t = t, t
			}
			if reasons[m.Short()] != "" {
				met[m.Short()] = true
			} else if x.check(t, m, reasons, met) == 0 {
				t.Error("no check, and no reason for none")
			}
		})
	}
	for _, s := range []*crossSide{x.ours, x.theirs} {
		s.a.r.t, s.a.o.t = x.t, x.t
	}
	for what := range reasons {
		name, _, _ := strings.Cut(what, " ")
		m, err := p11.ParseMechanismType(name)
		if err != nil {
			x.t.Errorf("%s: %v", what, err)
		}
		if ran[m] && !met[what] {
			x.t.Errorf("%s: the reason for no check is of none", what)
		}
	}
}

// check runs every use of a mechanism that both sides have, both ways, and says how many.
func (x *crossing) check(t *testing.T, m p11.MechanismType, reasons map[string]string, met map[string]bool) int {
	facts, _ := p11.MechanismFacts(m)
	done := 0
	for _, way := range []struct{ from, to *crossSide }{{x.ours, x.theirs}, {x.theirs, x.ours}} {
		w := &crossWay{t: t, from: way.from, to: way.to, m: p11.Mechanism{Type: m, Param: p11.SampleParam(m)}, facts: facts}
		for _, use := range []struct {
			from, to         p11.Flags
			fromName, toName string
			run              func()
		}{
			{p11.CKF_DIGEST, p11.CKF_DIGEST, "digest", "digest", w.digest},
			{p11.CKF_SIGN, p11.CKF_VERIFY, "sign", "verify", w.sign},
			{p11.CKF_SIGN_RECOVER, p11.CKF_VERIFY_RECOVER, "sign-recover", "verify-recover", w.recover},
			{p11.CKF_ENCRYPT, p11.CKF_DECRYPT, "encrypt", "decrypt", w.encrypt},
			{p11.CKF_WRAP, p11.CKF_UNWRAP, "wrap", "unwrap", w.wrap},
			{p11.CKF_DERIVE, p11.CKF_DERIVE, "derive", "derive", w.derive},
			{p11.CKF_GENERATE, p11.CKF_GENERATE, "generate", "generate", w.generate},
			{p11.CKF_GENERATE_KEY_PAIR, p11.CKF_GENERATE_KEY_PAIR, "generate", "generate", w.generate},
			{p11.CKF_ENCAPSULATE, p11.CKF_DECAPSULATE, "encapsulate", "decapsulate", w.encapsulate},
		} {
			if way.from.flags[m]&use.from == 0 || way.to.flags[m]&use.to == 0 {
				continue
			}
			theirs := m.Short() + " " + map[bool]string{true: use.fromName, false: use.toName}[way.from == x.theirs]
			if reasons[theirs] != "" {
				met[theirs] = true
				continue
			}
			use.run()
			done++
		}
	}
	return done
}

// A crossKey is a key on the side that made it, and what is to be known of it there.
type crossKey struct {
	public, private           string // handles; of a secret key twice the same
	publicAttrs, privateAttrs p11.Attributes
}

// crossUses let a key do what its type can; a secret key all of it.
const (
	publicUses  = " verify=true encrypt=true wrap=true"
	privateUses = " sign=true decrypt=true unwrap=true"
	openKey     = " token=false private=false sensitive=false extractable=true"
)

// usesOf are the uses in templates of a key, as tokens take them that are particular.
func usesOf(class p11.ObjectClass, kt p11.KeyType) string {
	switch kt {
	case p11.CKK_RSA:
		if class == p11.CKO_PUBLIC_KEY {
			return publicUses + " verify-recover=true"
		}
		return privateUses + " sign-recover=true"
	case p11.CKK_EC, p11.CKK_EC_EDWARDS, p11.CKK_DSA, p11.CKK_ML_DSA, p11.CKK_SLH_DSA:
		if class == p11.CKO_PUBLIC_KEY {
			return " verify=true"
		}
		if kt == p11.CKK_EC {
			return " sign=true derive=true"
		}
		return " sign=true"
	case p11.CKK_ML_KEM:
		if class == p11.CKO_PUBLIC_KEY {
			return " encapsulate=true"
		}
		return " decapsulate=true"
	case p11.CKK_DH, p11.CKK_EC_MONTGOMERY:
		if class == p11.CKO_PUBLIC_KEY {
			return ""
		}
		return " derive=true"
	}
	return publicUses + privateUses + " derive=true"
}

// valuesOf are the attributes that make a key.
func valuesOf(class p11.ObjectClass, kt p11.KeyType) []p11.AttributeType {
	public := class == p11.CKO_PUBLIC_KEY
	switch kt {
	case p11.CKK_RSA:
		list := []p11.AttributeType{p11.CKA_MODULUS, p11.CKA_PUBLIC_EXPONENT}
		if public {
			return list
		}
		return append(list, p11.CKA_PRIVATE_EXPONENT, p11.CKA_PRIME_1, p11.CKA_PRIME_2, p11.CKA_EXPONENT_1, p11.CKA_EXPONENT_2, p11.CKA_COEFFICIENT)
	case p11.CKK_EC, p11.CKK_EC_EDWARDS, p11.CKK_EC_MONTGOMERY:
		if public {
			return []p11.AttributeType{p11.CKA_EC_PARAMS, p11.CKA_EC_POINT}
		}
		return []p11.AttributeType{p11.CKA_EC_PARAMS, p11.CKA_VALUE}
	case p11.CKK_ML_DSA, p11.CKK_ML_KEM, p11.CKK_SLH_DSA:
		return []p11.AttributeType{p11.CKA_PARAMETER_SET, p11.CKA_VALUE}
	case p11.CKK_DSA:
		return []p11.AttributeType{p11.CKA_PRIME, p11.CKA_SUBPRIME, p11.CKA_BASE, p11.CKA_VALUE}
	case p11.CKK_DH:
		return []p11.AttributeType{p11.CKA_PRIME, p11.CKA_BASE, p11.CKA_VALUE}
	}
	return []p11.AttributeType{p11.CKA_VALUE}
}

// makerOf is a mechanism of a side that makes keys of a type, if there is one.
func (s *crossSide) makerOf(kt p11.KeyType) (p11.MechanismType, bool) {
	var found []p11.MechanismType
	for m, flags := range s.flags {
		facts, _ := p11.MechanismFacts(m)
		if flags&(p11.CKF_GENERATE|p11.CKF_GENERATE_KEY_PAIR) != 0 && facts.Param == 0 && len(facts.KeyTypes) == 1 && facts.KeyTypes[0] == kt &&
			(kt != p11.CKK_DSA && kt != p11.CKK_DH || flags&p11.CKF_GENERATE == 0) {
			found = append(found, m)
		}
	}
	if len(found) == 0 {
		return 0, false
	}
	return slices.Min(found), true
}

// key is the side's key of a type; one that it has no mechanism to make is of random
// bytes.
func (s *crossSide) key(t *testing.T, kt p11.KeyType) *crossKey {
	t.Helper()
	if s.keys[kt] != nil {
		return s.keys[kt]
	}
	maker, made := s.makerOf(kt)
	k := &crossKey{}
	switch {
	case made && s.flags[maker]&p11.CKF_GENERATE_KEY_PAIR != 0:
		public := template("token=false private=false" + usesOf(p11.CKO_PUBLIC_KEY, kt))
		switch kt {
		case p11.CKK_RSA:
			public = public.Merge(template("modulus-bits=2048 public-exponent=0x010001"))
		case p11.CKK_EC:
			public.Set(p11.CKA_EC_PARAMS, wycheCurve(t, "secp256r1").Params())
		case p11.CKK_EC_EDWARDS:
			public.Set(p11.CKA_EC_PARAMS, wycheCurve(t, "edwards25519").Params())
		case p11.CKK_EC_MONTGOMERY:
			public.Set(p11.CKA_EC_PARAMS, wycheCurve(t, "curve25519").Params())
		case p11.CKK_ML_DSA, p11.CKK_ML_KEM:
			public.SetUlong(p11.CKA_PARAMETER_SET, uint64(p11.CKP_ML_DSA_65)) // of ML-KEM it is 768
		case p11.CKK_SLH_DSA:
			public.SetUlong(p11.CKA_PARAMETER_SET, uint64(p11.CKP_SLH_DSA_SHA2_128F)) // the fastest
		case p11.CKK_DSA:
			tokentest.Group(kt).Put(&public)
		case p11.CKK_DH:
			tokentest.Group(kt).Put(&public)
			public.Delete(p11.CKA_SUBPRIME)
		}
		pair := s.call("pair", mech(maker), encode(public), words("token=false private=false sensitive=false extractable=true"+usesOf(p11.CKO_PRIVATE_KEY, kt))).must()
		k.public, k.private = pair.values[0], pair.values[1]
	case made:
		text := "class=secret-key" + openKey + usesOf(p11.CKO_SECRET_KEY, kt)
		if len(p11.KeyLengths(kt)) != 1 {
			text += " value-len=" + fmt.Sprint(secretLength(kt))
		}
		k.private = s.call("generate", mech(maker), encode(template(text).With(p11.CKA_KEY_TYPE, p11.Ulong(kt)))).one()
		k.public = k.private
	default:
		value := make([]byte, secretLength(kt))
		_, _ = rand.Read(value)
		k.private = s.secret(t, kt, value)
		k.public = k.private
	}
	if k.public != k.private {
		k.publicAttrs = s.attributes(t, p11.CKO_PUBLIC_KEY, kt, k.public)
		k.privateAttrs = s.attributes(t, p11.CKO_PRIVATE_KEY, kt, k.private)
	} else {
		k.privateAttrs = s.attributes(t, p11.CKO_SECRET_KEY, kt, k.private)
	}
	s.keys[kt] = k
	return k
}

// secretLength is a length of secret keys of a type; of a generic one it is one that every
// token takes for HMAC.
func secretLength(kt p11.KeyType) uint64 {
	if lengths := p11.KeyLengths(kt); len(lengths) > 0 {
		return lengths[len(lengths)-1]
	}
	return 64
}

// bufferSize is how long the buffer for a result is, of testdata/conformance.py.
const bufferSize = 65536

// masterSecret is a secret of TLS, which has its length.
const masterSecret = "48 bytes of a secret that two sides have for TLS"

// ofTLS says whether a mechanism takes such a secret.
func ofTLS(m p11.MechanismType) bool {
	return strings.HasPrefix(m.Short(), "ssl3-") || strings.HasPrefix(m.Short(), "tls")
}

// secret is a secret key of a value.
func (s *crossSide) secret(t *testing.T, kt p11.KeyType, value []byte) string {
	t.Helper()
	return s.call("create", encode(template("class=secret-key"+openKey+usesOf(p11.CKO_SECRET_KEY, kt)).With(p11.CKA_KEY_TYPE, p11.Ulong(kt)).With(p11.CKA_VALUE, value))).one()
}

// attributes read a key, as another side can create it.
func (s *crossSide) attributes(t *testing.T, class p11.ObjectClass, kt p11.KeyType, key string) p11.Attributes {
	t.Helper()
	text := "token=false private=false"
	if class != p11.CKO_PUBLIC_KEY {
		text = openKey
	}
	a := template(text+usesOf(class, kt)).With(p11.CKA_CLASS, p11.Ulong(class)).With(p11.CKA_KEY_TYPE, p11.Ulong(kt))
	for _, at := range valuesOf(class, kt) {
		a = a.With(at, unhex(t, s.get(key, at).one()))
	}
	return a
}
