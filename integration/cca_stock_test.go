package integration

import (
	"crypto"
	cryptoaes "crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"p11fs/tokens/store/storetest"
)

// ccaConfig is the configuration with a CCA token.
const ccaConfig = `version opencryptoki-3.8
slot 0
{
stdll = libpkcs11_cca.so
tokname = ccatok
}
`

// A ccaHost is a liveHost with a software card in CCA mode, where stock's CCA token can be
// loaded: with a preloaded library that has what it wants, and with our libcsulcca.so.
type ccaHost struct {
	*liveHost
	with string // runs a stock program
}

func newCCA(t testing.TB) *ccaHost {
	t.Helper()
	needStock(t)
	needTools(t, "gcc", "make")
	libraries, _ := filepath.Glob("/usr/lib/*/opencryptoki/stdll/libpkcs11_cca.so.0")
	need(t, len(libraries) > 0, "libpkcs11_cca.so.0")
	root := workDir(t, "tokens")
	if err := os.CopyFS(filepath.Join(root, "ccatok"), os.DirFS(storetest.Untar(t, "ccatok"))); err != nil {
		t.Fatal(err)
	}
	h := &ccaHost{liveHost: newLive(t, root, "ccatok", ccaConfig)}
	h.ok("chgrp -R pkcs11 /var/lib/opencryptoki && chmod -R g+rwX /var/lib/opencryptoki")
	source, err := filepath.Abs("testdata/cca_shim.c")
	if err != nil {
		t.Fatal(err)
	}
	project, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	h.ok("gcc -shared -fPIC -o shim.so " + quote(source) + " && make -s -f " + quote(project+"/cmd/libcard/build.mk") + " libcard LIBCARD=$PWD/card")
	h.with = "LD_PRELOAD=$PWD/shim.so LD_LIBRARY_PATH=$PWD/card "
	h.card()
	return h
}

// card starts the card.
func (h *ccaHost) card() {
	h.t.Helper()
	h.ok("mkdir -p /run/p11fs && chmod 755 /run/p11fs && " + quote(binary()) + " card serve --kind cca --dir $PWD/cards --socket /run/p11fs/card.cca >card.out 2>card.log & card=$!")
	h.ok("for i in $(seq 600); do grep -q 'answer at' card.out && break; sleep 0.05; done; grep -q 'answer at' card.out")
}

// TestCCAStock has stock's CCA token judge our card and our library, beside p11fs on the
// same directory: what one makes the other uses.
func TestCCAStock(t *testing.T) {
	if testing.Short() {
		t.Skip("starts stock's programs and compiles libraries, which takes some seconds of processor time")
	}
	t.Parallel()
	h := newCCA(t)
	h.serve()
	h.ok("export P11FS_SOCKET=/run/p11fs/rpc.sock")
	ours := "pkcs11-tool --module " + quote(ownModule(t)) + " --login --pin " + storetest.UserPIN
	h.ok(ours + " --keygen --key-type AES:32 --label ours-aes --usage-decrypt --id " + hex.EncodeToString([]byte("ours-aes")))
	script, err := filepath.Abs("testdata/cca_stock.py")
	if err != nil {
		t.Fatal(err)
	}
	sealed := checkCCA(t, h.ok(h.with+"python3 "+script+" "+h.module+" "+storetest.UserPIN+" ours-aes"))
	text := strings.Repeat("sixteen bytes of", 5)
	h.ok("printf %s " + quote(text) + " >text")
	const iv = "000102030405060708090a0b0c0d0e0f"
	for label, want := range sealed {
		h.ok("rm -f out && " + ours + " --encrypt -m AES-CBC --iv " + iv + " --id " + hex.EncodeToString([]byte(label)) + " --input-file text --output-file out")
		if got := strings.TrimSpace(h.ok("xxd -p out | tr -d '\\n'")); got != want {
			t.Errorf("%s encrypts to %s here, and to %s in stock", label, got, want)
		}
	}
	h.ok("kill $card; wait $card; true")
	h.stop()
}

// checkCCA checks what testdata/cca_stock.py prints, and returns what the keys of AES made
// of the text.
func checkCCA(t *testing.T, printed string) map[string]string {
	t.Helper()
	var raw map[string]json.RawMessage
	if err := json.Unmarshal([]byte(printed), &raw); err != nil {
		t.Fatalf("%v\n%s", err, printed)
	}
	read := func(name string) (list []string) {
		t.Helper()
		if err := json.Unmarshal(raw[name], &list); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return list
	}
	key, text, long := make([]byte, 16), []byte(strings.Repeat("sixteen bytes of", 5)), make([]byte, 1000)
	for i := range long {
		long[i] = byte(i * 7)
	}
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
	same := func(name string, want ...string) {
		t.Helper()
		if got := read(name); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	same("aes-ecb", hex.EncodeToString(ecb), hex.EncodeToString(ecb))
	same("aes-cbc", cbc(text), cbc(text))
	padded := cbc(slices.Concat(text, []byte("end"), []byte(strings.Repeat("\x0d", 13))))
	same("aes-pad", padded, padded)
	for name, h := range map[string]crypto.Hash{"sha1": crypto.SHA1, "sha256": crypto.SHA256, "sha384": crypto.SHA384, "sha512": crypto.SHA512} {
		mac, plain := hmac.New(h.New, key), h.New()
		mac.Write(long)
		plain.Write(long)
		want, digest := hex.EncodeToString(mac.Sum(nil)), hex.EncodeToString(plain.Sum(nil))
		same("hmac-"+name, want, want, "0xc0")
		same("digest-"+name, digest, digest)
	}
	var sizes []any
	for name, want := range map[string][]any{"sizes": {80.0, "0x150", cbc(text)}, "mac-sizes": {32.0, "0x0", read("hmac-sha256")[0]}} {
		if err := json.Unmarshal(raw[name], &sizes); err != nil || !slices.Equal(sizes, want) {
			t.Errorf("%s: %v, %v", name, sizes, err)
		}
	}
	if string(raw["random"]) != "true" {
		t.Errorf("random: %s", raw["random"])
	}
	made := map[string]string{"stock-aes": cbc(text)}
	for name, label := range map[string]string{"stock-made": "stock-made", "other": "ours-aes"} {
		var s string
		if err := json.Unmarshal(raw[name], &s); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		made[label] = s
	}
	return made
}
