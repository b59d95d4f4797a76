package softhsm

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"p11fs/foreign"
	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/secret"
)

const golden = "testdata/token"

func pin(t testing.TB, text string) *secret.Bytes {
	t.Helper()
	p, err := secret.New([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func read(t testing.TB, dir, text string, so bool) ([]foreign.Object, error) {
	t.Helper()
	tok, err := Open(dir)
	if err != nil {
		return nil, err
	}
	defer tok.Close()
	list, err := tok.Objects(t.Context(), pin(t, text), so, func(int, int) {})
	t.Cleanup(func() { foreign.WipeAll(list) })
	return list, err
}

// known is what the golden token has: its values are those that the module showed.
func known(t *testing.T, list []foreign.Object) {
	t.Helper()
	values := make(map[string]string)
	pairs := make(map[string][]byte)
	for _, o := range list {
		if o.Err != nil {
			t.Errorf("%s: %v", o.Name(), o.Err)
			continue
		}
		v, _ := o.Attrs.Get(p11.CKA_VALUE)
		values[o.Name()] = hex.EncodeToString(v)
		class, _ := o.Attrs.Class()
		if class != p11.CKO_PRIVATE_KEY && class != p11.CKO_PUBLIC_KEY {
			continue
		}
		whole := foreign.Portable(o.Attrs).Clone()
		if err := pkix.Complete(&whole); err != nil {
			t.Errorf("%s: %v", o.Name(), err)
		}
		info, _ := whole.Get(p11.CKA_PUBLIC_KEY_INFO)
		if was := pairs[o.Attrs.Label()]; was != nil && !bytes.Equal(was, info) {
			t.Errorf("the keys of %s are of two pairs", o.Attrs.Label())
		}
		pairs[o.Attrs.Label()] = info
		if allowed, _ := o.Attrs.Mechanisms(); o.Attrs.Label() == "rsa2" && class == p11.CKO_PRIVATE_KEY && fmt.Sprint(allowed) != "[CKM_RSA_PKCS CKM_SHA256_RSA_PKCS]" {
			t.Errorf("rsa2 allows %v", allowed)
		}
	}
	if len(list) != 11 || len(pairs) != 4 {
		t.Errorf("%d objects, %d pairs", len(list), len(pairs))
	}
	for name, want := range map[string]string{
		`secret-key "aes"`: "1a3fdee5ec5b8d58d3a14ca614ec4b774935cae1149a3fcab6b2b4a088bbcc71",
		`data "d1"`:        "766d0a", `data "d2"`: "766d0a",
	} {
		if values[name] != want {
			t.Errorf("%s is %s", name, values[name])
		}
	}
}

func TestGolden(t *testing.T) {
	for text, so := range map[string]bool{"12345678": false, "11112222": true} {
		list, err := read(t, golden, text, so)
		if err != nil {
			t.Fatal(err)
		}
		known(t, list)
	}
	for _, text := range []string{"12345679", "11112222", ""} {
		if list, err := read(t, golden, text, false); p11.RVOf(err) != p11.CKR_PIN_INCORRECT || list != nil {
			t.Errorf("PIN %q: %d objects, %v", text, len(list), err)
		}
	}
	dirs, err := Find("testdata")
	if err != nil || len(dirs) != 1 || dirs[0] != golden {
		t.Errorf("found %v, %v", dirs, err)
	}
	tok, err := Open(golden)
	if err != nil || tok.Label != "src" || tok.Serial != "270a7cb2e0135640" {
		t.Errorf("%+v, %v", tok, err)
	}
	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	if list, err := tok.Objects(stopped, pin(t, "12345678"), false, func(int, int) {}); err == nil || list != nil {
		t.Errorf("an interrupted read gives %d objects", len(list))
	}
}

func goldenFiles(t testing.TB) map[string][]byte {
	t.Helper()
	names, err := filepath.Glob(golden + "/*.object")
	if err != nil || len(names) != 12 {
		t.Fatal(names, err)
	}
	files := make(map[string][]byte)
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		files[filepath.Base(name)] = b
	}
	return files
}

// goldenKey is the golden token's own key.
func goldenKey(t testing.TB) *secret.Bytes {
	t.Helper()
	tok, err := Open(golden)
	if err != nil {
		t.Fatal(err)
	}
	blob, _ := tok.token.Get(attrKey)
	key, err := openKey(blob, pin(t, "12345678"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = key.Close() })
	return key
}

// TestDamage cuts each file at each length, and turns bits. What was cut is an error, or
// lacks only what other programs do without; what was turned may be any object, but none
// with values of another length than its file.
func TestDamage(t *testing.T) {
	key := goldenKey(t)
	step := 7
	if testing.Short() {
		step = 61
	}
	for name, file := range goldenFiles(t) {
		if name == tokenFile {
			continue
		}
		whole, err := open(file, key)
		if err != nil {
			t.Fatal(err)
		}
		for n := range file {
			got, err := open(file[:n], key)
			for _, a := range whole {
				if err == nil && a.Type <= p11.CKA_MODIFIABLE && !got.Has(a.Type) {
					t.Errorf("%s cut at %d has no %s", name, n, a.Type.Short())
				}
			}
			got.Wipe()
			if n%step != 0 {
				continue
			}
			turned := bytes.Clone(file)
			turned[n] ^= 1 << (n % 8)
			got, _ = open(turned, key)
			size := 0
			for _, a := range got {
				size += len(a.Value)
			}
			if size > 2*len(file) {
				t.Errorf("%s with byte %d turned has values of %d bytes", name, n, size)
			}
			got.Wipe()
		}
	}
}

// TestDates takes a date as it stands, in a private object too.
func TestDates(t *testing.T) {
	s := stored{attrs: p11.Attributes{
		{Type: p11.CKA_CLASS, Value: p11.Ulong(p11.CKO_SECRET_KEY)}, {Type: p11.CKA_PRIVATE, Value: p11.Bool(true)}, {Type: p11.CKA_MODIFIABLE, Value: p11.Bool(true)},
		{Type: p11.CKA_START_DATE, Value: []byte("20260131")}, {Type: p11.CKA_END_DATE, Value: []byte{}},
	}, bytes: map[p11.AttributeType]bool{p11.CKA_START_DATE: true, p11.CKA_END_DATE: true}}
	got, err := s.open(goldenKey(t))
	if v, _ := got.Get(p11.CKA_START_DATE); err != nil || string(v) != "20260131" {
		t.Errorf("%q, %v", v, err)
	}
	s.attrs.Set(p11.CKA_LABEL, []byte("in the clear"))
	s.bytes[p11.CKA_LABEL] = true
	if _, err := s.open(goldenKey(t)); err == nil {
		t.Error("a label in the clear is taken for one that is encrypted")
	}
}

func open(file []byte, key *secret.Bytes) (p11.Attributes, error) {
	s, err := parseObject(file)
	if err != nil {
		return nil, err
	}
	return s.open(key)
}

// TestDamagedStore has one damaged file of each sort beside the others, which are read.
func TestDamagedStore(t *testing.T) {
	files := goldenFiles(t)
	big := func(tail string) []byte { return append(bytes.Repeat([]byte{0}, 8), tail...) }
	bad := map[string][]byte{
		"empty.object":     {},
		"cut.object":       files["870f2b44-77d5-58e3-71fd-a99dbf5a416f.object"][:300],
		"kind.object":      big("\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x09"),
		"length.object":    big("\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\x03\xff\xff\xff\xff\xff\xff\xff\xff"),
		"count.object":     big("\x00\x00\x00\x00\x40\x00\x06\x00\x00\x00\x00\x00\x00\x00\x00\x05\x20\x00\x00\x00\x00\x00\x00\x01"),
		"noclass.object":   big("\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01\xff"),
		"too-large.object": make([]byte, foreign.MaxObject+1),
	}
	dir := t.TempDir()
	for _, set := range []map[string][]byte{files, bad} {
		for name, b := range set {
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.Symlink(tokenFile, filepath.Join(dir, "link.object")); err != nil {
		t.Fatal(err)
	}
	list, err := read(t, dir, "12345678", false)
	if err != nil {
		t.Fatal(err)
	}
	var good []foreign.Object
	failed := map[string]bool{}
	for _, o := range list {
		if o.Err == nil {
			good = append(good, o)
		} else {
			failed[o.Place] = true
		}
	}
	known(t, good)
	for name := range bad {
		if !failed[name] {
			t.Errorf("%s is read", name)
		}
	}
	if len(failed) != len(bad)+1 {
		t.Errorf("failed: %v", failed)
	}
	for n := range files[tokenFile] {
		if err := os.WriteFile(filepath.Join(dir, tokenFile), files[tokenFile][:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if list, err := read(t, dir, "12345678", false); err == nil {
			t.Fatalf("token.object cut at %d gives %d objects", n, len(list))
		}
	}
}

// TestDatabase reads a database with the same objects, made by sqlite3(1) with the tables
// of SoftHSM2: Debian's is built without them.
func TestDatabase(t *testing.T) {
	if _, err := exec.LookPath("sqlite3"); err != nil {
		t.Skip("needs sqlite3")
	}
	var sql strings.Builder
	sql.WriteString("begin;\ncreate table object (id integer primary key autoincrement);\n")
	for _, table := range tables() {
		kind := map[int]string{kindBytes: "blob", kindTemplate: "blob", kindBool: "boolean", kindNumber: "integer"}[table.kind]
		fmt.Fprintf(&sql, "create table %s (value %s, type integer, object_id integer references object(id) on delete cascade, id integer primary key autoincrement);\n", table.name, kind)
	}
	id := 1
	for name, file := range goldenFiles(t) {
		n := 1 // the token
		if name != tokenFile {
			id++
			n = id
		}
		fmt.Fprintf(&sql, "insert into object values (%d);\n", n)
		s, err := parseObject(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range s.attrs {
			table, value := "attribute_binary", fmt.Sprintf("x'%x'", a.Value)
			number, _ := s.attrs.Ulong(a.Type)
			switch {
			case p11.KindOf(a.Type) == p11.KindBool:
				table, value = "attribute_boolean", fmt.Sprint(a.Value[0])
			case p11.KindOf(a.Type).IsUlong() && !s.bytes[a.Type]:
				table, value = "attribute_integer", fmt.Sprint(int64(number))
			case p11.KindOf(a.Type) == p11.KindTemplate:
				table = "attribute_array"
			}
			fmt.Fprintf(&sql, "insert into %s (value, type, object_id) values (%s, %d, %d);\n", table, value, int64(a.Type), n)
		}
	}
	dir := t.TempDir()
	path := filepath.Join(dir, databaseFile)
	cmd := exec.Command("sqlite3", path)
	cmd.Stdin = strings.NewReader(sql.String() + "commit;\n")
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("%v: %s", err, out)
	}
	list, err := read(t, dir, "12345678", false)
	if err != nil {
		t.Fatal(err)
	}
	known(t, list)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; n < len(whole); n += 4999 {
		for _, damaged := range [][]byte{whole[:n], append(append(bytes.Clone(whole[:n]), whole[n]^0x55), whole[n+1:]...)} {
			if err := os.WriteFile(path, damaged, 0o600); err != nil {
				t.Fatal(err)
			}
			list, err := read(t, dir, "12345678", false)
			if err == nil && len(list) > 20 {
				t.Errorf("damaged at %d: %d objects", n, len(list))
			}
		}
	}
}

// TestNoPlainTable has a database with what works while it is read, and may do so for ever.
func TestNoPlainTable(t *testing.T) {
	if _, err := exec.LookPath("sqlite3"); err != nil {
		t.Skip("needs sqlite3")
	}
	for _, sql := range []string{
		"create view OBJECT as select 1 as id",
		"create virtual table attribute_array using fts5(value, type, object_id)",
		"create table object (id integer); pragma writable_schema = on; update sqlite_master set sql = 'create view object as select 1 as id'",
	} {
		path := filepath.Join(t.TempDir(), databaseFile)
		cmd := exec.Command("sqlite3", path)
		cmd.Stdin = strings.NewReader(".dbconfig defensive off\n" + sql + ";\n")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if d, err := openDatabase(path); err == nil {
			t.Errorf("%s: no error", sql)
			_ = d.close()
		}
	}
}

// FuzzObject looks for panics, and for values that the file does not hold.
func FuzzObject(f *testing.F) {
	for _, file := range goldenFiles(f) {
		f.Add(file)
	}
	key := goldenKey(f)
	f.Fuzz(func(t *testing.T, file []byte) {
		s, err := parseObject(file)
		size := 0
		for i, a := range s.attrs {
			if size += len(a.Value); s.attrs[:i].Has(a.Type) {
				t.Fatalf("%s is there twice", a.Type.Short())
			}
		}
		if size > 8*len(file) || err != nil && len(s.attrs) > 0 {
			t.Fatalf("%d bytes of %d, %v", size, len(file), err)
		}
		if err == nil {
			a, err := s.open(key)
			if err == nil && a.Validate() != nil {
				t.Fatal("an object that is not valid")
			}
		}
	})
}
