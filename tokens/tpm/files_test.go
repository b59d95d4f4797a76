package tpm

import (
	"bytes"
	"crypto/sha256"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"p11fs/locks"
	"p11fs/p11"
	"p11fs/tokens/tpm/tpm20"
)

func writeFile(name, text string) error { return os.WriteFile(name, []byte(text), 0o600) }

func sampleRecord() *record {
	return &record{
		device: "unix:/run/tpm", vendor: "IBM SW TPM 2.0", protection: PINFail, raw: true,
		parent: tpm20.Parent{Template: tpm20.P256, Handle: 0x81000001, Name: bytes.Repeat([]byte{7}, 34)},
		bits:   []int{2048, 3072}, curves: []string{"P-256", "P-384"}, aes: []int{128, 256}, modes: []string{"CFB"}, indexes: []uint32{0x018f5000, 0x018f5003},
	}
}

func sampleKeyFile() *keyFile {
	k := &keyFile{cost: tpm20.Cost, seal: tpm20.Seal{Index: 0x018f5000, Blob: tpm20.Blob{Public: []byte("public"), Private: []byte("private")}}}
	copy(k.salt[:], "salt")
	return k
}

// TestRecord: what is written is read again, and a file that is not whole is none.
func TestRecord(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	// The name of a temporary file cannot be taken.
	if err := os.MkdirAll(filepath.Join(dir, ".p11fs."+chipFile, "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := sampleRecord().write(dir, locks.NoGroup); err != nil {
		t.Fatal(err)
	}
	got, err := readRecord(dir)
	if err != nil || !reflect.DeepEqual(got, sampleRecord()) {
		t.Errorf("%+v, %v", got, err)
	}
	text := string(sampleRecord().print())
	for _, bad := range []string{
		"", text[1:], text[:len(text)-1], text + "unknown=1\n", text + "no value\n", strings.Replace(text, PINFail, "none", 1),
		strings.Replace(text, "srk=07", "srk=", 1), strings.Replace(text, "unix:/run/tpm", "tpm", 1), recordHead + "\nvendor=x\n",
		text + strings.Repeat("vendor=x\n", maxChipFile/8),
	} {
		if err := writeFile(filepath.Join(dir, chipFile), bad); err != nil {
			t.Fatal(err)
		}
		if _, err := readRecord(dir); p11.RVOf(err) != p11.CKR_TOKEN_NOT_RECOGNIZED {
			t.Errorf("%.60q: %v", bad, err)
		}
	}
	if err := os.Remove(filepath.Join(dir, chipFile)); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("elsewhere", filepath.Join(dir, chipFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := readRecord(dir); err == nil {
		t.Error("a symbolic link was followed")
	}
}

func TestKeyFile(t *testing.T) {
	t.Parallel()
	b, err := sampleKeyFile().print()
	if err != nil || len(b) != keyFileSize {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	got, err := parseKeyFile(b)
	if err != nil || !reflect.DeepEqual(got, sampleKeyFile()) {
		t.Errorf("%+v, %v", got, err)
	}
	for i := range b {
		damaged := bytes.Clone(b)
		damaged[i] ^= 1
		if _, err := parseKeyFile(damaged); p11.RVOf(err) != p11.CKR_DEVICE_ERROR {
			t.Errorf("byte %d damaged: %v", i, err)
		}
	}
	long := sampleKeyFile()
	long.seal.Blob.Private = make([]byte, keyFileSize)
	if _, err := long.print(); p11.RVOf(err) != p11.CKR_DEVICE_ERROR {
		t.Errorf("a blob without room: %v", err)
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "tpm.conf")
	for text, want := range map[string]settings{
		"":                                     {},
		"# nothing\n\n":                        {},
		"device = tcp:[::1]:2321 # a test's\n": {device: "tcp:[::1]:2321"},
		"device=/dev/tpm0\nprotection=da":      {device: "/dev/tpm0", protection: DA},
		"cost = 17\naes = tpm":                 {cost: 17, aes: true},
		"user = alice":                         {user: "alice"},
	} {
		if err := writeFile(file, text); err != nil {
			t.Fatal(err)
		}
		if got, err := readSettings(file); err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	for _, bad := range []string{"device = tpm0", "protection = none", "pin = 1234", "device", "cost = 9", "cost = 21", "cost = fifteen", "aes = software", strings.Repeat("x", maxLine+1)} {
		if err := writeFile(file, bad); err != nil {
			t.Fatal(err)
		}
		if _, err := readSettings(file); p11.RVOf(err) != p11.CKR_FUNCTION_FAILED {
			t.Errorf("%.40q: %v", bad, err)
		}
	}
	if _, err := readSettings(file + ".absent"); p11.RVOf(err) != p11.CKR_FUNCTION_FAILED {
		t.Errorf("an absent file: %v", err)
	}
}

// FuzzRecord: what parses prints back the same.
func FuzzRecord(f *testing.F) {
	f.Add(sampleRecord().print())
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseRecord(b)
		if err != nil {
			return
		}
		again, err := parseRecord(r.print())
		if err != nil || !reflect.DeepEqual(r, again) {
			t.Errorf("%+v became %+v, %v", r, again, err)
		}
	})
}

// FuzzKeyFile likewise, with a sum that fits, which stops no attacker.
func FuzzKeyFile(f *testing.F) {
	b, err := sampleKeyFile().print()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b[:keySumAt])
	f.Fuzz(func(t *testing.T, b []byte) {
		sum := sha256.Sum256(b)
		k, err := parseKeyFile(append(bytes.Clone(b), sum[:]...))
		if err != nil {
			return
		}
		again, err := k.print()
		if err != nil || k.cost <= tpm20.MaxCost && !bytes.Equal(again[:keySumAt], b) {
			t.Errorf("%x became %x, %v", b, again, err)
		}
	})
}

// FuzzOpaque is what an object holds of a key.
func FuzzOpaque(f *testing.F) {
	f.Add(printOpaque(sampleKeyFile().seal.Blob))
	f.Fuzz(func(t *testing.T, b []byte) {
		if blob, err := parseOpaque(b); err == nil && !bytes.Equal(printOpaque(blob), b) {
			t.Errorf("%x became %x", b, printOpaque(blob))
		}
	})
}
