package integration

import (
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/tokens/tokentest"
)

// TestCrossOpenSSL puts the token beside libcrypto, by testdata/libcrypto.py, which has
// nothing of our binding: for every mechanism of the token, what one makes the other
// verifies, decrypts, unwraps or derives too, and the reverse. It runs with this machine's
// libcrypto, and with that of Debian 13, which has the post-quantum algorithms, where
// contrib/trixie.sh has fetched it.
func TestCrossOpenSSL(t *testing.T) {
	t.Parallel()
	needTools(t, "python3")
	for _, host := range []struct {
		name string
		open func(t *testing.T) *orders
	}{
		{"here", func(t *testing.T) *orders {
			return runOrders(t, exec.Command("python3", "-B", "testdata/libcrypto.py"))
		}},
		{"Debian 13", func(t *testing.T) *orders {
			needRoot(t)
			root, err := filepath.Abs(trixieRoot)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(filepath.Join(root, "made-by")); err != nil {
				t.Skip("needs libcrypto of Debian 13: sh contrib/trixie.sh build/trixie fetches it")
			}
			program, err := os.ReadFile("testdata/libcrypto.py")
			if err != nil {
				t.Fatal(err)
			}
			return runOrders(t, exec.Command("chroot", root, "/usr/bin/python3", "-B", "-c", string(program)))
		}},
	} {
		t.Run(host.name, func(t *testing.T) {
			t.Parallel()
			d, _ := ready(t, daemonConfig{binary: plainBinary(t)})
			x := &judged{ours: newSide(t, newOrders(t, d, "sh", "-c", moduleApplication, "sh", ownModule(t)), userPIN), judge: host.open(t)}
			x.t = t
			x.version = strings.TrimPrefix(x.ask("version"), "OpenSSL_")
			for _, m := range slices.Sorted(func(yield func(p11.MechanismType) bool) {
				for m := range x.ours.flags {
					if !yield(m) {
						return
					}
				}
			}) {
				t.Run(m.Short(), func(t *testing.T) {
					x.t, x.ours.a.r.t, x.ours.a.o.t, x.judge.t = t, t, t, t
					x.m = p11.Mechanism{Type: m, Param: p11.SampleParam(m)}
					x.facts, _ = p11.MechanismFacts(m)
					x.done = 0
					reason := x.check()
					if (x.done > 0) == (reason != "") {
						t.Errorf("%d checks, and a reason for none: %q", x.done, reason)
					}
				})
			}
			x.t, x.ours.a.r.t, x.ours.a.o.t, x.judge.t = t, t, t, t
		})
	}
}

// judged is a mechanism of ours beside libcrypto.
type judged struct {
	t       *testing.T
	ours    *crossSide
	judge   *orders
	version string
	m       p11.Mechanism
	facts   p11.Facts
	done    int // checks
}

// ask has libcrypto do something.
func (x *judged) ask(words ...any) string {
	x.t.Helper()
	line := strings.TrimSuffix(fmt.Sprintln(words...), "\n")
	answer := x.judge.begin(line)()
	if strings.HasPrefix(answer, "error") {
		x.t.Fatalf("libcrypto: %.300s: %s", line, answer)
	}
	return answer
}

// same compares what both have made.
func (x *judged) same(ours, theirs string) {
	x.t.Helper()
	x.done++
	if ours != theirs || ours == "" {
		x.t.Errorf("ours is %s, libcrypto's %s", ours, theirs)
	}
}

func (x *judged) word() string { return mechanismWord(x.m) }

// modern says whether libcrypto has the post-quantum algorithms.
func (x *judged) modern() bool {
	var major, minor int
	_, _ = fmt.Sscanf(x.version, "%d.%d", &major, &minor)
	return major > 3 || major == 3 && minor >= 5
}

// opensslHash is a hash by libcrypto's name, empty for one that it has not.
func opensslHash(m p11.MechanismType) string {
	name := strings.TrimPrefix(m.Short(), "ibm-")
	switch {
	case strings.HasPrefix(name, "blake2b"):
		return map[string]string{"blake2b-512": "BLAKE2B-512"}[name]
	case name == "sha-1":
		return "SHA1"
	}
	return strings.ToUpper(name)
}

// opensslLacks says of which mechanisms libcrypto has nothing to compare with.
func opensslLacks(m p11.MechanismType) string {
	name := m.Short()
	for _, lack := range []struct{ begins, why string }{
		{"p11fs-stream", "it is Tink's form, which a test of the soft token compares with"},
		{"aes-cfb64", "libcrypto has no segments of 64 bits of AES"},
		{"concatenate-", "there is no cryptography in it"},
		{"xor-", "there is no cryptography in it"},
		{"extract-", "there is no cryptography in it"},
		{"ike", "libcrypto has no function of IKE"},
		{"ssl3-pre-master", "random bytes behind a version"},
		{"tls-pre-master", "random bytes behind a version"},
		{"ssl3-", "libcrypto does SSL 3 inside libssl alone; openCryptoki 3.8.1 is put beside it"},
		{"tls-key-and-mac", "several keys, which hashes of RFCs in tests of the soft token tell"},
		{"tls12-key-", "several keys, which hashes of RFCs in tests of the soft token tell"},
		{"sp800-108-", "a test of the soft token compares with openssl(1), in each form that it has"},
		{"ibm-ml-", "the standard's algorithm with IBM's form of keys, which tests of the soft token compare"},
	} {
		if strings.HasPrefix(name, lack.begins) {
			return lack.why
		}
	}
	return ""
}

// check runs all that the mechanism does, or says why not.
func (x *judged) check() string {
	m, f := x.m.Type, x.facts
	name := m.Short()
	if why := opensslLacks(m); why != "" {
		return why
	}
	hash := f.Hash
	if h, ok := p11.HashOf(m); ok {
		hash = h.Type
	}
	if hash != 0 && opensslHash(hash) == "" {
		return "libcrypto has BLAKE2b of 64 bytes alone"
	}
	kt := p11.CKK_GENERIC_SECRET
	if len(f.KeyTypes) > 0 {
		kt = f.KeyTypes[0]
	}
	if slices.Contains([]p11.KeyType{p11.CKK_ML_DSA, p11.CKK_ML_KEM, p11.CKK_SLH_DSA}, kt) && !x.modern() {
		return "this libcrypto has no post-quantum algorithms"
	}
	switch {
	case f.Functions&p11.CKF_GENERATE_KEY_PAIR != 0:
		x.pair(kt)
	case f.Functions&p11.CKF_GENERATE != 0:
		return x.generate(kt)
	case f.Functions&p11.CKF_DIGEST != 0:
		x.same(x.ours.operate("one", "digest", "-", x.word(), hexOf("data")).one(), x.ask("digest", opensslHash(hash), hexOf("data")))
	case m == p11.CKM_PUB_KEY_FROM_PRIV_KEY:
		private, public := x.der(p11.CKK_RSA)
		x.same(fmt.Sprintf("%x", public), x.ask("public", fmt.Sprintf("%x", private)))
		made := x.ours.call("deriveby", x.ours.key(x.t, p11.CKK_RSA).private, x.word(), words("class=public-key key-type=rsa token=false private=false")).one()
		x.same(x.ours.get(made, p11.CKA_PUBLIC_KEY_INFO).one(), fmt.Sprintf("%x", public))
	case kt == p11.CKK_RSA:
		x.rsa(hash)
	case kt == p11.CKK_ML_KEM:
		x.kem()
	case f.Functions&p11.CKF_DERIVE != 0 && (kt == p11.CKK_EC || kt == p11.CKK_DH):
		x.agree(kt)
		if m == p11.CKM_ECDH1_DERIVE {
			x.agree(p11.CKK_EC_MONTGOMERY)
		}
	case f.Functions&p11.CKF_WRAP != 0 && (kt == p11.CKK_EC || kt == p11.CKK_EC_MONTGOMERY):
		x.wrapAgreed(kt)
	case f.Functions&p11.CKF_SIGN != 0 && slices.Contains([]p11.KeyType{p11.CKK_EC, p11.CKK_EC_EDWARDS, p11.CKK_DSA, p11.CKK_ML_DSA, p11.CKK_SLH_DSA}, kt):
		x.sign(kt, hash)
	case f.Functions&p11.CKF_SIGN != 0:
		x.mac(kt, hash)
	case f.Functions&p11.CKF_ENCRYPT != 0:
		x.cipher(kt)
	case f.Functions&p11.CKF_DERIVE != 0:
		x.derive(kt, hash, name)
	}
	return ""
}

// der is the token's key of a type, private and public.
func (x *judged) der(kt p11.KeyType) (private, public []byte) {
	x.t.Helper()
	k := x.ours.key(x.t, kt)
	attrs := k.privateAttrs.Clone()
	if point, ok := k.publicAttrs.Get(p11.CKA_EC_POINT); ok {
		attrs = attrs.With(p11.CKA_EC_POINT, point)
	}
	private, err := pkix.EncodePrivateKey(attrs)
	if err != nil {
		x.t.Fatal(err)
	}
	text, err := pkix.PublicPEM(k.publicAttrs)
	if err != nil {
		x.t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	return private, block.Bytes
}

// pair has libcrypto check a new pair, and make the public half of the private one.
func (x *judged) pair(kt p11.KeyType) {
	delete(x.ours.keys, kt)
	private, public := x.der(kt)
	x.same(fmt.Sprintf("%x", public), x.ask("public", fmt.Sprintf("%x", private)))
	x.ask("check", fmt.Sprintf("%x", private))
}

// generate makes a secret key, which is used with another mechanism beside libcrypto.
func (x *judged) generate(kt p11.KeyType) string {
	switch p := x.m.Param.(type) {
	case *p11.PBKD2Params:
		made := x.ours.call("generate", x.word(), words("class=secret-key key-type=generic-secret value-len=40"+openKey)).one()
		x.same(x.ours.get(made, p11.CKA_VALUE).one(), x.ask("kdf", "PBKDF2", fmt.Sprintf("digest=s:SHA256,pass=x:%x,salt=x:%x,iter=u:%d,pkcs5=i:1", p.Password, p.Salt, p.Iterations), 40))
		return ""
	}
	if kt == p11.CKK_DH || kt == p11.CKK_DSA {
		return x.parameters(kt)
	}
	if maker, ok := x.ours.makerOf(kt); !ok || maker != x.m.Type {
		x.t.Errorf("%s makes these keys", maker)
	}
	delete(x.ours.keys, kt)
	user := map[p11.KeyType]p11.MechanismType{
		p11.CKK_AES: p11.CKM_AES_ECB, p11.CKK_AES_XTS: p11.CKM_AES_XTS, p11.CKK_DES: p11.CKM_DES_ECB, p11.CKK_DES2: p11.CKM_DES3_ECB, p11.CKK_DES3: p11.CKM_DES3_ECB,
		p11.CKK_CHACHA20: p11.CKM_CHACHA20, p11.CKK_POLY1305: p11.CKM_POLY1305, p11.CKK_HKDF: p11.CKM_HKDF_DERIVE, p11.CKK_GENERIC_SECRET: p11.CKM_SHA256_HMAC,
	}[kt]
	for _, h := range p11.Hashes() {
		if h.KeyGen == x.m.Type {
			user = h.HMAC
		}
	}
	if _, ok := x.ours.flags[user]; !ok {
		return fmt.Sprintf("nothing uses a key of type %s", kt.Short())
	}
	if h, ok := p11.MechanismFacts(user); ok && h.Hash != 0 && opensslHash(h.Hash) == "" {
		return "libcrypto has BLAKE2b of 64 bytes alone"
	}
	facts, _ := p11.MechanismFacts(user)
	x.m, x.facts = p11.Mechanism{Type: user, Param: p11.SampleParam(user)}, facts
	switch {
	case facts.Functions&p11.CKF_SIGN != 0:
		x.mac(kt, facts.Hash)
	case facts.Functions&p11.CKF_ENCRYPT != 0:
		x.cipher(kt)
	default:
		x.derive(kt, facts.Hash, user.Short())
	}
	return ""
}

// parameters has libcrypto check a pair of the group that was made.
func (x *judged) parameters(kt p11.KeyType) string {
	if kt == p11.CKK_DH {
		return "a group of ours is no named one, which libcrypto checks alone; SoftHSM2 is put beside it"
	}
	asked := template("token=false private=false")
	asked.SetUlong(p11.CKA_PRIME_BITS, 1024)
	group := x.ours.call("generate", x.word(), encode(asked)).one()
	public := template("token=false private=false verify=true")
	for _, at := range []p11.AttributeType{p11.CKA_PRIME, p11.CKA_SUBPRIME, p11.CKA_BASE} {
		public = public.With(at, unhex(x.t, x.ours.get(group, at).one()))
	}
	pair := x.ours.call("pair", mech(p11.CKM_DSA_KEY_PAIR_GEN), encode(public), words("token=false private=false sensitive=false extractable=true sign=true")).must()
	der, err := pkix.EncodePrivateKey(x.ours.attributes(x.t, p11.CKO_PRIVATE_KEY, kt, pair.values[1]))
	if err != nil {
		x.t.Fatal(err)
	}
	x.ask("check", fmt.Sprintf("%x", der))
	x.done++
	return ""
}

// sign has each side verify what the other signs.
func (x *judged) sign(kt p11.KeyType, hash p11.MechanismType) {
	private, public := x.der(kt)
	k, data := x.ours.key(x.t, kt), (&crossWay{m: x.m}).message()
	theirs, digest, options, raw := data, "-", "-", false
	context := []byte("context")
	switch _, shake, _ := strings.Cut(x.m.Type.Short(), "dsa-shake"); {
	case kt == p11.CKK_EC_EDWARDS:
		x.m.Param = nil // of which older ones have no context
	case kt == p11.CKK_EC || kt == p11.CKK_DSA:
		if raw = hash == 0; !raw {
			digest = opensslHash(hash)
		}
	case x.facts.Param == p11.ParamHashContext: // of a digest
		p := x.m.Param.(*p11.HashSignContext)
		p.Context = context
		theirs, options = x.prehashed(context, opensslHash(p.Hash), data), "message-encoding=i:0"
	default:
		x.m.Param = &p11.SignContext{Hedge: p11.CKH_HEDGE_PREFERRED, Context: context}
		switch {
		case shake != "": // twice the strength that each has
			name := "SHAKE" + shake
			theirs, options = x.prehashed(context, name, x.ask("digest", name, data, map[string]int{"128": 32, "256": 64}[shake])), "message-encoding=i:0"
		case hash != 0:
			theirs, options = x.prehashed(context, opensslHash(hash), x.ask("digest", opensslHash(hash), data)), "message-encoding=i:0"
		default:
			options = fmt.Sprintf("context-string=x:%x", context)
		}
	}
	sig := x.ours.operate("one", "sign", k.private, x.word(), data).one()
	form, back := func(s string) string { return s }, func(s string) string { return s }
	if kt == p11.CKK_EC || kt == p11.CKK_DSA { // libcrypto has them as DER
		size := len(sig) / 2
		form = func(s string) string {
			der, err := pkix.ECDSARawToDER(unhex(x.t, s))
			if err != nil {
				x.t.Fatal(err)
			}
			return fmt.Sprintf("%x", der)
		}
		back = func(s string) string {
			b, err := pkix.ECDSADERToRaw(unhex(x.t, s), size)
			if err != nil {
				x.t.Fatal(err)
			}
			return fmt.Sprintf("%x", b)
		}
	}
	if raw {
		x.ask("rawverify", fmt.Sprintf("%x", public), options, theirs, form(sig))
		sig = x.ask("raw", "sign", fmt.Sprintf("%x", private), options, theirs)
	} else {
		x.ask("verify", fmt.Sprintf("%x", public), digest, options, theirs, form(sig))
		sig = x.ask("sign", fmt.Sprintf("%x", private), digest, options, theirs)
	}
	x.ours.call("verify", k.public, x.word(), data, back(sig)).must()
	x.done++
}

// prehashed is the message that HashML-DSA and HashSLH-DSA sign (FIPS 204 §5.4, FIPS 205
// §10.2.2), which libcrypto takes as it is.
func (x *judged) prehashed(context []byte, name, digest string) string {
	id := map[string]int{"SHA224": 4, "SHA256": 1, "SHA384": 2, "SHA512": 3, "SHA3-224": 7, "SHA3-256": 8, "SHA3-384": 9, "SHA3-512": 10, "SHAKE128": 11, "SHAKE256": 12}[name]
	oid, err := asn1.Marshal(asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, id})
	if err != nil || id == 0 {
		x.t.Fatalf("%s: %v", name, err)
	}
	return fmt.Sprintf("01%02x%x%x%s", len(context), context, oid, digest)
}

func (x *judged) kem() {
	private, public := x.der(p11.CKK_ML_KEM)
	k := x.ours.key(x.t, p11.CKK_ML_KEM)
	made := words("class=secret-key key-type=generic-secret value-len=32" + openKey)
	ours := x.ours.call("encapsulate", k.public, x.word(), made).must()
	x.same(x.ours.get(ours.values[1], p11.CKA_VALUE).one(), x.ask("decapsulate", fmt.Sprintf("%x", private), ours.values[0]))
	ciphertext, secret, _ := strings.Cut(x.ask("encapsulate", fmt.Sprintf("%x", public)), " ")
	x.same(x.ours.get(x.ours.call("decapsulate", k.private, x.word(), ciphertext, made).one(), p11.CKA_VALUE).one(), secret)
}

// rsa is every mechanism with RSA keys.
func (x *judged) rsa(hash p11.MechanismType) {
	private, public := x.der(p11.CKK_RSA)
	priv, pub := fmt.Sprintf("%x", private), fmt.Sprintf("%x", public)
	k, data := x.ours.key(x.t, p11.CKK_RSA), (&crossWay{m: x.m}).message()
	padding, verifies := "rsa_padding_mode=pkcs1", x.facts.Functions&p11.CKF_SIGN != 0
	whole := fmt.Sprintf("%0*s", 512, data)
	pad := func(s string) string { return s }
	switch p := x.m.Param.(type) {
	case *p11.PSSParams:
		mgf := ""
		for _, h := range p11.Hashes() {
			if h.MGF == p.MGF {
				mgf = opensslHash(h.Type)
			}
		}
		padding = fmt.Sprintf("rsa_padding_mode=pss,rsa_pss_saltlen=%d,rsa_mgf1_md=%s", p.SaltLen, mgf)
		if hash == 0 {
			padding += ",digest=" + opensslHash(p.Hash)
		}
	case *p11.OAEPParams:
		padding = "rsa_padding_mode=oaep,rsa_oaep_md=" + opensslHash(p.Hash) + ",rsa_mgf1_md=" + opensslHash(p.Hash)
	case *p11.RSAAESKeyWrapParams:
		x.rsaAES(k, priv, pub, p)
		return
	}
	if x.m.Type == p11.CKM_RSA_X_509 {
		padding, pad = "rsa_padding_mode=none", func(string) string { return whole }
	}
	if verifies && hash != 0 {
		x.ask("verify", pub, opensslHash(hash), padding, data, x.ours.operate("one", "sign", k.private, x.word(), data).one())
		x.ours.call("verify", k.public, x.word(), data, x.ask("sign", priv, opensslHash(hash), padding, data)).must()
		x.done++
		return
	}
	if verifies {
		x.ask("rawverify", pub, padding, pad(data), x.ours.operate("one", "sign", k.private, x.word(), data).one())
		x.ours.call("verify", k.public, x.word(), data, x.ask("raw", "sign", priv, padding, pad(data))).must()
		x.done++
	}
	if x.facts.Functions&p11.CKF_SIGN_RECOVER != 0 {
		x.same(pad(data), x.ask("raw", "recover", pub, padding, x.ours.operate("one", "signrecover", k.private, x.word(), data).one()))
		x.same(x.ours.operate("one", "verifyrecover", k.public, x.word(), x.ask("raw", "sign", priv, padding, pad(data))).one(), pad(data))
	}
	if x.facts.Functions&p11.CKF_ENCRYPT != 0 {
		x.same(pad(data), x.ask("raw", "decrypt", priv, padding, x.ours.operate("one", "encrypt", k.public, x.word(), data).one()))
		x.same(x.ours.operate("one", "decrypt", k.private, x.word(), x.ask("raw", "encrypt", pub, padding, pad(data))).one(), pad(data))
	}
}

// rsaAES takes apart what is wrapped by a key of AES that is wrapped itself, and puts such
// a thing together.
func (x *judged) rsaAES(k *crossKey, priv, pub string, p *p11.RSAAESKeyWrapParams) {
	padding := "rsa_padding_mode=oaep,rsa_oaep_md=" + opensslHash(p.OAEP.Hash) + ",rsa_mgf1_md=" + opensslHash(p.OAEP.Hash)
	wrapped := x.ours.call("wrap", k.public, x.word(), x.ours.secret(x.t, p11.CKK_GENERIC_SECRET, []byte("a key"))).one()
	key := x.ask("raw", "decrypt", priv, padding, wrapped[:512])
	x.same(hexOf("a key"), x.ask("cipher", "decrypt", fmt.Sprintf("AES-%d-WRAP-PAD", p.AESKeyBits), key, "-", "-", wrapped[512:]))
	wrapped = x.ask("raw", "encrypt", pub, padding, key) + x.ask("cipher", "encrypt", fmt.Sprintf("AES-%d-WRAP-PAD", p.AESKeyBits), key, "-", "-", hexOf("another"))
	x.same(x.unwrapped(k.private, wrapped), hexOf("another"))
}

func (x *judged) unwrapped(key, wrapped string) string {
	return x.ours.get(x.ours.call("unwrap", key, x.word(), wrapped, words("class=secret-key key-type=generic-secret"+openKey)).one(), p11.CKA_VALUE).one()
}

// agree derives with one key of the token and with another one.
func (x *judged) agree(kt p11.KeyType) {
	private, _ := x.der(kt)
	k := x.ours.key(x.t, kt)
	delete(x.ours.keys, kt)
	_, peer := x.der(kt)
	other := x.ours.keys[kt]
	at, length := p11.CKA_EC_POINT, 32
	if kt == p11.CKK_DH {
		at, length = p11.CKA_VALUE, tokentest.Group(kt).P.BitLen()/8
	}
	value, _ := other.publicAttrs.Get(at)
	if kt == p11.CKK_DH {
		x.m.Param = p11.RawParam(value)
	} else {
		x.m.Param = &p11.ECDH1Params{KDF: p11.CKD_NULL, PublicData: value}
	}
	made := x.ours.call("deriveby", k.private, x.word(), words(fmt.Sprintf("class=secret-key key-type=generic-secret value-len=%d", length)+openKey)).one()
	x.same(x.ours.get(made, p11.CKA_VALUE).one(), x.ask("derive", fmt.Sprintf("%x", private), fmt.Sprintf("%x", peer), map[bool]string{true: "dh_pad=1", false: "-"}[kt == p11.CKK_DH]))
}

// wrapAgreed takes apart what is wrapped by a key of AES that two keys agree on, and puts
// such a thing together: the point of a key for once, and the key wrapped behind it.
func (x *judged) wrapAgreed(kt p11.KeyType) {
	p := x.m.Param.(*p11.ECDHAESKeyWrapParams)
	private, public := x.der(kt)
	k := x.ours.key(x.t, kt)
	delete(x.ours.keys, kt)
	otherPrivate, otherPublic := x.der(kt)
	point := otherPublic[len(otherPublic)-map[p11.KeyType]int{p11.CKK_EC: 65, p11.CKK_EC_MONTGOMERY: 32}[kt]:]
	cipher := fmt.Sprintf("AES-%d-WRAP-PAD", p.AESKeyBits)
	kek := func(private, peer []byte) string {
		z := x.ask("derive", fmt.Sprintf("%x", private), fmt.Sprintf("%x", peer), "-")
		return x.ask("kdf", "X963KDF", "digest=s:SHA256,key=x:"+z, p.AESKeyBits/8)
	}
	wrapper := x.ours.call("create", encode(k.publicAttrs.With(p11.CKA_WRAP, p11.Bool(true)))).one()
	unwrapper := x.ours.call("create", encode(k.privateAttrs.With(p11.CKA_UNWRAP, p11.Bool(true)))).one()
	wrapped := unhex(x.t, x.ours.call("wrap", wrapper, x.word(), x.ours.secret(x.t, p11.CKK_GENERIC_SECRET, []byte("a key"))).one())
	theirs := append(otherPublic[:len(otherPublic)-len(point):len(otherPublic)-len(point)], wrapped[:len(point)]...)
	x.same(hexOf("a key"), x.ask("cipher", "decrypt", cipher, kek(private, theirs), "-", "-", fmt.Sprintf("%x", wrapped[len(point):])))
	made := fmt.Sprintf("%x", point) + x.ask("cipher", "encrypt", cipher, kek(otherPrivate, public), "-", "-", hexOf("another"))
	x.same(x.unwrapped(unwrapper, made), hexOf("another"))
}
