package icsffile

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"reflect"
	"slices"
	"strings"
	"testing"

	"p11fs/secret"
)

// What the stock library's own functions wrote for the SO's PIN 76543210, the master key 00 to
// 1f and the password RACFPASS.
const (
	stockMaster   = "4000000017f00ae3b37eceef4e06f33f03796477db00e15a602edcc6cf2fc43eeaf09283e3e95a3bd01c92f3f43568eb8633c68078f30e3f6a6b6a08b3999d947b992112"
	stockPassword = "2000000065d63c73d1c67a59c18cbac92fc3ca812a9a0230731ae7855d6be4ee6538deb4"
)

// stockConfig is what stock's pkcsicsf wrote.
const stockConfig = `slot 4 {
TOKEN_NAME = "TESTTOKEN"
TOKEN_MANUFACTURE = "IBM z/OS ICSF"
TOKEN_MODEL = "ICSF TKDS"
TOKEN_SERIAL = "SER0"
MECH = "SIMPLE"
BINDDN = "racfid=USER1,profiletype=user,cn=RACF"
URI = "ldap://127.0.0.1:3389"
}
`

func newSecret(t testing.TB, b []byte) *secret.Bytes {
	t.Helper()
	s, err := secret.New(bytes.Clone(b))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func fromHex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func text(s *secret.Bytes) (out string) {
	s.Use(func(b []byte) { out = string(b) })
	return out
}

// native is a file of a machine like stock's, little endian, as this machine has it.
func native(b []byte) []byte {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		slices.Reverse(b[:4])
	}
	return b
}

// TestStockKeys opens stock's files, and makes them anew byte for byte.
func TestStockKeys(t *testing.T) {
	master := make([]byte, MasterKeySize)
	for i := range master {
		master[i] = byte(i)
	}
	pin, mk, racf := newSecret(t, []byte("76543210")), native(fromHex(t, stockMaster)), native(fromHex(t, stockPassword))
	got, err := OpenMaster(mk, pin)
	if err != nil || text(got) != string(master) {
		t.Fatalf("MK_SO opens to another key, %v", err)
	}
	defer got.Close()
	password, err := OpenPassword(racf, got)
	if err != nil || text(password) != "RACFPASS" {
		t.Fatalf("RACF opens to another password, %v", err)
	}
	defer password.Close()
	again, err := SealMaster(bytes.NewReader(mk[4:20]), pin, got)
	if err != nil || !bytes.Equal(again, mk) {
		t.Errorf("MK_SO is made as %x, %v", again, err)
	}
	again, err = SealPassword(bytes.NewReader(racf[4:20]), got, password)
	if err != nil || !bytes.Equal(again, racf) {
		t.Errorf("RACF is made as %x, %v", again, err)
	}
}

// TestWrongKeys opens files with other keys, and files that are damaged.
func TestWrongKeys(t *testing.T) {
	pin, other := newSecret(t, []byte("76543210")), newSecret(t, []byte("76543211"))
	mk := native(fromHex(t, stockMaster))
	for name, c := range map[string]struct {
		file []byte
		pin  *secret.Bytes
	}{
		"another PIN": {mk, other}, "cut off": {mk[:67], pin}, "nothing": {nil, pin}, "another length": {append([]byte{65}, mk[1:]...), pin},
		"changed": {append(bytes.Clone(mk[:67]), mk[67]^1), pin},
	} {
		if key, err := OpenMaster(c.file, c.pin); key != nil || err != nil {
			t.Errorf("%s: opened, %v", name, err)
		}
	}
	key := newSecret(t, make([]byte, MasterKeySize))
	file, err := SealPassword(rand.Reader, key, newSecret(t, bytes.Repeat([]byte("x"), MaxPassword)))
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range [][]byte{nil, file[:4], file[:35], file[:len(file)-16]} {
		if p, err := OpenPassword(bad, key); p != nil || err != nil {
			t.Errorf("%d bytes: opened, %v", len(bad), err)
		}
	}
	if _, err := SealPassword(rand.Reader, key, newSecret(t, bytes.Repeat([]byte("x"), MaxPassword+1))); err == nil {
		t.Error("a password is taken that stock cannot hold")
	}
}

func TestConfig(t *testing.T) {
	c, err := ParseConfig([]byte(stockConfig), 4)
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{
		Name: "TESTTOKEN", Manufacturer: "IBM z/OS ICSF", Model: "ICSF TKDS", Serial: "SER0", Mech: Simple,
		BindDN: "racfid=USER1,profiletype=user,cn=RACF", URI: "ldap://127.0.0.1:3389",
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("read %+v", c)
	}
	if got := string(c.Print(4)); got != stockConfig {
		t.Errorf("printed\n%s", got)
	}
	more := "# two\n" + stockConfig + "slot 5{token_name=OTHER mech=sasl}\nslot 6 { what = is }"
	if c, err = ParseConfig([]byte(more), 4); err != nil || c.Name != "TESTTOKEN" {
		t.Errorf("of several: %+v, %v", c, err)
	}
	for name, text := range map[string]string{
		"another slot of several": more[:len(more)-21] + "slot 8 {}", "an unknown key": "slot 4 { what = is }", "no end": "slot 4 { mech = SIMPLE",
		"no block": "mech = SIMPLE", "a quote without end": `slot 4 { mech = "SIMPLE`, "no mech": `slot 4 { token_name = A uri = "ldap://h" }`,
		"no name": `slot 4 { mech = SIMPLE binddn = x uri = "ldap://h" }`, "no server": "slot 4 { mech = SIMPLE binddn = x token_name = A uri = file }",
		"SASL without TLS": `slot 4 { mech = SASL token_name = A uri = "ldap://h" cert = c key = k }`, "a long serial": `slot 4 { token_serial = 12345678901234567 }`,
		"SIMPLE without a name": `slot 4 { mech = SIMPLE token_name = A uri = "ldap://h" }`,
	} {
		slot := uint64(4)
		if strings.HasPrefix(name, "another") {
			slot = 7
		}
		if c, err := ParseConfig([]byte(text), slot); err == nil {
			t.Errorf("%s: read %+v", name, c)
		}
	}
}

func TestNames(t *testing.T) {
	for name, want := range map[string]bool{
		"A": true, "TEST.TOKEN9": true, "#$@": true, "": false, "9A": false, ".A": false, "A B": false, "A_B": false,
		strings.Repeat("A", 32): true, strings.Repeat("A", 33): false,
	} {
		if ValidName(name) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
}

// TestRecord compares with what stock's NVTOK.DAT has where.
func TestRecord(t *testing.T) {
	c := &Config{URI: "ldaps://h", BindDN: "cn=x", CACert: "/ca", Cert: "/cert", Key: "/key", Mech: SASL}
	b := c.Record("/etc/opencryptoki/TESTTOKEN.conf")
	if len(b) != 20984-232 {
		t.Fatalf("%d bytes", len(b))
	}
	for at, want := range map[int]string{4: "/etc/opencryptoki/TESTTOKEN.conf", 4101: "ldaps://h", 8198: "cn=x", 8454: "/ca", 12551: "/cert", 16648: "/key"} {
		if got, _, _ := strings.Cut(string(b[at:]), "\x00"); got != want {
			t.Errorf("at %d: %q, want %q", at, got, want)
		}
	}
	for _, at := range []int{0, 20748} {
		if got := binary.NativeEndian.Uint32(b[at:]); got != 1 {
			t.Errorf("at %d: %d", at, got)
		}
	}
}

// FuzzConfig prints what can be read so that the same is read again.
func FuzzConfig(f *testing.F) {
	f.Add([]byte(stockConfig))
	f.Add([]byte(`slot 4{mech=SASL token_name=A uri="ldaps://h" cert=c key=k cacert=a}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseConfig(b, 4)
		if err != nil {
			return
		}
		again, err := ParseConfig(c.Print(4), 4)
		if err != nil || !reflect.DeepEqual(c, again) {
			t.Errorf("%+v became %+v, %v", c, again, err)
		}
	})
}
