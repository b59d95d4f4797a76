package integration

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"p11fs/p11"
	"p11fs/tokens/securekey"
)

// compileJudge makes dir/judge of testdata/judge.c.
func compileJudge(t testing.TB, dir, cc string) {
	t.Helper()
	needTools(t, cc)
	cmd := exec.Command(cc, "-std=c11", "-D_GNU_SOURCE", "-O1", "-Wall", "-Wextra", "-Werror", "-I../cmd/libp11fs/src", "-o", filepath.Join(dir, "judge"), "testdata/judge.c", "-ldl")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
}

// A court checks by openssl what judges print. All of it is about one token.
type court struct {
	t     *testing.T
	dir   string            // has the files given and peer.*, and what openssl is given
	keys  map[string]string // of the public keys that were printed: rsa or the curve's point
	same  map[string]string // what came of a key that is known to nobody, by key, mechanism and data
	heard map[string]bool   // the lines that were checked
	blobs map[string][]byte // of secret keys, as cards have made them
	count map[string]int    // of what was checked, by word
}

// knownKey is what testdata/judge.c has for the keys whose names end in -given.
const knownKey = "01020407080b0d0e10131516191a1c1f20232526292a2c2f31323437383b3d3e"

// newCourt makes the keys that judges are given.
func newCourt(t *testing.T, dir string) *court {
	t.Helper()
	needTools(t, "openssl")
	c := &court{t: t, dir: dir, keys: map[string]string{}, same: map[string]string{}, heard: map[string]bool{}, blobs: map[string][]byte{}, count: map[string]int{}}
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p := k.Precomputed
	text := "rsa"
	for _, n := range []*big.Int{k.N, big.NewInt(int64(k.E)), k.D, k.Primes[0], k.Primes[1], p.Dp, p.Dq, p.Qinv} {
		text += fmt.Sprintf(" %x", n.Bytes())
	}
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		k, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalECPrivateKey(k)
		if err != nil {
			t.Fatal(err)
		}
		public, err := x509.MarshalPKIXPublicKey(&k.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		var info spki
		if _, err := asn1.Unmarshal(public, &info); err != nil {
			t.Fatal(err)
		}
		point := hex.EncodeToString(info.Key.Bytes)
		c.write("peer."+point[:20], pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}))
		text += fmt.Sprintf("\npeer %x %s", info.Algorithm.Parameters.FullBytes, point)
	}
	c.write("given", []byte(text+c.groups()+"\n"))
	return c
}

// groups are one of Diffie-Hellman with a peer's value, and one of DSA, as long as stock
// takes it.
func (c *court) groups() string {
	c.t.Helper()
	run := func(args ...string) []byte {
		c.t.Helper()
		out, err := c.openssl(nil, args...)
		if err != nil {
			c.t.Fatal(err)
		}
		return out
	}
	text := ""
	for _, args := range [][]string{
		{"DH", "-pkeyopt", "group:modp_2048"}, {"DSA", "-pkeyopt", "dsa_paramgen_bits:1024", "-pkeyopt", "dsa_paramgen_q_bits:160"},
	} {
		file := c.write("group", run(append([]string{"genpkey", "-genparam", "-quiet", "-algorithm"}, args...)...))
		text += "\n" + strings.ToLower(args[0])
		b, err := os.ReadFile(file)
		if err != nil {
			c.t.Fatal(err)
		}
		block, _ := pem.Decode(b)
		var numbers []*big.Int
		if _, err := asn1.Unmarshal(block.Bytes, &numbers); err != nil {
			c.t.Fatal(err)
		}
		for _, n := range numbers[:map[string]int{"DH": 2, "DSA": 3}[args[0]]] {
			text += fmt.Sprintf(" %x", n.Bytes())
		}
		if args[0] != "DH" {
			continue
		}
		key := run("genpkey", "-paramfile", file)
		der, err := c.openssl(key, "pkey", "-pubout", "-outform", "DER")
		if err != nil {
			c.t.Fatal(err)
		}
		var info spki
		value := new(big.Int)
		if _, err = asn1.Unmarshal(der, &info); err == nil {
			_, err = asn1.Unmarshal(info.Key.Bytes, &value)
		}
		if err != nil {
			c.t.Fatal(err)
		}
		peer := fmt.Sprintf("%x", value.Bytes())
		c.write("peer."+peer[:20], key)
		text += " " + peer
	}
	return text
}

// An spki is a SubjectPublicKeyInfo.
type spki struct {
	Algorithm pkix.AlgorithmIdentifier
	Key       asn1.BitString
}

func (c *court) path(name string) string { return filepath.Join(c.dir, name) }

func (c *court) write(name string, b []byte) string {
	c.t.Helper()
	if err := os.WriteFile(c.path(name), b, 0o644); err != nil {
		c.t.Fatal(err)
	}
	return c.path(name)
}

// openssl runs it with an input.
func (c *court) openssl(in []byte, args ...string) ([]byte, error) {
	cmd := exec.Command("openssl", args...)
	var out, said bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &out, &said
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("openssl %s: %w: %s%s", strings.Join(args, " "), err, out.Bytes(), said.Bytes())
	}
	return out.Bytes(), nil
}

// hear takes what a judge printed, who must have checked some things at least.
func (c *court) hear(printed string, atLeast int) {
	c.t.Helper()
	lines := strings.Split(strings.TrimSpace(printed), "\n")
	n, err := strconv.Atoi(strings.TrimPrefix(lines[len(lines)-1], "checks "))
	if err != nil || n < atLeast {
		c.t.Errorf("it ends with %.200q, and not after %d checks", lines[len(lines)-1], atLeast)
	}
	for _, line := range lines[:len(lines)-1] {
		word, rest, _ := strings.Cut(line, " ")
		f := strings.Fields(rest)
		if word == "bad:" {
			c.t.Error(rest)
			continue
		}
		c.count[word]++
		if c.heard[line] { // what is the same each time openssl need not check again
			continue
		}
		c.heard[line] = true
		if err := c.check(word, f); err != nil {
			c.t.Errorf("%s %s: %v", word, strings.Join(f[:min(2, len(f))], " "), err)
		}
	}
}

func unhexed(s string) []byte {
	b, _ := hex.DecodeString(strings.TrimPrefix(s, "-"))
	return b
}

// check checks one line.
func (c *court) check(word string, f []string) error {
	switch {
	case word == "rsa" && len(f) == 3:
		n, e := new(big.Int).SetBytes(unhexed(f[1])), new(big.Int).SetBytes(unhexed(f[2]))
		der, err := x509.MarshalPKIXPublicKey(&rsa.PublicKey{N: n, E: int(e.Int64())})
		c.public(f[0], "rsa", der)
		return err
	case word == "ec" && len(f) == 3:
		return c.ec(f[0], unhexed(f[1]), unhexed(f[2]))
	case word == "dh" && len(f) == 4 || word == "dsa" && len(f) == 5:
		return c.group(f[0], word, f[1:])
	case word == "signature" && len(f) == 4:
		return c.signature(f[0], f[1], unhexed(f[2]), unhexed(f[3]))
	case word == "cipher" && len(f) == 4:
		return c.cipher(f[0], f[1], f[2], f[3])
	case word == "derived" && len(f) == 4:
		return c.derived(f[0], f[1], unhexed(f[2]), f[3])
	case word == "digest" && len(f) == 3:
		out, err := c.openssl(unhexed(f[1]), "dgst", "-"+f[0], "-binary")
		return differs(err, hex.EncodeToString(out), f[2])
	case word == "opened" && len(f) == 3:
		return differs(nil, f[2], hex.EncodeToString([]byte(sealedText)))
	case word == "blob" && len(f) == 2:
		c.blobs[f[0]] = unhexed(f[1])
		return nil
	case word == "mechanisms" && len(f) > 20:
		return nil
	}
	return fmt.Errorf("nobody knows what it is, with %d words", len(f))
}

func differs(err error, got, want string) error {
	if err == nil && got != want {
		err = fmt.Errorf("%s, not %s", got, want)
	}
	return err
}

func (c *court) public(name, kind string, spki []byte) {
	c.keys[name] = kind
	c.write("pub."+name, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki}))
}

// ec takes a public key, whose point is as programs have it: in DER, or raw and with a byte
// that follows it in memory.
func (c *court) ec(name string, params, point []byte) error {
	var raw []byte
	read, _ := securekey.Read(p11.Attributes{
		{Type: p11.CKA_CLASS, Value: p11.Ulong(p11.CKO_PUBLIC_KEY)}, {Type: p11.CKA_EC_PARAMS, Value: params}, {Type: p11.CKA_EC_POINT, Value: point},
	}).Get(p11.CKA_EC_POINT)
	if _, err := asn1.Unmarshal(read, &raw); err != nil {
		return err
	}
	der, err := asn1.Marshal(spki{
		pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}, Parameters: asn1.RawValue{FullBytes: params}},
		asn1.BitString{Bytes: raw, BitLength: 8 * len(raw)},
	})
	c.public(name, "ec", der)
	return err
}

// group takes a public key in a group, whose value comes last.
func (c *court) group(name, kind string, f []string) error {
	var numbers []*big.Int
	for _, n := range f {
		numbers = append(numbers, new(big.Int).SetBytes(unhexed(n)))
	}
	last := len(numbers) - 1
	params, err := asn1.Marshal(numbers[:last])
	if err != nil {
		return err
	}
	value, err := asn1.Marshal(numbers[last])
	if err != nil {
		return err
	}
	oid := map[string]asn1.ObjectIdentifier{"dh": {1, 2, 840, 113549, 1, 3, 1}, "dsa": {1, 2, 840, 10040, 4, 1}}[kind]
	der, err := asn1.Marshal(spki{pkix.AlgorithmIdentifier{Algorithm: oid, Parameters: asn1.RawValue{FullBytes: params}}, asn1.BitString{Bytes: value, BitLength: 8 * len(value)}})
	c.public(name, kind, der)
	return err
}

// signature checks a signature, or an HMAC.
func (c *court) signature(name, mechanism string, data, sig []byte) error {
	kind, pub := c.keys[name], c.path("pub."+name)
	if kind == "ec" || kind == "dsa" {
		r, s := new(big.Int).SetBytes(sig[:len(sig)/2]), new(big.Int).SetBytes(sig[len(sig)/2:])
		var err error
		if sig, err = asn1.Marshal(struct{ R, S *big.Int }{r, s}); err != nil {
			return err
		}
	}
	file := c.write("signature", sig)
	switch {
	case strings.HasSuffix(name, "-mac"):
		return c.agrees(name+mechanism+string(data), hex.EncodeToString(sig))
	case strings.HasSuffix(name, "-mac-given"):
		out, err := c.openssl(data, "dgst", "-"+mechanism, "-mac", "HMAC", "-macopt", "hexkey:"+knownKey, "-binary")
		return differs(err, hex.EncodeToString(out), hex.EncodeToString(sig))
	case kind == "":
		return fmt.Errorf("nobody knows the key")
	case mechanism == "raw" || mechanism == "pss":
		args := []string{"pkeyutl", "-verify", "-pubin", "-inkey", pub, "-sigfile", file}
		if mechanism == "pss" {
			args = append(args, "-pkeyopt", "rsa_padding_mode:pss", "-pkeyopt", "digest:sha1", "-pkeyopt", "rsa_pss_saltlen:20")
		}
		_, err := c.openssl(data, args...)
		return err
	}
	_, err := c.openssl(data, "dgst", "-"+mechanism, "-verify", pub, "-signature", file)
	return err
}

// agrees says whether every judge has the same.
func (c *court) agrees(what, out string) error {
	if other, ok := c.same[what]; ok {
		return differs(nil, out, other)
	}
	c.same[what] = out
	return nil
}

const judgeIV = "000102030405060708090a0b0c0d0e0f"

func (c *court) cipher(name, mechanism, plain, sealed string) error {
	if !strings.HasSuffix(name, "-given") {
		return c.agrees(name+mechanism+plain, sealed)
	}
	mode, pads := strings.CutSuffix(mechanism, "-pad")
	cipher, key, iv := map[string]string{"aes-cbc": "-aes-128-cbc", "aes-ecb": "-aes-128-ecb", "des3-cbc": "-des-ede3-cbc", "des3-ecb": "-des-ede3"}[mode], knownKey[:32], judgeIV
	if strings.HasPrefix(mode, "des3") {
		key, iv = knownKey[:48], judgeIV[:16]
	}
	args := []string{"enc", cipher, "-K", key}
	if strings.HasSuffix(mode, "cbc") {
		args = append(args, "-iv", iv)
	}
	if !pads {
		args = append(args, "-nopad")
	}
	out, err := c.openssl(unhexed(plain), args...)
	return differs(err, hex.EncodeToString(out), sealed)
}

// derived checks what a key sealed that was derived with the peer of a point.
func (c *court) derived(name, peer string, plain []byte, sealed string) error {
	shared, err := c.openssl(nil, "pkeyutl", "-derive", "-inkey", c.path("peer."+peer[:20]), "-peerkey", c.path("pub."+name))
	if err != nil {
		return err
	}
	out, err := c.openssl(plain, "enc", "-aes-128-cbc", "-nopad", "-K", hex.EncodeToString(shared[len(shared)-16:]), "-iv", judgeIV)
	return differs(err, hex.EncodeToString(out), sealed)
}

const sealedText = "sealed by openssl"

// sealed has openssl encrypt for the RSA keys of a name, and returns the commands that have
// a judge decrypt it.
func (c *court) sealed(name string, mechanisms ...string) string {
	c.t.Helper()
	var commands []string
	for _, key := range []string{name + "-rsa", name + "-rsa-given"} {
		for _, m := range mechanisms {
			padding := map[string]string{"pkcs": "pkcs1", "oaep": "oaep"}[m]
			out, err := c.openssl([]byte(sealedText), "pkeyutl", "-encrypt", "-pubin", "-inkey", c.path("pub."+key), "-pkeyopt", "rsa_padding_mode:"+padding)
			if err != nil {
				c.t.Fatal(err)
			}
			commands = append(commands, fmt.Sprintf("open:%s:%s:%x", key, m, out))
		}
	}
	return strings.Join(commands, " ")
}

// counted says what must have been printed how often.
func (c *court) counted(want map[string]int) {
	c.t.Helper()
	for word, n := range want {
		if c.count[word] < n {
			c.t.Errorf("%d lines say %s, not %d", c.count[word], word, n)
		}
	}
}
