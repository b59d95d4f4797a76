package integration

import (
	"fmt"
	"strings"

	"p11fs/p11"
)

// The mechanisms with secret keys beside libcrypto: see TestCrossOpenSSL.

// secret is the token's key of a type, and its value.
func (x *judged) secret(kt p11.KeyType) (key, value string) {
	if ofTLS(x.m.Type) {
		return x.ours.secret(x.t, kt, []byte(masterSecret)), hexOf(masterSecret)
	}
	k := x.ours.key(x.t, kt)
	v, _ := k.privateAttrs.Get(p11.CKA_VALUE)
	return k.private, fmt.Sprintf("%x", v)
}

// blockName is a block cipher by libcrypto's name, for keys of a value.
func blockName(kt p11.KeyType, value string) string {
	switch kt {
	case p11.CKK_DES:
		return "DES"
	case p11.CKK_DES2:
		return "DES-EDE"
	case p11.CKK_DES3:
		return "DES-EDE3"
	case p11.CKK_AES_XTS:
		return fmt.Sprintf("AES-%d", len(value)*2)
	}
	return fmt.Sprintf("AES-%d", len(value)*4)
}

// mac has each side verify what the other makes.
func (x *judged) mac(kt p11.KeyType, hash p11.MechanismType) {
	key, value := x.secret(kt)
	data := hexOf("32 bytes to make the MAC of them")
	block, name := blockName(kt, value), x.m.Type.Short()
	var want string
	switch p := x.m.Param.(type) {
	case *p11.TLSMACParams:
		label := map[uint64]string{1: "server finished", 2: "client finished"}[p.Side]
		want = x.ask("kdf", "TLS1-PRF", fmt.Sprintf("digest=s:%s,secret=x:%s,seed=x:%s", prfName(p.PRF), value, hexOf(label)+data), p.Length)
	case p11.IV:
		want = x.ask("mac", "GMAC", value, fmt.Sprintf("cipher=s:%s-GCM,iv=x:%x", block, []byte(p)), data)
	default:
		switch {
		case hash != 0:
			want = x.ask("mac", "HMAC", value, "digest=s:"+opensslHash(hash), data)
		case name == "poly1305":
			want = x.ask("mac", "POLY1305", value, "-", data)
		case strings.Contains(name, "cmac"):
			want = x.ask("mac", "CMAC", value, "cipher=s:"+block+"-CBC", data)
		default: // the first half of the last block of CBC
			size := map[bool]int{true: 32, false: 16}[kt == p11.CKK_AES]
			ct := x.ask("cipher", "encrypt", block+"-CBC", value, strings.Repeat("0", size), "pad=0", data)
			if want = ct[len(ct)-size:]; p == nil {
				want = want[:size/2]
			}
		}
	}
	if p, ok := x.m.Param.(p11.MACLength); ok {
		want = want[:2*int(p)]
	}
	x.same(x.ours.operate("one", "sign", key, x.word(), data).one(), want)
	x.ours.call("verify", key, x.word(), data, want).must()
}

// prfName is the hash of a PRF of TLS; that of TLS 1.0 and 1.1 has two.
func prfName(m p11.MechanismType) string {
	if m == p11.CKM_TLS_PRF {
		return "MD5-SHA1"
	}
	return opensslHash(m)
}

// cipher has each side decrypt what the other encrypts.
func (x *judged) cipher(kt p11.KeyType) {
	key, value := x.secret(kt)
	plain, block, name, options, iv := hexOf(strings.Repeat("16 bytes a block", 3)), blockName(kt, value), x.m.Type.Short(), "pad=0", "-"
	_, mode, _ := strings.Cut(name, "-") // aes-cbc-pad: CBC-PAD
	mode = strings.ToUpper(mode)
	padded := plain
	switch p := x.m.Param.(type) {
	case p11.IV:
		iv = fmt.Sprintf("%x", []byte(p))
	case *p11.CTRParams:
		iv = fmt.Sprintf("%x", p.Counter)
	case *p11.GCMParams:
		iv, options = fmt.Sprintf("%x", p.IV), fmt.Sprintf("aad=%x,tag=%d", p.AAD, p.TagBits/8)
	case *p11.CCMParams:
		iv, options = fmt.Sprintf("%x", p.Nonce), fmt.Sprintf("tag=%d", p.MACLen)
		if len(p.AAD) > 0 {
			options += fmt.Sprintf(",aad=%x", p.AAD)
		}
	case *p11.ChaCha20Params:
		p.Counter = []byte{1, 0, 0, 0}
		iv = fmt.Sprintf("%x%x", p.Counter, p.Nonce)
	case *p11.ChaCha20Poly1305Params:
		iv, options = fmt.Sprintf("%x", p.Nonce), "tag=16"
		if len(p.AAD) > 0 {
			options += fmt.Sprintf(",aad=%x", p.AAD)
		}
	}
	theirs := block + "-" + mode
	switch x.m.Type {
	case p11.CKM_AES_CBC_PAD, p11.CKM_DES_CBC_PAD, p11.CKM_DES3_CBC_PAD:
		theirs, options, plain = block+"-CBC", "pad=1", plain[2:]
		padded = plain
	case p11.CKM_AES_CFB128, p11.CKM_DES_CFB64:
		theirs = block + "-CFB"
	case p11.CKM_DES_OFB64:
		theirs = block + "-OFB"
	case p11.CKM_AES_CTS:
		theirs, plain = block+"-CBC-CTS", plain[2:]
		padded = plain
	case p11.CKM_AES_KEY_WRAP:
		theirs, options = block+"-WRAP", "-"
	case p11.CKM_AES_KEY_WRAP_PAD, p11.CKM_AES_KEY_WRAP_KWP:
		theirs, options, plain = block+"-WRAP-PAD", "-", plain[2:]
		padded = plain
	case p11.CKM_AES_KEY_WRAP_PKCS7: // the padding of PKCS #7 to blocks of 8 bytes
		theirs, options, plain = block+"-WRAP", "-", plain[2:]
		padded = plain + "01"
	case p11.CKM_CHACHA20:
		theirs = "ChaCha20"
	case p11.CKM_CHACHA20_POLY1305:
		theirs = "ChaCha20-Poly1305"
	}
	ours := x.ours.operate("one", "encrypt", key, x.word(), plain).one()
	want := x.ask("cipher", "encrypt", theirs, value, iv, options, padded)
	x.same(ours, want)
	x.same(x.ours.operate("one", "decrypt", key, x.word(), want).one(), plain)
	x.same(padded, x.ask("cipher", "decrypt", theirs, value, iv, options, ours))
}

// derive compares the keys that both derive.
func (x *judged) derive(kt p11.KeyType, hash p11.MechanismType, name string) {
	base, value := x.secret(kt)
	length, class := 16, "class=secret-key key-type=generic-secret" // the shortest digest
	if x.facts.Data {
		class = "class=data"
	}
	var want string
	switch p := x.m.Param.(type) {
	case *p11.StringDataParams:
		p.Data = []byte("16 bytes of data")
		want = x.ask("cipher", "encrypt", blockName(kt, value)+"-ECB", value, "-", "pad=0", hexOf(string(p.Data)))
	case *p11.CBCDataParams:
		p.Data = []byte("16 bytes of data")
		want = x.ask("cipher", "encrypt", blockName(kt, value)+"-CBC", value, fmt.Sprintf("%x", p.IV), "pad=0", hexOf(string(p.Data)))
	case *p11.HKDFParams:
		p.Salt, p.Info, p.SaltType, length = []byte("salt"), []byte("info"), uint64(p11.CKF_HKDF_SALT_DATA), 42
		want = x.ask("kdf", "HKDF", fmt.Sprintf("digest=s:%s,key=x:%s,salt=x:%x,info=x:%x", opensslHash(p.Hash), value, p.Salt, p.Info), length)
	case *p11.SSL3MasterParams: // of TLS: that of SSL 3 is not here
		length = 48
		want = x.prf("MD5-SHA1", value, "master secret", p.Random.Client, p.Random.Server, length)
	case *p11.TLS12MasterParams:
		length = 48
		want = x.prf(opensslHash(p.Hash), value, "master secret", p.Random.Client, p.Random.Server, length)
	case *p11.ExtendedMasterParams:
		length = 48
		want = x.prf(opensslHash(p.Hash), value, "extended master secret", p.SessionHash, nil, length)
	case *p11.TLSKDFParams:
		length = 40
		want = x.prf(prfName(p.PRF), value, string(p.Label), p.Random.Client, p.Random.Server, length)
	default:
		switch {
		case strings.HasPrefix(name, "shake-"):
			want = x.ask("digest", "SHAKE"+name[len("shake-"):len("shake-128")], value, length)
		case hash != 0:
			want = x.ask("digest", opensslHash(hash), value)[:2*length]
		default:
			x.t.Fatalf("nothing is known of %s", name)
		}
	}
	made := x.ours.call("deriveby", base, x.word(), words(class+openKeyOf(class)+fmt.Sprintf(" value-len=%d", length))).one()
	x.same(x.ours.get(made, p11.CKA_VALUE).one(), want)
}

func openKeyOf(class string) string {
	if class == "class=data" {
		return " token=false private=false"
	}
	return openKey
}

// prf is the function of TLS.
func (x *judged) prf(digest, secret, label string, client, server []byte, length int) string {
	return x.ask("kdf", "TLS1-PRF", fmt.Sprintf("digest=s:%s,secret=x:%s,seed=x:%s", digest, secret, hexOf(label)+fmt.Sprintf("%x%x", client, server)), length)
}
