package integration

import (
	"crypto/sha1"
	"encoding/hex"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"

	"p11fs/p11"
	"p11fs/p11/pkix"
)

// ask asks for the length of an operation's output, without a buffer.
func (s *handle) ask(operation, data string) answer {
	s.a.r.t.Helper()
	return s.operate("ask", operation, data)
}

const kitParameters = "p11-kit 0.24.1 passes on a few mechanisms alone"

// goesOn are the answers where a bad argument ends nothing.
func goesOn() map[string]string {
	are := map[string]string{}
	for _, operation := range strings.Fields("digest sign encrypt decrypt") {
		are[operation+" again"] = "CKR_OK"
	}
	return are
}

// programRules are what programs lean on without looking: what a token answers first,
// what is true of a key that they have said little of, and what a question leaves behind.
func programRules() []tokenRule {
	hmac, ecb, sha := mech(p11.CKM_SHA256_HMAC), mech(p11.CKM_AES_ECB), mech(p11.CKM_SHA256)
	cbc := mech(p11.CKM_AES_CBC, make([]byte, 16)...)
	other := strings.Repeat("5a", 16)
	abc := "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
	return []tokenRule{
		{name: "the functions of parallel sessions", cites: "§5.20", files: noCalls, run: func(r *rig) {
			s := r.a.open()
			for _, session := range []string{s.id, "0"} {
				r.a.call("parallel", "C_GetFunctionStatus", session).is("status of "+session[:1], p11.CKR_FUNCTION_NOT_PARALLEL)
				r.a.call("parallel", "C_CancelFunction", session).is("cancel of "+session[:1], p11.CKR_FUNCTION_NOT_PARALLEL)
			}
		}},
		{name: "how many sessions there may be", cites: "§3.2 CK_TOKEN_INFO", run: func(r *rig) {
			for i, limit := range r.a.call("limits").must().values[:2] {
				known := "yes"
				if limit == "ffffffffffffffff" {
					known = "no"
				}
				r.is([]string{"known", "known of read-write ones"}[i], known, "yes")
			}
		}},
		{name: "a key that wants the PIN each time", cites: "§5.13.2, CKA_ALWAYS_AUTHENTICATE", files: noCalls, deviates: stock("it keeps the attribute, and looks at it nowhere", map[string]string{
			"without the PIN": "CKR_OK", "the PIN": "CKR_USER_TYPE_INVALID", "a part without the PIN": "CKR_OK", "which ends it too": "CKR_OK",
		}), run: func(r *rig) {
			s := r.a.opened()
			_, key := s.pair("always-authenticate=true label=strict")
			begin := func(step string) {
				s.operate("begin", "sign", key, mech(p11.CKM_SHA1_RSA_PKCS)).is(step, p11.CKR_OK)
			}
			begin("init")
			s.operate("part", "sign", "00").is("without the PIN", p11.CKR_USER_NOT_LOGGED_IN)
			s.operate("part", "sign", "00").is("which ends it", p11.CKR_OPERATION_NOT_INITIALIZED)
			begin("the next init")
			s.login(p11.CKU_CONTEXT_SPECIFIC, userPIN).is("the PIN", p11.CKR_OK)
			s.operate("part", "sign", "00").is("with it", p11.CKR_OK)
			begin("one more")
			s.operate("update", "sign", "00").is("a part without the PIN", p11.CKR_USER_NOT_LOGGED_IN)
			s.operate("end", "sign").is("which ends it too", p11.CKR_OPERATION_NOT_INITIALIZED)
		}},
		{name: "a question for a length computes nothing", cites: "§5.2, §5.8.2", files: noCalls, deviates: map[string]deviation{"p11-kit-client": {kitParameters, map[string]string{"encrypt with an IV": "CKR_MECHANISM_INVALID"}}}, run: func(r *rig) {
			s := r.a.open()
			key := s.key("label=x")
			for name, m := range map[string]string{"": ecb, " with an IV": cbc} {
				begin := s.operate("begin", "encrypt", key, m).is("encrypt"+name, p11.CKR_OK)
				if begin.rv != p11.CKR_OK {
					continue
				}
				s.ask("encrypt", block).is("length"+name, p11.CKR_OK)
				sealed := s.operate("part", "encrypt", other)
				r.is("other data"+name, sealed.one(), s.operate("one", "encrypt", key, m, other).one())
				s.operate("begin", "encrypt", key, m).must()
				s.ask("encrypt", block).must()
				r.is("a part"+name, s.operate("update", "encrypt", other).one(), sealed.one())
				s.operate("end", "encrypt").is("the end"+name, p11.CKR_OK)
				s.operate("begin", "decrypt", key, m).must()
				s.ask("decrypt", block).must()
				r.is("decrypted"+name, s.operate("part", "decrypt", sealed.one()).one(), other)
			}
		}},
		{name: "a bad argument ends the operation", cites: "§5.2, §5.8 to §5.15", files: noCalls, deviates: and(stock("its operations go on", goesOn()), "p11-kit-client", "the client answers by itself, and tells nobody", goesOn()), run: func(r *rig) {
			s := r.a.open()
			for _, c := range []struct{ operation, key, m string }{
				{"digest", "-", sha}, {"sign", s.mac("label=mac"), hmac}, {"encrypt", s.key("label=aes"), ecb}, {"decrypt", s.key("label=aes2"), ecb},
			} {
				s.operate("begin", c.operation, c.key, c.m).must()
				s.operate("bad", c.operation, block).is(c.operation+" to nowhere", p11.CKR_ARGUMENTS_BAD)
				s.operate("part", c.operation, block).is(c.operation+" again", p11.CKR_OPERATION_NOT_INITIALIZED)
			}
		}},
		{name: "a key that there is not leaves the digest", cites: "§5.12.4", files: noCalls, deviates: stock("it ends the digest", map[string]string{
			"update": "CKR_OPERATION_NOT_INITIALIZED", "final": "CKR_OPERATION_NOT_INITIALIZED",
		}), run: func(r *rig) {
			s := r.a.open()
			s.operate("begin", "digest", "-", sha).must()
			s.call("digestkey", "7fff").is("C_DigestKey", p11.CKR_KEY_HANDLE_INVALID)
			s.operate("update", "digest", "616263").is("update", p11.CKR_OK)
			got := s.operate("end", "digest").is("final", p11.CKR_OK)
			if got.rv == p11.CKR_OK {
				r.is("digest", got.one(), abc)
			}
		}},
		{name: "r and s may be short", cites: "§6.3.1", files: oneStream, stock: noCurves, run: func(r *rig) {
			const n = 66
			s := r.a.opened()
			got := s.call("pair", mech(p11.CKM_EC_KEY_PAIR_GEN), words("token=false verify=true ec-params=0x06052b81040023"), words("token=false private=true sign=true")).must()
			public, private := got.values[0], got.values[1]
			sig := strings.Repeat("01", 2*n)
			for !strings.HasPrefix(sig, "00") || !strings.HasPrefix(sig[2*n:], "00") { // one of four
				sig = s.operate("one", "sign", private, mech(p11.CKM_ECDSA), block).one()
			}
			first, second := sig[:2*n], sig[2*n:]
			for step, c := range map[string]struct {
				sig string
				rv  p11.RV
			}{
				"whole": {sig, p11.CKR_OK}, "both short": {first[2:] + second[2:], p11.CKR_OK}, "one short": {first[2:] + second, p11.CKR_SIGNATURE_LEN_RANGE},
				"longer": {"00" + first + "00" + second, p11.CKR_SIGNATURE_LEN_RANGE}, "none": {"-", p11.CKR_SIGNATURE_LEN_RANGE},
			} {
				s.call("verify", public, mech(p11.CKM_ECDSA), block, c.sig).is(step, c.rv)
			}
		}},
		{name: "a key without a list of mechanisms", cites: "§4.8 CKA_ALLOWED_MECHANISMS", deviates: and(stock("it is older than CKA_ALLOWED_MECHANISMS", map[string]string{"allowed-mechanisms": "CKR_ATTRIBUTE_TYPE_INVALID"}),
			"files", "to who reads an empty list nothing is allowed", map[string]string{"allowed-mechanisms": "CKR_ATTRIBUTE_TYPE_INVALID"}), run: func(r *rig) {
			s := r.a.opened()
			public, private := s.pair("label=pair")
			for _, key := range []string{public, private, s.key("label=x")} {
				s.isAttributes(key, `allowed-mechanisms=""`)
			}
		}},
		{name: "check values", cites: "§4.10.2, §4.6.3 CKA_CHECK_VALUE", deviates: stock("it computes none", map[string]string{
			"of AES": "CKR_ATTRIBUTE_TYPE_INVALID", "of a secret": "CKR_ATTRIBUTE_TYPE_INVALID", "of a certificate": "CKR_ATTRIBUTE_TYPE_INVALID",
		}), run: func(r *rig) {
			s := r.a.open()
			digest := func(hexed string) string {
				sum := sha1.Sum(unhex(r.t, hexed))
				return hex.EncodeToString(sum[:3])
			}
			key := s.key("label=aes")
			zeros := s.operate("one", "encrypt", key, ecb, strings.Repeat("00", 16)).one()
			r.is("of AES", s.get(key, p11.CKA_CHECK_VALUE).answered(), zeros[:6])
			key = s.mac("label=mac")
			if value := s.get(key, p11.CKA_VALUE); value.rv != p11.CKR_ATTRIBUTE_SENSITIVE { // where a token shows any
				r.is("of a secret", s.get(key, p11.CKA_CHECK_VALUE).answered(), digest(value.one()))
			}
			der := certificateDER(r)
			made := s.call("create", words("class=certificate certificate-type=x-509 token=true private=false label=c subject=0x3000 value=0x"+der)).must()
			r.is("of a certificate", s.get(made.one(), p11.CKA_CHECK_VALUE).answered(), digest(der))
		}},
		{name: "what is true of a key that says nothing", cites: "§4.8 to §4.10", deviates: and(stock("its keys leave, everybody sees them, and generic secrets wrap nothing", map[string]string{
			"generic, wrap": "00", "generic, unwrap": "00", "extractable": "01", "private": "00", "RSA, extractable": "01", "RSA, private": "00",
		}), "files", "a person's keys do less, unless they are told to", map[string]string{
			"AES, sign": "00", "AES, verify": "00", "AES, wrap": "00", "AES, unwrap": "00", "generic, wrap": "00", "generic, unwrap": "00", "RSA, wrap": "00", "RSA, unwrap": "00",
		}), run: func(r *rig) {
			s := r.a.opened()
			key := s.call("generate", mech(p11.CKM_AES_KEY_GEN), words("token=false label=aes value-len=16")).one()
			s.isAttributes(key, "encrypt=true decrypt=true")
			for _, usage := range strings.Fields("sign verify wrap unwrap") {
				r.is("AES, "+usage, s.get(key, usageOf(usage)).answered(), "01")
			}
			key = s.call("generate", mech(p11.CKM_GENERIC_SECRET_KEY_GEN), words("token=false label=generic value-len=32")).one()
			for _, usage := range strings.Fields("sign verify wrap unwrap") {
				r.is("generic, "+usage, s.get(key, usageOf(usage)).answered(), "01")
			}
			r.is("extractable", s.get(key, p11.CKA_EXTRACTABLE).answered(), "00")
			r.is("private", s.get(key, p11.CKA_PRIVATE).answered(), "01")
			pair := s.call("pair", mech(p11.CKM_RSA_PKCS_KEY_PAIR_GEN), words("token=false modulus-bits="+itoa(r.rsaBits())+" public-exponent=0x010001 label=rsa"), words("token=false label=rsa")).must()
			s.isAttributes(pair.values[0], "encrypt=true verify=true")
			s.isAttributes(pair.values[1], "decrypt=true sign=true")
			r.is("RSA, wrap", s.get(pair.values[0], p11.CKA_WRAP).answered(), "01")
			r.is("RSA, unwrap", s.get(pair.values[1], p11.CKA_UNWRAP).answered(), "01")
			r.is("RSA, extractable", s.get(pair.values[1], p11.CKA_EXTRACTABLE).answered(), "00")
			r.is("RSA, private", s.get(pair.values[1], p11.CKA_PRIVATE).answered(), "01")
		}},
		{name: "keys in forms of other programs", cites: "§6.1.3, §6.3.3, §6.17.4", files: noMaker, stock: noCurves, deviates: map[string]deviation{"p11-kit-client": {kitParameters, map[string]string{"which signs": "CKR_MECHANISM_INVALID"}}}, run: func(r *rig) {
			s := r.a.open()
			session := template("token=false private=false")
			made := s.call("create", words("class=secret-key key-type=sha512-256-hmac token=false private=false sign=true value=0x00010203"))
			made.is("a key of HMAC over SHA-512/256", p11.CKR_OK)
			if made.rv == p11.CKR_OK {
				mac := s.operate("one", "sign", made.one(), mech(p11.CKM_SHA512_256_HMAC), block).is("which signs", p11.CKR_OK)
				if mac.rv == p11.CKR_OK {
					r.is("bytes", itoa(len(mac.one())), "64")
				}
			}

			private, public := corpusPair(r, "rsa.p8.der")
			for _, crt := range []p11.AttributeType{p11.CKA_PRIME_1, p11.CKA_PRIME_2, p11.CKA_EXPONENT_1, p11.CKA_EXPONENT_2, p11.CKA_COEFFICIENT} {
				private.Delete(crt)
			}
			key := s.call("create", encode(private.Merge(session).Merge(template("sign=true")))).is("an RSA key of n, e and d", p11.CKR_OK).one()
			check := s.call("create", encode(public.Merge(session))).one()
			sig := s.operate("one", "sign", key, mech(p11.CKM_SHA1_RSA_PKCS), block).one()
			s.call("verify", check, mech(p11.CKM_SHA1_RSA_PKCS), block, sig).is("which signs too", p11.CKR_OK)

			_, public = corpusPair(r, "prime256v1.p8.der")
			whole, _ := public.Get(p11.CKA_EC_POINT)
			x, y := whole[3:35], whole[35:]
			short := public.Merge(session).With(p11.CKA_EC_POINT, append([]byte{4, 33, 2 + y[31]&1}, x...))
			point := s.call("create", encode(short)).is("a compressed point", p11.CKR_OK).one()
			r.is("which is told whole", s.get(point, p11.CKA_EC_POINT).one(), hex.EncodeToString(whole))
		}},
	}
}

// answered is the value, or why there is none.
func (a answer) answered() string {
	a.r.t.Helper()
	if a.kernel != "" || a.rv != p11.CKR_OK {
		return a.String()
	}
	return a.one()
}

func usageOf(name string) p11.AttributeType {
	t, err := p11.ParseAttributeType(name)
	if err != nil {
		panic(err)
	}
	return t
}

// certificateDER is a certificate of the corpus.
func certificateDER(r *rig) string {
	r.t.Helper()
	b, err := os.ReadFile(filepath.Join(corpusDir, "prime256v1.crt.pem"))
	if err != nil {
		r.t.Fatal(err)
	}
	p, _ := pem.Decode(b)
	return hex.EncodeToString(p.Bytes)
}

// corpusPair is a pair of the corpus, without an identifier.
func corpusPair(r *rig, name string) (private, public p11.Attributes) {
	r.t.Helper()
	b, err := os.ReadFile(filepath.Join(corpusDir, name))
	if err != nil {
		r.t.Fatal(err)
	}
	list, err := pkix.Parse(pkix.Auto, b, pkix.Options{})
	if err != nil {
		r.t.Fatal(err)
	}
	for i := range list {
		list[i].Delete(p11.CKA_ID)
	}
	return list[0], list[1]
}
