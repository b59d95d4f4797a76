package integration

import (
	"crypto"
	cryptoaes "crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"p11fs/p11"
	"p11fs/tokens/icsf/icsftest/icsfrig"
	"p11fs/tokens/icsf/icsftest/icsfserver"
	"p11fs/tokens/icsf/icsfwire"
	"p11fs/tokens/tokentest"
)

// What a client binds with.
const (
	icsfDN       = "racfid=USER1,profiletype=user,cn=RACF"
	icsfPassword = "RACFPASS"
	icsfName     = "TESTTOKEN"
)

// serveICSF starts a server of ICSF in this process, and returns it and its URI.
func serveICSF(t testing.TB, names ...string) (*icsfserver.Server, string) {
	t.Helper()
	s := icsfserver.New(icsfserver.Config{DN: icsfDN, Password: icsfPassword, Tokens: names})
	return s, "ldap://" + icsfrig.Serve(t, nil, s)
}

// An icsfHost is a liveHost with stock's icsf token, which a preloaded library lets load, on
// a server of ours.
type icsfHost struct {
	*liveHost
	server *icsfserver.Server
	with   string // runs a stock program
	root   string // with the token directory
	dir    string // where its terminal is
}

// newICSF boots one over a token root, and has stock's pkcsicsf make the token.
func newICSF(t testing.TB, root string) *icsfHost {
	t.Helper()
	needStock(t)
	needTools(t, "pkcsicsf", "gcc")
	libraries, _ := filepath.Glob("/usr/lib/*/opencryptoki/stdll/libpkcs11_icsf.so.0")
	need(t, len(libraries) > 0, "libpkcs11_icsf.so.0")
	source, err := filepath.Abs("testdata/icsf_shim.c")
	if err != nil {
		t.Fatal(err)
	}
	typed, err := filepath.Abs("testdata/typed.py")
	if err != nil {
		t.Fatal(err)
	}
	h := &icsfHost{}
	var uri string
	h.server, uri = serveICSF(t, icsfName, "OTHERTOKEN", "READONLY")
	h.root = root
	h.liveHost = newLive(t, h.root, "icsf", stockConfig)
	h.dir = strings.TrimSuffix(h.ok("pwd"), "\n")
	h.ok("mkdir -p /var/lib/opencryptoki/icsf/TOK_OBJ && chgrp -R pkcs11 /var/lib/opencryptoki && chmod -R g+rwx /var/lib/opencryptoki")
	h.ok("gcc -shared -fPIC -o shim.so " + quote(source) + " -ldl")
	h.with = "LD_PRELOAD=$PWD/shim.so "
	h.ok("mount -t tmpfs tmpfs /etc/opencryptoki && echo version opencryptoki-3.8 > /etc/opencryptoki/opencryptoki.conf")
	to := " -m simple -b " + quote(icsfDN) + " -u " + uri
	if out := h.ok("python3 " + typed + " " + icsfPassword + " pkcsicsf -l" + to); !strings.Contains(out, "READONLY") {
		t.Errorf("pkcsicsf -l says\n%s", out)
	}
	h.ok("python3 " + typed + " " + icsfPassword + ",87654321 pkcsicsf -a " + icsfName + to)
	h.ok("sed -i 's|libpkcs11_icsf.so|" + libraries[0] + "|' /etc/opencryptoki/opencryptoki.conf")
	return h
}

// slotd starts stock's slot daemon.
func (h *icsfHost) slotd() {
	h.t.Helper()
	h.ok("pkcsslotd -f & slotd=$!")
	h.ok("for i in $(seq 600); do [ -S /run/pkcsslotd.socket ] && break; sleep 0.05; done; [ -S /run/pkcsslotd.socket ]")
}

func fromHex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestICSFStock has stock's icsf token judge our server: each of the eighteen services that it
// asks for, at once and in parts, with what comes out checked here.
func TestICSFStock(t *testing.T) {
	t.Parallel()
	h := newICSF(t, workDir(t, "tokens"))
	h.slotd()
	if out := h.ok(h.with + "pkcsconf -t"); !strings.Contains(out, "ICSF TKDS") || !strings.Contains(out, "SER0") {
		t.Errorf("pkcsconf -t says\n%s", out)
	}
	h.ok(h.with + "pkcs11-tool --module " + h.module + " --login --login-type so --so-pin 87654321 --init-pin --pin " + userPIN)
	script, err := filepath.Abs("testdata/icsf_stock.py")
	if err != nil {
		t.Fatal(err)
	}
	checkServices(t, h.ok(h.with+"python3 "+script+" "+h.module+" "+userPIN+groupNumbers()))
	for s := icsfwire.DMK; s <= icsfwire.WPK; s++ {
		if h.server.Calls(s) == 0 {
			t.Errorf("stock has not asked for %s", s)
		}
	}
	for _, o := range h.server.Objects(icsfName) {
		if o.IsSession() {
			t.Errorf("the session is closed, and its object %q is there", o)
		}
	}
	h.ok("kill $slotd; wait $slotd; true")
	h.close()
}

// groupNumbers are a group of DSA and one of Diffie-Hellman, for scripts.
func groupNumbers() (numbers string) {
	for _, kt := range []p11.KeyType{p11.CKK_DSA, p11.CKK_DH} {
		g := tokentest.Group(kt)
		for _, n := range []*big.Int{g.P, g.Q, g.G} {
			if n != nil {
				numbers += fmt.Sprintf(" %x", n.Bytes())
			}
		}
	}
	return numbers
}

// checkServices checks what testdata/icsf_stock.py prints.
func checkServices(t *testing.T, printed string) {
	t.Helper()
	var got struct {
		ECB       string `json:"aes-ecb"`
		CBC       string `json:"aes-cbc"`
		Pad       string `json:"aes-pad"`
		ECBParts  string `json:"aes-ecb-parts"`
		CBCParts  string `json:"aes-cbc-parts"`
		PadParts  string `json:"aes-pad-parts"`
		Unaligned string
		HMAC      string
		HMACParts string `json:"hmac-parts"`
		Wrong0    string `json:"wrong-hmac-0"`
		Wrong1    string `json:"wrong-hmac-1"`
		Modulus   string
		RSA       string
		SHA256    string `json:"rsa-sha256"`
		Parts256  string `json:"rsa-sha256-parts"`
		WrongRSA  string `json:"wrong-rsa"`
		Point     string
		ECDSA     string
		Private   int    `json:"wrapped-private"`
		Garbage   string `json:"unwrap-garbage"`
		Master    string
		Material  []string
		TLS       []string `json:"tls-material"`
		Labels    []string
		Found     int
		Left      int
		Gone      string
		Token     string
	}
	if err := json.Unmarshal([]byte(printed), &got); err != nil {
		t.Fatalf("%v\n%s", err, printed)
	}
	key, text, digest := make([]byte, 16), []byte(strings.Repeat("sixteen bytes of", 5)), []byte("20 bytes to be sign.")
	for i := range key {
		key[i] = byte(i)
	}
	block, err := cryptoaes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	cbc := func(in []byte) string {
		out := slices.Clone(in)
		cipher.NewCBCEncrypter(block, key).CryptBlocks(out, out)
		return hex.EncodeToString(out)
	}
	ecb := slices.Clone(text)
	for i := 0; i < len(ecb); i += len(key) {
		block.Encrypt(ecb[i:], ecb[i:])
	}
	padded := slices.Concat(text, []byte("end"), []byte(strings.Repeat("\x0d", 13)))
	mac := hmac.New(sha256.New, key)
	mac.Write(text)
	hmacWant := hex.EncodeToString(mac.Sum(nil))
	for name, pair := range map[string][2]string{
		"AES ECB": {got.ECB, hex.EncodeToString(ecb)}, "AES ECB in parts": {got.ECBParts, got.ECB},
		"AES CBC": {got.CBC, cbc(text)}, "AES CBC in parts": {got.CBCParts, got.CBC},
		"AES CBC padded": {got.Pad, cbc(padded)}, "AES CBC padded in parts": {got.PadParts, got.Pad},
		"HMAC": {got.HMAC, hmacWant}, "HMAC in parts": {got.HMACParts, hmacWant},
		"a wrong HMAC": {got.Wrong0, "0xc0"}, "a wrong HMAC in parts": {got.Wrong1, "0xc0"}, "a wrong signature": {got.WrongRSA, "0xc0"},
		"data of no whole block": {got.Unaligned, "0x21"}, "garbage that is unwrapped": {got.Garbage, "0x110"},
		"labels": {strings.Join(got.Labels, " "), "renamed copied"}, "an object that is gone": {got.Gone, "0x82"}, "CKA_TOKEN that is set": {got.Token, "0x10"},
		"SHA-256 in parts": {got.Parts256, got.SHA256},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s: %s, want %s", name, pair[0], pair[1])
		}
	}
	if got.Found != 1 || got.Left != 0 || got.Private%16 != 0 || got.Private < 1200 || len(got.Master) != 96 || len(got.Material) != 6 || len(got.TLS) != 6 || slices.Equal(got.Material, got.TLS) {
		t.Errorf("what came of it is %+v", got)
	}
	checkMore(t, printed, text)
	pub := &rsa.PublicKey{N: new(big.Int).SetBytes(fromHex(t, got.Modulus)), E: 65537}
	sum := sha256.Sum256(text)
	if err := rsa.VerifyPKCS1v15(pub, 0, digest, fromHex(t, got.RSA)); err != nil {
		t.Errorf("RSA-PKCS: %v", err)
	}
	if err := rsa.VerifyPKCS1v15(pub, crypto.SHA256, sum[:], fromHex(t, got.SHA256)); err != nil {
		t.Errorf("SHA256-RSA-PKCS: %v", err)
	}
	point := fromHex(t, got.Point)
	ec, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point[len(point)-65:])
	if err != nil {
		t.Fatal(err)
	}
	rs := fromHex(t, got.ECDSA)
	if len(rs) != 64 || !ecdsa.Verify(ec, digest, new(big.Int).SetBytes(rs[:32]), new(big.Int).SetBytes(rs[32:])) {
		t.Errorf("ECDSA: %x", rs)
	}
}

// checkMore checks what DES and Triple DES have made of text, the refusals of DSA, and the
// lengths that calls have told without room, with too little, and with enough.
func checkMore(t *testing.T, printed string, text []byte) {
	t.Helper()
	var got map[string]any
	if err := json.Unmarshal([]byte(printed), &got); err != nil {
		t.Fatal(err)
	}
	lengths := map[string]any{
		"aes-cbc": "0x0 80, 0x150 80, 0x0 80", "aes-pad": "0x0 96, 0x150 96, 0x0 96", "hmac": "0x0 32, 0x150 1, 0x0 32",
		"rsa": "0x0 256, 0x150 256, 0x0 256", "rsa back": "0x0 256, 0x150 256, 0x0 256",
		"rsa-sha256":   "0x0 0, 0x150 256, 0x0 256", // stock asks nobody for the length
		"aes-cbc back": "0x0 80, 0x0 80, 0x91 4096", // stock does not look at the room
	}
	if !reflect.DeepEqual(got["sizes"], lengths) {
		t.Errorf("lengths are %v", got["sizes"])
	}
	key := make([]byte, 24)
	for i := range key {
		key[i] = byte(i + 1)
	}
	single, err := des.NewCipher(key[:8])
	if err != nil {
		t.Fatal(err)
	}
	triple, err := des.NewTripleDESCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"wrong-dsa-11-0": "0xc0", "wrong-dsa-12-0": "0xc0", "wrong-dsa-12-1": "0xc0"}
	for name, block := range map[string]cipher.Block{"des": single, "des3": triple} {
		ecb := slices.Clone(text)
		for i := 0; i < len(ecb); i += des.BlockSize {
			block.Encrypt(ecb[i:], ecb[i:])
		}
		want[name+"-ecb"] = hex.EncodeToString(ecb)
		for mode, in := range map[string][]byte{"cbc": slices.Clone(text), "pad": slices.Concat(text, []byte("end\x05\x05\x05\x05\x05"))} {
			cipher.NewCBCEncrypter(block, []byte{0, 1, 2, 3, 4, 5, 6, 7}).CryptBlocks(in, in)
			want[name+"-"+mode] = hex.EncodeToString(in)
		}
	}
	for name, is := range want {
		if got[name] != is {
			t.Errorf("%s: %v, want %s", name, got[name], is)
		}
	}
}
