package integration

import (
	"strconv"
	"strings"

	"p11fs/p11"
)

func itoa(n int) string { return strconv.Itoa(n) }

// operate makes a call whose first word is the operation.
func (s *handle) operate(call, operation string, words ...string) answer {
	s.a.r.t.Helper()
	return s.a.call(append([]string{call, operation, s.id}, words...)...)
}

// sign signs data with HMAC.
func (s *handle) sign(key, data string) answer {
	s.a.r.t.Helper()
	return s.operate("one", "sign", key, mech(p11.CKM_SHA256_HMAC), data)
}

// pair makes an RSA pair, whose private key is private.
func (s *handle) pair(private string) (pub, priv string) {
	s.a.r.t.Helper()
	of := template("private=true").Merge(template(private))
	public := p11.Attributes{}
	for _, a := range of {
		switch a.Type {
		case p11.CKA_LABEL, p11.CKA_ID:
			public = append(public, a)
		}
	}
	public = template("token=false modulus-bits=" + itoa(s.a.r.rsaBits()) + " public-exponent=0x010001 verify=true").Merge(public)
	got := s.call("pair", mech(p11.CKM_RSA_PKCS_KEY_PAIR_GEN), encode(public), encode(template("token=false sign=true").Merge(of))).must()
	return got.values[0], got.values[1]
}

const block = "00112233445566778899aabbccddeeff"

func usageRules() []tokenRule {
	hmac, ecb := mech(p11.CKM_SHA256_HMAC), mech(p11.CKM_AES_ECB)
	return []tokenRule{
		{name: "a key that does not sign", cites: "§5.13.1", run: func(r *rig) {
			s := r.a.open()
			s.sign(s.mac("label=x sign=false"), "00").is("sign", p11.CKR_KEY_FUNCTION_NOT_PERMITTED)
		}},
		{name: "a key that does not verify", cites: "§5.15.1", run: func(r *rig) {
			s := r.a.open()
			key := s.mac("label=x verify=false")
			s.call("verify", key, hmac, "00", s.sign(key, "00").one()).is("verify", p11.CKR_KEY_FUNCTION_NOT_PERMITTED)
		}},
		{name: "a key that does not encrypt", cites: "§5.8.1", run: func(r *rig) {
			s := r.a.open()
			key := s.key("label=x encrypt=false")
			s.operate("one", "encrypt", key, ecb, block).is("encrypt", p11.CKR_KEY_FUNCTION_NOT_PERMITTED)
			s.operate("one", "decrypt", key, ecb, block).is("decrypt", p11.CKR_OK)
		}},
		{name: "a key that does not decrypt", cites: "§5.10.1", run: func(r *rig) {
			s := r.a.open()
			key := s.key("label=x decrypt=false")
			s.operate("one", "decrypt", key, ecb, block).is("decrypt", p11.CKR_KEY_FUNCTION_NOT_PERMITTED)
			s.operate("one", "encrypt", key, ecb, block).is("encrypt", p11.CKR_OK)
		}},
		{name: "a key that does not wrap", cites: "§5.18.3", run: func(r *rig) {
			s := r.a.open()
			s.call("wrap", s.key("label=by wrap=false"), r.wraps(), s.key("label=key")).is("wrap", p11.CKR_KEY_FUNCTION_NOT_PERMITTED)
		}},
		{name: "a key that does not unwrap", cites: "§5.18.4", run: func(r *rig) {
			s := r.a.open()
			by := s.key("label=by unwrap=false")
			s.call("unwrap", by, r.wraps(), block, words("class=secret-key key-type=aes token=false private=false")).is("unwrap", p11.CKR_KEY_FUNCTION_NOT_PERMITTED)
		}},
		{name: "a usage that is taken away", cites: "§5.7.6, §4.10", run: func(r *rig) {
			s := r.a.open()
			key := s.mac("label=x")
			s.sign(key, "00").is("before", p11.CKR_OK)
			s.set(key, "sign=false").is("set", p11.CKR_OK)
			s.sign(key, "00").is("after", p11.CKR_KEY_FUNCTION_NOT_PERMITTED)
		}},
		{name: "a public key does not sign", cites: "§5.13.1", run: func(r *rig) {
			s := r.a.opened()
			public, private := s.pair("label=pair")
			s.operate("one", "sign", private, mech(p11.CKM_SHA1_RSA_PKCS), "00").is("private", p11.CKR_OK)
			s.operate("one", "sign", public, mech(p11.CKM_SHA1_RSA_PKCS), "00").is("public", p11.CKR_KEY_FUNCTION_NOT_PERMITTED)
		}},
		{name: "a pair signs and verifies", cites: "§5.13.2, §5.15.2", deviates: map[string]deviation{"files": {oneStream, map[string]string{"a short signature": "CKR_SIGNATURE_INVALID"}}}, run: func(r *rig) {
			s := r.a.opened()
			public, private := s.pair("label=pair")
			sha := mech(p11.CKM_SHA1_RSA_PKCS)
			signature := s.operate("one", "sign", private, sha, "00").one()
			s.call("verify", public, sha, "00", signature).is("the data", p11.CKR_OK)
			s.call("verify", public, sha, "01", signature).is("other data", p11.CKR_SIGNATURE_INVALID)
			s.call("verify", public, sha, "00", signature[2:]).is("a short signature", p11.CKR_SIGNATURE_LEN_RANGE)
		}},
		{name: "a key is used with mechanisms of its type", cites: "§5.8.1, §5.13.1", run: func(r *rig) {
			s := r.a.opened()
			_, private := s.pair("label=pair")
			s.operate("one", "encrypt", s.mac("label=mac encrypt=true"), ecb, block).is("a generic secret with AES", p11.CKR_KEY_TYPE_INCONSISTENT)
			s.operate("one", "sign", s.key("label=aes sign=true"), mech(p11.CKM_SHA1_RSA_PKCS), "00").is("an AES key with RSA", p11.CKR_KEY_TYPE_INCONSISTENT)
			s.sign(private, "00").is("an RSA key with HMAC", p11.CKR_KEY_TYPE_INCONSISTENT)
		}},
		{name: "a mechanism that there is not", cites: "§5.8.1", run: func(r *rig) {
			s := r.a.open()
			s.operate("one", "encrypt", s.key("label=x"), mech(p11.CKM_BLOWFISH_CBC), block).is("encrypt", p11.CKR_MECHANISM_INVALID)
		}},
		{name: "a mechanism of another function", cites: "§5.13.1", run: func(r *rig) {
			s := r.a.open()
			s.operate("one", "sign", s.key("label=aes sign=true"), ecb, block).is("sign", p11.CKR_MECHANISM_INVALID)
			s.operate("one", "encrypt", s.mac("label=mac encrypt=true"), hmac, block).is("encrypt", p11.CKR_MECHANISM_INVALID)
			s.operate("one", "digest", "-", ecb, block).is("digest", p11.CKR_MECHANISM_INVALID)
		}},
		{name: "a mechanism's parameter", cites: "§5.8.1, §6.13.4", deviates: map[string]deviation{"p11-kit-client": {"p11-kit 0.24.1 sends the parameters of a few mechanisms alone", map[string]string{"too short": "CKR_MECHANISM_INVALID", "none": "CKR_MECHANISM_INVALID", "good": "CKR_MECHANISM_INVALID"}}}, run: func(r *rig) {
			s := r.a.open()
			key := s.key("label=x")
			s.operate("one", "encrypt", key, mech(p11.CKM_AES_CBC, 1, 2, 3), block).is("too short", p11.CKR_MECHANISM_PARAM_INVALID)
			s.operate("one", "encrypt", key, mech(p11.CKM_AES_CBC), block).is("none", p11.CKR_MECHANISM_PARAM_INVALID)
			s.operate("one", "encrypt", key, mech(p11.CKM_AES_CBC, make([]byte, 16)...), block).is("good", p11.CKR_OK)
		}},
		{name: "data of a length that the mechanism has not", cites: "§5.8.2, §5.10.2, §6.13.3", run: func(r *rig) {
			s := r.a.open()
			key := s.key("label=x")
			s.operate("one", "encrypt", key, ecb, "0011").is("encrypt", p11.CKR_DATA_LEN_RANGE)
			s.operate("one", "decrypt", key, ecb, "0011").is("decrypt", p11.CKR_ENCRYPTED_DATA_LEN_RANGE)
		}},
		{name: "what is encrypted decrypts", cites: "§5.8.2, §5.10.2", run: func(r *rig) {
			s := r.a.open()
			key := s.key("label=x")
			secret := s.operate("one", "encrypt", key, ecb, block).one()
			r.is("plain", s.operate("one", "decrypt", key, ecb, secret).one(), block)
		}},
		{name: "a MAC verifies", cites: "§5.15.2", deviates: and(stock("it compares as much as the mechanism has", map[string]string{"a short one": "CKR_SIGNATURE_INVALID"}), "files", oneStream, map[string]string{"a short one": "CKR_SIGNATURE_INVALID"}), run: func(r *rig) {
			s := r.a.open()
			key := s.mac("label=x")
			mac := s.sign(key, "00").one()
			s.call("verify", key, hmac, "00", mac).is("the data", p11.CKR_OK)
			s.call("verify", key, hmac, "01", mac).is("other data", p11.CKR_SIGNATURE_INVALID)
			s.call("verify", key, hmac, "00", mac[2:]).is("a short one", p11.CKR_SIGNATURE_LEN_RANGE)
		}},
		{name: "a key that stays is not wrapped", cites: "§5.18.3, §4.10 CKA_EXTRACTABLE", run: func(r *rig) {
			s := r.a.open()
			by := s.key("label=by wrap=true")
			s.call("wrap", by, r.wraps(), s.key("label=kept extractable=false")).is("not extractable", p11.CKR_KEY_UNEXTRACTABLE)
			s.call("wrap", by, r.wraps(), s.key("label=sensitive sensitive=true")).is("sensitive", p11.CKR_OK)
		}},
		{name: "a key that there is not", cites: "§5.8.1, §5.18.3", deviates: stock("it knows one handle to wrap and unwrap", map[string]string{"unwrapping": "CKR_WRAPPING_KEY_HANDLE_INVALID"}), run: func(r *rig) {
			s := r.a.open()
			by, gone := s.key("label=by wrap=true"), s.key("label=gone wrap=true")
			s.call("destroy", gone).must()
			s.operate("one", "encrypt", gone, ecb, block).is("encrypt", p11.CKR_KEY_HANDLE_INVALID)
			s.call("wrap", by, r.wraps(), gone).is("wrapped", p11.CKR_KEY_HANDLE_INVALID)
			s.call("wrap", gone, r.wraps(), by).is("wrapping", p11.CKR_WRAPPING_KEY_HANDLE_INVALID)
			s.call("unwrap", gone, r.wraps(), block, words("class=secret-key key-type=aes token=false private=false")).is("unwrapping", p11.CKR_UNWRAPPING_KEY_HANDLE_INVALID)
		}},
		{name: "an unwrapped key is made as any other", cites: "§5.18.4, §5.6", run: func(r *rig) {
			s := r.a.open()
			by := s.key("label=by wrap=true unwrap=true")
			made := s.call("wrap", by, r.wraps(), s.key("label=key")).is("wrap", p11.CKR_OK)
			if made.rv != p11.CKR_OK {
				return
			}
			wrapped := made.one()
			s.call("unwrap", by, r.wraps(), wrapped, words("class=secret-key key-type=aes token=false private=true")).is("a private one", p11.CKR_USER_NOT_LOGGED_IN)
			s.call("unwrap", by, r.wraps(), wrapped, words("class=secret-key key-type=aes token=false private=false local=true")).is("with local", p11.CKR_ATTRIBUTE_READ_ONLY)
		}},
	}
}

func operationRules() []tokenRule {
	hmac, ecb, sha := mech(p11.CKM_SHA256_HMAC), mech(p11.CKM_AES_ECB), mech(p11.CKM_SHA256)
	return []tokenRule{
		{name: "parts are the whole", cites: "§5.13.3, §5.13.4", run: func(r *rig) {
			s := r.a.open()
			key := s.mac("label=x")
			s.operate("begin", "sign", key, hmac).must()
			s.operate("update", "sign", "0011").must()
			s.operate("update", "sign", "22").must()
			r.is("signature", s.operate("end", "sign").one(), s.sign(key, "001122").one())
		}},
		{name: "parts of a digest are the whole", cites: "§5.12", run: func(r *rig) {
			s := r.a.open()
			s.operate("begin", "digest", "-", sha).must()
			s.operate("update", "digest", "61").must()
			s.operate("update", "digest", "6263").must()
			r.is("digest", s.operate("end", "digest").one(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
		}},
		{name: "operations of two sessions", cites: "§5.6, §5.13.1", run: func(r *rig) {
			one, two := r.a.open(), r.a.open()
			key := one.mac("label=x")
			one.operate("begin", "sign", key, hmac).must()
			two.operate("begin", "sign", key, hmac).is("the other's", p11.CKR_OK)
			one.operate("update", "sign", "00").must()
			two.operate("update", "sign", "11").must()
			r.is("the first", one.operate("end", "sign").one(), one.sign(key, "00").one())
			r.is("the second", two.operate("end", "sign").one(), one.sign(key, "11").one())
		}},
		{name: "operations of different kinds in a session", cites: "§5.6", run: func(r *rig) {
			s := r.a.open()
			key := s.mac("label=x")
			s.operate("begin", "sign", key, hmac).must()
			s.operate("begin", "digest", "-", sha).is("a digest beside a signature", p11.CKR_OK)
			s.operate("update", "digest", "616263").must()
			s.operate("update", "sign", "00").must()
			r.is("digest", s.operate("end", "digest").one(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
			r.is("signature", s.operate("end", "sign").one(), s.sign(key, "00").one())
		}},
		{name: "a session's end ends its operations", cites: "§5.6.2", run: func(r *rig) {
			s, other := r.a.open(), r.a.open()
			key := other.mac("label=x")
			s.operate("begin", "sign", key, hmac).must()
			s.operate("update", "sign", "00").must()
			s.close().is("close", p11.CKR_OK)
			s.operate("update", "sign", "00").is("update", p11.CKR_SESSION_HANDLE_INVALID)
			other.sign(key, "00").is("in another session", p11.CKR_OK)
		}},
		{name: "logout ends what private keys do", cites: "§5.6.10", deviates: and(
			stock("its operations go on", map[string]string{"update": "CKR_OK", "final": "CKR_OK"}),
			"files", "an open file says why it ended", map[string]string{"update": "CKR_USER_NOT_LOGGED_IN", "final": "CKR_USER_NOT_LOGGED_IN"}), run: func(r *rig) {
			s := r.a.opened()
			public := s.mac("label=public")
			s.operate("begin", "sign", s.mac("private=true label=private"), hmac).must()
			s.operate("update", "sign", "00").must()
			s.logout().must()
			s.operate("update", "sign", "00").is("update", p11.CKR_OPERATION_NOT_INITIALIZED)
			s.operate("end", "sign").is("final", p11.CKR_OPERATION_NOT_INITIALIZED)
			s.sign(public, "00").is("with a public key", p11.CKR_OK)
		}},
		{name: "what is destroyed is not found and not used", cites: "§5.7.3, §5.13.1", run: func(r *rig) {
			s := r.a.open()
			key := s.mac("label=gone")
			s.isFound("before", "label=gone", 1)
			s.call("destroy", key).is("destroy", p11.CKR_OK)
			s.isFound("after", "label=gone", 0)
			s.isVisible("by its handle", key, p11.CKR_OBJECT_HANDLE_INVALID)
			s.sign(key, "00").is("sign", p11.CKR_KEY_HANDLE_INVALID)
			s.call("destroy", key).is("destroy again", p11.CKR_OBJECT_HANDLE_INVALID)
		}},
		{name: "no message begins with a key that another has destroyed", cites: "§5.7.3, docs/conformance.md", deviates: stock("its operations go on", map[string]string{"update": "CKR_OK"}), run: func(r *rig) {
			s, other := r.a.open(), r.b.open()
			key := s.mac("token=true label=gone")
			s.operate("begin", "sign", key, hmac).must()
			other.call("destroy", other.call("find", words("label=gone")).one()).must()
			s.operate("update", "sign", "00").is("update", p11.CKR_KEY_HANDLE_INVALID)
		}},
		{name: "a refused operation is none", cites: "§5.13.1", run: func(r *rig) {
			s := r.a.open()
			s.operate("begin", "sign", s.mac("label=no sign=false"), hmac).is("refused", p11.CKR_KEY_FUNCTION_NOT_PERMITTED)
			s.operate("begin", "sign", s.mac("label=yes"), hmac).is("the next", p11.CKR_OK)
		}},
		{name: "an error leaves the session usable", cites: "§5.2", run: func(r *rig) {
			s := r.a.open()
			key := s.key("label=x")
			s.operate("one", "encrypt", key, ecb, "00").is("bad data", p11.CKR_DATA_LEN_RANGE)
			s.operate("one", "encrypt", key, ecb, block).is("good data", p11.CKR_OK)
		}},
		{name: "an operation is one at a time", cites: "§5.13.1", files: noCalls, run: func(r *rig) {
			s := r.a.open()
			key := s.mac("label=x")
			s.operate("begin", "sign", key, hmac).must()
			s.operate("begin", "sign", key, hmac).is("a second", p11.CKR_OPERATION_ACTIVE)
			s.operate("update", "sign", "00").is("the first goes on", p11.CKR_OK)
		}},
		{name: "an operation has a beginning", cites: "§5.8 to §5.15", files: noCalls, run: func(r *rig) {
			s := r.a.open()
			for _, operation := range []string{"sign", "encrypt", "decrypt", "digest"} {
				s.operate("part", operation, "00").is(operation, p11.CKR_OPERATION_NOT_INITIALIZED)
				s.operate("update", operation, "00").is(operation+" update", p11.CKR_OPERATION_NOT_INITIALIZED)
				s.operate("end", operation).is(operation+" final", p11.CKR_OPERATION_NOT_INITIALIZED)
			}
			s.operate("update", "verify", "00").is("verify update", p11.CKR_OPERATION_NOT_INITIALIZED)
			s.operate("end", "verify", "00").is("verify final", p11.CKR_OPERATION_NOT_INITIALIZED)
		}},
		{name: "an error ends the operation", cites: "§5.2, §5.8.2", files: noCalls, run: func(r *rig) {
			s := r.a.open()
			key := s.key("label=x")
			s.operate("begin", "encrypt", key, ecb).must()
			s.operate("part", "encrypt", "00").is("bad data", p11.CKR_DATA_LEN_RANGE)
			s.operate("part", "encrypt", block).is("good data", p11.CKR_OPERATION_NOT_INITIALIZED)
		}},
		{name: "a result ends the operation", cites: "§5.13.2", files: noCalls, run: func(r *rig) {
			s := r.a.open()
			s.operate("begin", "sign", s.mac("label=x"), hmac).must()
			s.operate("part", "sign", "00").is("sign", p11.CKR_OK)
			s.operate("part", "sign", "00").is("sign again", p11.CKR_OPERATION_NOT_INITIALIZED)
		}},
		{name: "too small a buffer ends nothing", cites: "§5.2", files: "a read takes as much as it has room for", deviates: stock("C_Sign with HMAC does not look how long the buffer is", map[string]string{"too small": "CKR_OK"}), run: func(r *rig) {
			s := r.a.open()
			key := s.mac("label=x")
			s.operate("begin", "sign", key, hmac).must()
			got := s.operate("part", "sign", "00", "4").is("too small", p11.CKR_BUFFER_TOO_SMALL)
			if got.rv == p11.CKR_OK {
				return
			}
			r.is("the length that it takes", strings.Join(got.values, " "), "20")
			r.is("and then", s.operate("part", "sign", "00").one(), s.sign(key, "00").one())
		}},
		{name: "what was begun in parts goes on in parts", cites: "§5.13.2", files: noCalls, run: func(r *rig) {
			s := r.a.open()
			s.operate("begin", "sign", s.mac("label=x"), hmac).must()
			s.operate("update", "sign", "00").must()
			s.operate("part", "sign", "00").is("C_Sign after C_SignUpdate", p11.CKR_OPERATION_ACTIVE)
		}},
	}
}
