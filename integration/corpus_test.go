package integration

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"p11fs/engine"
	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/secret"
	"p11fs/tokens/memory"
	"p11fs/tokens/swtok"
)

// The corpus: every key and certificate file of the project goes through every door,
// with each cryptographic library. All give one verdict. What is taken is stored as it
// came and can be used; what is not has a reason.

// corpusDir has the files.
const corpusDir = "../p11/pkix/testdata/files"

// corpusPassphrase opens a file of the corpus; one that is not encrypted takes any.
func corpusPassphrase(name string) string {
	switch {
	case name == "nss.p12":
		return "secret"
	case name == "java.p12":
		return "secret12"
	case name == "rsa.unicode.p12":
		return "Pässwört 🔑"
	case strings.HasPrefix(name, "rsa.empty"):
		return ""
	}
	return "correct horse"
}

// A corpusDoor takes objects one by one.
type corpusDoor interface {
	create(t p11.Attributes) (key string, rv p11.RV)
	// unwrap takes the PrivateKeyInfo of a key. can is false where the door has no way.
	unwrap(der []byte, t p11.Attributes) (rv p11.RV, can bool)
	// run signs, encrypts or decrypts.
	run(use p11.Flags, key string, m p11.MechanismType, data []byte) ([]byte, p11.RV)
	verify(key string, m p11.MechanismType, data, signature []byte) p11.RV
	value(key string, t p11.AttributeType) []byte
}

// corpusModule is a module's.
type corpusModule struct {
	s   *handle
	kek string // the key that wraps; "" where the protocol carries no mechanism for that
}

func (d *corpusModule) create(t p11.Attributes) (string, p11.RV) {
	got := d.s.call("create", encode(t))
	if got.rv != p11.CKR_OK {
		return "", got.rv
	}
	return got.one(), p11.CKR_OK
}

func (d *corpusModule) unwrap(der []byte, t p11.Attributes) (p11.RV, bool) {
	if d.kek == "" {
		return 0, false
	}
	by := mech(p11.CKM_AES_CBC_PAD, make([]byte, 16)...)
	wrapped := d.s.a.call("one", "encrypt", d.s.id, d.kek, by, hex.EncodeToString(der)).one()
	return d.s.call("unwrap", d.kek, by, wrapped, encode(t)).rv, true
}

func (d *corpusModule) run(use p11.Flags, key string, m p11.MechanismType, data []byte) ([]byte, p11.RV) {
	name := map[p11.Flags]string{p11.CKF_SIGN: "sign", p11.CKF_ENCRYPT: "encrypt", p11.CKF_DECRYPT: "decrypt"}[use]
	got := d.s.a.call("one", name, d.s.id, key, mech(m), hex.EncodeToString(data))
	if got.rv != p11.CKR_OK {
		return nil, got.rv
	}
	return unhex(d.s.a.r.t, got.one()), p11.CKR_OK
}

func (d *corpusModule) verify(key string, m p11.MechanismType, data, signature []byte) p11.RV {
	return d.s.call("verify", key, mech(m), hex.EncodeToString(data), hex.EncodeToString(signature)).rv
}

func (d *corpusModule) value(key string, t p11.AttributeType) []byte {
	return unhex(d.s.a.r.t, d.s.get(key, t).one())
}

func unhex(t *testing.T, word string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.TrimPrefix(word, "-"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// corpusEngine is the engine itself, without a daemon.
type corpusEngine struct {
	t   *testing.T
	ctx context.Context
	app *engine.Application
	s   *engine.Session
	kek string
}

type memoryToken struct {
	*memory.Store
	*swtok.Crypto
}

func (memoryToken) Name() string { return "swtok" }
func (memoryToken) Kind() string { return swtok.Kind }

func newCorpusEngine(t *testing.T, p swtok.Provider) *corpusEngine {
	t.Helper()
	e, err := engine.New(engine.Config{Slots: []engine.SlotConfig{{ID: 1, Token: memoryToken{memory.New(), swtok.NewCrypto(p, nil)}}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	d := &corpusEngine{t: t, ctx: t.Context(), app: e.NewApplication(engine.Owner{UID: 1}, engine.ForPrograms)}
	if d.s, err = d.app.OpenSession(d.ctx, e.Slots()[0], p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *corpusEngine) create(t p11.Attributes) (string, p11.RV) {
	h, err := d.s.CreateObject(d.ctx, t)
	if err != nil && len(err.Error()) < 20 {
		d.t.Errorf("a refusal without a reason: %q", err)
	}
	return strconv.FormatUint(uint64(h), 10), p11.RVOf(err)
}

func (d *corpusEngine) handle(key string) p11.ObjectHandle {
	n, err := strconv.ParseUint(key, 10, 64)
	if err != nil {
		d.t.Fatal(err)
	}
	return p11.ObjectHandle(n)
}

func (d *corpusEngine) unwrap(der []byte, t p11.Attributes) (p11.RV, bool) {
	by, err := p11.ParseMechanism("aes-cbc-pad,iv=0x" + strings.Repeat("00", 16))
	if err != nil {
		d.t.Fatal(err)
	}
	wrapped, err := d.operate(p11.CKF_ENCRYPT, d.kek, by, der, nil)
	if err != nil {
		d.t.Fatal(err)
	}
	_, err = d.s.UnwrapKey(d.ctx, by, d.handle(d.kek), wrapped, t)
	return p11.RVOf(err), true
}

func (d *corpusEngine) run(use p11.Flags, key string, m p11.MechanismType, data []byte) ([]byte, p11.RV) {
	out, err := d.operate(use, key, p11.Mechanism{Type: m}, data, nil)
	return out, p11.RVOf(err)
}

func (d *corpusEngine) verify(key string, m p11.MechanismType, data, signature []byte) p11.RV {
	_, err := d.operate(p11.CKF_VERIFY, key, p11.Mechanism{Type: m}, data, signature)
	return p11.RVOf(err)
}

func (d *corpusEngine) operate(use p11.Flags, key string, m p11.Mechanism, data, signature []byte) ([]byte, error) {
	o, err := d.s.Begin(d.ctx, use, m, d.handle(key))
	if err != nil {
		return nil, err
	}
	defer o.Close()
	head, err := o.Update(d.ctx, data)
	if err != nil {
		return nil, err
	}
	rest, err := o.Final(d.ctx, signature)
	return append(head, rest...), err
}

func (d *corpusEngine) value(key string, t p11.AttributeType) []byte {
	r, err := d.s.GetAttributeValue(d.ctx, d.handle(key), t)
	if err != nil {
		d.t.Fatal(err)
	}
	return r[0].Value
}

// TestCorpus runs the corpus.
func TestCorpus(t *testing.T) {
	needTools(t, "python3")
	entries, err := os.ReadDir(corpusDir)
	if err != nil || len(entries) < 80 {
		t.Fatalf("%d files: %v", len(entries), err)
	}
	verdicts := make(map[string]map[string]string) // by library, by file and door
	for _, p := range []swtok.Provider{swtok.GoProvider(), swtok.LoadProvider(slog.New(slog.DiscardHandler))} {
		t.Run(p.Name(), func(t *testing.T) { verdicts[p.Name()] = runCorpus(t, p, entries) })
	}
	need(t, len(verdicts) == 2, "libcrypto")
	for at, verdict := range verdicts["go"] {
		if other := verdicts["libcrypto"][at]; other != verdict && !onlyLibcrypto(at) {
			t.Errorf("%s: %s with Go's library, %s with libcrypto", at, verdict, other)
		}
	}
	// What is refused by the files, with the start of the reason.
	refused := make(map[string]string)
	for _, e := range entries {
		if said := verdicts["go"]["files "+e.Name()]; said != "ok" {
			refused[e.Name()] = said
		}
	}
	want := map[string]string{
		"bad.e33.pub.pem": "CKR_ATTRIBUTE_VALUE_INVALID", "bad.k1nopub.pem": "CKR_DATA_INVALID",
		"bad.rsapss.pem": "CKR_DATA_INVALID", "rsa-e2p32p1.der": "CKR_ATTRIBUTE_VALUE_INVALID",
	}
	for _, name := range strings.Fields("brainpoolP256r1 secp256k1") {
		for _, form := range strings.Fields(".pem .p8.der .pub.pem") {
			want[name+form] = "CKR_CURVE_NOT_SUPPORTED"
		}
	}
	if !maps.Equal(refused, want) {
		t.Errorf("refused are\n%v, want\n%v", refused, want)
	}
}

// onlyLibcrypto says whether a file has a curve that Go's library has not, or a public
// exponent that is too large for it.
func onlyLibcrypto(at string) bool {
	return slices.ContainsFunc([]string{"brainpoolP256r1", "secp256k1", "k1nopub", "e33", "e2p32p1"}, func(s string) bool { return strings.Contains(at, s) })
}

// runCorpus runs the corpus with one library.
func runCorpus(t *testing.T, p swtok.Provider, entries []os.DirEntry) map[string]string {
	d, term := ready(t, daemonConfig{binary: plainBinary(t), args: []string{"--provider", p.Name()}})
	doors := map[string]corpusDoor{"engine": newCorpusEngine(t, p)}
	for _, m := range modules() {
		r := &rig{t: t}
		r.a = &application{r: r, o: newOrders(t, d, "sh", "-c", moduleApplication, "sh", m.path(t))}
		doors[m.name] = &corpusModule{s: r.a.open()}
	}
	kek := template("class=secret-key key-type=aes token=false private=false encrypt=true unwrap=true value=0x" + strings.Repeat("5a", 32))
	for name, door := range doors {
		key, rv := door.create(kek)
		if rv != p11.CKR_OK {
			t.Fatal(rv)
		}
		switch door := door.(type) {
		case *corpusModule:
			if name == "libp11fs" {
				door.kek = key
			}
		case *corpusEngine:
			door.kek = key
		}
	}
	verdicts := make(map[string]string)
	for _, e := range entries {
		path, err := filepath.Abs(filepath.Join(corpusDir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		pass, err := secret.New([]byte(corpusPassphrase(e.Name())))
		if err != nil {
			t.Fatal(err)
		}
		objects, parseErr := pkix.Parse(pkix.Auto, data, pkix.Options{Passphrase: pass, Arithmetic: p})
		_ = pass.Close()
		said := map[string][]p11.RV{}
		for name, door := range doors {
			said[name] = throughDoor(t, name+": "+e.Name(), door, objects)
		}
		all := said["engine"]
		for name, other := range said {
			if !slices.Equal(other, all) {
				t.Errorf("%s: %s says %v, the engine %v", e.Name(), name, other, all)
			}
		}
		verdicts["engine "+e.Name()] = fmt.Sprint(all)
		files := throughFiles(t, term, path, corpusPassphrase(e.Name()), objects)
		verdicts["files "+e.Name()] = files
		good := parseErr == nil && !slices.ContainsFunc(all, func(rv p11.RV) bool { return rv != p11.CKR_OK })
		if good != (files == "ok") || !good && parseErr == nil && !slices.ContainsFunc(all, func(rv p11.RV) bool { return rv.String() == files }) {
			t.Errorf("%s: the files say %s, the engine %v, the parser %v", e.Name(), files, all, parseErr)
		}
	}
	return verdicts
}

// throughDoor makes the objects of a file, and uses them. It returns a verdict for each
// object; a private key that was wrapped must have the same.
func throughDoor(t *testing.T, at string, door corpusDoor, objects []p11.Attributes) (verdicts []p11.RV) {
	t.Helper()
	keys := make(map[string]string) // by CKA_ID, of private keys
	for _, o := range objects {
		full := o.Merge(template("token=false private=false"))
		class, _ := o.Class()
		key, rv := door.create(full)
		verdicts = append(verdicts, rv)
		if class == p11.CKO_PRIVATE_KEY {
			if der, err := pkix.EncodePrivateKey(o); err == nil {
				kt, _ := o.KeyType()
				unwrapped, can := door.unwrap(der, template("class=private-key token=false private=false key-type="+kt.Short()))
				want := rv
				if rv == p11.CKR_ATTRIBUTE_VALUE_INVALID {
					want = p11.CKR_WRAPPED_KEY_INVALID
				}
				if can && unwrapped != want {
					t.Errorf("%s: created %v, unwrapped %v", at, rv, unwrapped)
				}
			}
		}
		if rv != p11.CKR_OK {
			continue
		}
		id, _ := o.Get(p11.CKA_ID)
		for _, kept := range []p11.AttributeType{p11.CKA_VALUE, p11.CKA_MODULUS, p11.CKA_PUBLIC_EXPONENT, p11.CKA_EC_PARAMS, p11.CKA_EC_POINT} {
			v, ok := o.Get(kept)
			if ok && (kept != p11.CKA_VALUE || class == p11.CKO_CERTIFICATE) && !bytes.Equal(door.value(key, kept), v) {
				t.Errorf("%s: %s is not as it came", at, kept.Short())
			}
		}
		switch class {
		case p11.CKO_PRIVATE_KEY:
			keys[string(id)] = key
		case p11.CKO_PUBLIC_KEY:
			usePair(t, at, door, o, key, keys[string(id)])
		case p11.CKO_SECRET_KEY:
			useSecret(t, at, door, o, key)
		}
	}
	return verdicts
}

// usePair uses a public key with its private key, if there is one.
func usePair(t *testing.T, at string, door corpusDoor, o p11.Attributes, public, private string) {
	t.Helper()
	data := []byte("sixteen bytes of")
	sign, n := p11.CKM_ECDSA, 64
	switch kt, _ := o.KeyType(); kt {
	case p11.CKK_EC_MONTGOMERY, p11.CKK_ML_KEM: // derive and encapsulate, and only where they were told so
		return
	case p11.CKK_DSA:
		sign = p11.CKM_DSA_SHA1
	case p11.CKK_EC_EDWARDS, p11.CKK_ML_DSA, p11.CKK_SLH_DSA:
		if m, ok := door.(*corpusModule); ok && m.kek == "" {
			return // p11-kit's protocol carries nothing for them either
		}
		sign = map[p11.KeyType]p11.MechanismType{p11.CKK_EC_EDWARDS: p11.CKM_EDDSA, p11.CKK_ML_DSA: p11.CKM_ML_DSA, p11.CKK_SLH_DSA: p11.CKM_SLH_DSA}[kt]
	case p11.CKK_RSA:
		sign = p11.CKM_SHA256_RSA_PKCS
		modulus, _ := o.Get(p11.CKA_MODULUS)
		n = len(modulus)
		sealed, rv := door.run(p11.CKF_ENCRYPT, public, p11.CKM_RSA_PKCS, data)
		if rv != p11.CKR_OK {
			t.Errorf("%s: encrypt: %v", at, rv)
		} else if private != "" {
			if opened, rv := door.run(p11.CKF_DECRYPT, private, p11.CKM_RSA_PKCS, sealed); rv != p11.CKR_OK || !bytes.Equal(opened, data) {
				t.Errorf("%s: decrypt: %q, %v", at, opened, rv)
			}
		}
	}
	if private == "" {
		if rv := door.verify(public, sign, data, bytes.Repeat([]byte{1}, n)); rv != p11.CKR_SIGNATURE_INVALID && rv != p11.CKR_SIGNATURE_LEN_RANGE {
			t.Errorf("%s: verify: %v", at, rv)
		}
		return
	}
	signature, rv := door.run(p11.CKF_SIGN, private, sign, data)
	if rv == p11.CKR_OK {
		rv = door.verify(public, sign, data, signature)
	}
	if rv != p11.CKR_OK {
		t.Errorf("%s: sign and verify: %v", at, rv)
	}
}

func useSecret(t *testing.T, at string, door corpusDoor, o p11.Attributes, key string) {
	t.Helper()
	data := []byte("sixteen bytes of")
	var rv p11.RV
	if kt, _ := o.KeyType(); kt == p11.CKK_AES {
		var out []byte
		if out, rv = door.run(p11.CKF_ENCRYPT, key, p11.CKM_AES_ECB, data); rv == p11.CKR_OK {
			out, rv = door.run(p11.CKF_DECRYPT, key, p11.CKM_AES_ECB, out)
		}
		if rv == p11.CKR_OK && !bytes.Equal(out, data) {
			t.Errorf("%s: decrypts to %q", at, out)
		}
	} else {
		var mac []byte
		if mac, rv = door.run(p11.CKF_SIGN, key, p11.CKM_SHA256_HMAC, data); rv == p11.CKR_OK {
			rv = door.verify(key, p11.CKM_SHA256_HMAC, data, mac)
		}
	}
	if rv != p11.CKR_OK {
		t.Errorf("%s: a secret key is of no use: %v", at, rv)
	}
}

// throughFiles imports a file, and uses what it made; certificates go into certs/ too.
// It returns ok, or the name of the CK_RV.
func throughFiles(t *testing.T, term *terminal, path, pass string, objects []p11.Attributes) string {
	t.Helper()
	at, file := filepath.Base(path), quote(path)
	if pass != "" {
		term.ok("printf %s " + quote(pass) + " > $T/passphrase")
	}
	r := term.run("cat " + file + " > $T/import && cat $T/import")
	if r.status != 0 {
		said := term.ok("cat $T/error")
		words := strings.Fields(said)
		if len(words) < 6 || !saysErrno(r.err, 22) { // EINVAL
			t.Errorf("%s: refused with %q and %q", at, r.err, said)
		}
		return strings.TrimSuffix(words[1], ":")
	}
	made := slices.DeleteFunc(lines(r.out), func(l string) bool { return strings.HasPrefix(l, "# left out: ") })
	if len(made) != len(objects) {
		t.Fatalf("%s: %d lines for %d objects: %q", at, len(made), len(objects), made)
	}
	only := true
	private := ""
	for i, o := range objects {
		name := strings.TrimPrefix(made[i], "# already there as ")
		dir := "$O/" + quote(name)
		class, _ := o.Class()
		only = only && class == p11.CKO_CERTIFICATE
		twice := "echo text > msg; cat msg > %s/sign; cat %[1]s/sign > sig; cat sig msg > %[2]s/verify; test $(cat %[2]s/verify) = ok"
		switch class {
		case p11.CKO_CERTIFICATE:
			value, _ := o.Get(p11.CKA_VALUE)
			if term.ok("cat "+dir+"/value") != string(value) {
				t.Errorf("%s: the value of %s is not as it came", at, name)
			}
		case p11.CKO_PRIVATE_KEY:
			private = dir
		case p11.CKO_PUBLIC_KEY:
			want, err := pkix.PublicPEM(o)
			if got := term.ok("cat " + dir + "/public.pem"); err != nil || got != string(want) {
				t.Errorf("%s: public.pem is %s", at, got)
			}
			switch kt, _ := o.KeyType(); {
			case private == "" || at == "rsa512.p8.der": // too short for the defaults of files
			case kt == p11.CKK_ML_KEM:
				term.ok(fmt.Sprintf("echo label=told > %s/encapsulate; cat %[1]s/encapsulate > told; cat told > %s/decapsulate; cat %[2]s/decapsulate", dir, private))
			case kt == p11.CKK_EC_MONTGOMERY:
				term.ok(fmt.Sprintf("cat %s/public.pem > %s/derive; cat %[2]s/derive", dir, private))
			default:
				term.ok(fmt.Sprintf(twice, private, dir))
			}
		case p11.CKO_SECRET_KEY:
			if kt, _ := o.KeyType(); kt == p11.CKK_AES {
				term.ok(fmt.Sprintf("echo text > msg; cat msg > %s/encrypt; cat %[1]s/encrypt > sealed; cat sealed > %[1]s/decrypt; cat %[1]s/decrypt | cmp - msg", dir))
			} else {
				term.ok(fmt.Sprintf(twice, dir, dir))
			}
		}
	}
	if !only {
		return "ok"
	}
	var want []string
	for _, o := range objects {
		shown, err := pkix.CertificatePEM(o)
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, string(shown))
	}
	if !strings.HasSuffix(at, ".p12") { // certs/ takes PEM and DER
		term.ok("cat " + file + " > $T/certs/corpus.pem")
		if got := term.ok("cat $T/certs/corpus*"); !containsAll(got, want) {
			t.Errorf("%s: certs/ shows\n%s, want\n%s", at, got, want)
		}
		// What is shown can be put back.
		term.ok("cat $T/certs/corpus* > back; rm $T/certs/corpus*; cat back > $T/certs/corpus.pem")
		if got := term.ok("cat $T/certs/corpus*; rm $T/certs/corpus*"); !containsAll(got, want) {
			t.Errorf("%s: put back, certs/ shows\n%s, want\n%s", at, got, want)
		}
	}
	return "ok"
}

func containsAll(text string, parts []string) bool {
	n := 0
	for _, part := range parts {
		if !strings.Contains(text, part) {
			return false
		}
		n += len(part)
	}
	return n == len(text)
}
