package store

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/md5"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha512"
	"encoding/binary"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/store/storetest"
)

// A rawObject is an object as it stands in its file: its attributes by their numbers, and
// whether it is private.
type rawObject struct {
	Private bool
	Attrs   map[uint32]string
}

// littleEndian says what the machine is.
var littleEndian = binary.NativeEndian.Uint16([]byte{1, 0}) == 1

// A decoder is a second decoder for token directories of little-endian machines. It
// shares nothing with package format, and ends the test where something does not fit.
type decoder struct {
	t       *testing.T
	dir     string
	derived map[string][]byte // keys of PINs, which take long
	master  []byte            // if it is known, nothing is derived from PINs
}

func (d decoder) read(path ...string) []byte {
	return readFile(d.t, append([]string{d.dir}, path...)...)
}

func (d decoder) must(what string, ok bool) {
	d.t.Helper()
	if !ok {
		d.t.Fatalf("the other decoder: %s", what)
	}
}

// objects are the objects that OBJ.IDX lists; record returns what is in an object file.
func (d decoder) objects(record func(file []byte) (private bool, record []byte)) map[string]rawObject {
	d.t.Helper()
	all := make(map[string]rawObject)
	for line := range strings.Lines(string(d.read(objectsDir, indexFile))) {
		if line[0] >= 0x80 {
			continue // of an object that was destroyed
		}
		name := strings.TrimSuffix(line, "\n")
		private, r := record(d.read(objectsDir, name))
		d.must("another's name in "+name, string(r[8:16]) == name)
		o := rawObject{private, map[uint32]string{}}
		count := int(binary.LittleEndian.Uint32(r[4:]))
		for r = r[16:]; len(r) > 0; count-- {
			n := binary.LittleEndian.Uint32(r[8:])
			o.Attrs[binary.LittleEndian.Uint32(r)] = string(r[12 : 12+n])
			r = r[12+n:]
		}
		d.must("the attributes of "+name, count == 0)
		all[name] = o
	}
	return all
}

// decode312 decodes a directory of format 3.12 with both PINs.
func (d decoder) decode312(so, user string) map[string]rawObject {
	d.t.Helper()
	if d.master != nil {
		return d.sealed312(d.master)
	}
	nv := d.read(dataFile)
	derived := func(pin string, off int) []byte {
		which := pin + string(nv[off:off+72])
		if d.derived[which] == nil {
			k, err := pbkdf2.Key(sha512.New, pin, nv[off+8:off+72], int(binary.BigEndian.Uint64(nv[off:])), 32)
			d.must("PBKDF2", err == nil)
			d.derived[which] = k
		}
		return d.derived[which]
	}
	d.must("the PINs are others", bytes.Equal(derived(so, 240), nv[312:344]) && bytes.Equal(derived(user, 344), nv[416:448]))
	master := d.unwrap(derived(user, 520), d.read(userKeyFile))
	d.must("the two roles have two master keys", bytes.Equal(master, d.unwrap(derived(so, 448), d.read(soKeyFile))))
	return d.sealed312(master)
}

// sealed312 decodes the objects under a master key.
func (d decoder) sealed312(master []byte) map[string]rawObject {
	d.t.Helper()
	return d.objects(func(f []byte) (bool, []byte) {
		d.must("the version", binary.BigEndian.Uint32(f) == 0x0003000c)
		if f[4] == 0 {
			d.must("the length", int(binary.BigEndian.Uint32(f[12:])) == len(f)-16)
			return false, f[16:]
		}
		block, err := aes.NewCipher(d.unwrap(master, f[8:48]))
		d.must("the object's key", err == nil)
		gcm, err := cipher.NewGCM(block)
		d.must("GCM", err == nil)
		record, err := gcm.Open(nil, f[48:60], f[64:], f[:64])
		d.must("the tag", err == nil && int(binary.BigEndian.Uint32(f[60:])) == len(record))
		return true, record
	})
}

// unwrap is RFC 3394, §2.2.2.
func (d decoder) unwrap(kek, w []byte) []byte {
	block, err := aes.NewCipher(kek)
	d.must("a wrapping key", err == nil)
	a, r := binary.BigEndian.Uint64(w), bytes.Clone(w[8:])
	for j := 5; j >= 0; j-- {
		for i := len(r)/8 - 1; i >= 0; i-- {
			var b [16]byte
			binary.BigEndian.PutUint64(b[:], a^uint64(len(r)/8*j+i+1))
			copy(b[8:], r[8*i:8*i+8])
			block.Decrypt(b[:], b[:])
			a = binary.BigEndian.Uint64(b[:])
			copy(r[8*i:], b[8:])
		}
	}
	d.must("a key does not unwrap", a == 0xa6a6a6a6a6a6a6a6)
	return r
}

// decode38 decodes a directory of format 3.8 with both PINs.
func (d decoder) decode38(so, user string) map[string]rawObject {
	d.t.Helper()
	nv := d.read(dataFile)
	hash := func(pin string) []byte { h := sha1.Sum([]byte(pin)); return h[:] }
	d.must("the PINs are others", bytes.Equal(hash(user), nv[160:180]) && bytes.Equal(hash(so), nv[184:204]))
	decrypt := func(key []byte, iv string, b []byte) []byte {
		block, err := des.NewTripleDESCipher(key)
		d.must("a key", err == nil && len(b)%8 == 0)
		b = bytes.Clone(b)
		cipher.NewCBCDecrypter(block, []byte(iv)).CryptBlocks(b, b)
		return b
	}
	master := func(pin, file string) []byte {
		m := md5.Sum([]byte(pin))
		b := decrypt(append(m[:], m[:8]...), "12345678", d.read(file))
		d.must(file, len(b) == 48 && bytes.Equal(hash(string(b[:24])), b[24:44]))
		return b[:24]
	}
	key := master(user, userKeyFile)
	d.must("the two roles have two master keys", bytes.Equal(key, master(so, soKeyFile)))
	return d.objects(func(f []byte) (bool, []byte) {
		d.must("the length", int(binary.LittleEndian.Uint32(f)) == len(f))
		if f[4] == 0 {
			return false, f[5:]
		}
		b := decrypt(key, "10293847", f[5:])
		n := binary.LittleEndian.Uint32(b)
		d.must("the checksum", bytes.Equal(hash(string(b[4:4+n])), b[4+n:24+n]))
		return true, b[4 : 4+n]
	})
}

// rawOf is what the decoder should find of an object of the golden directories.
func rawOf(o storetest.DecodedObject) rawObject {
	r := rawObject{o.Private, map[uint32]string{}}
	for _, a := range o.Attributes {
		r.Attrs[uint32(a.Attribute().Type)] = rawValue(a)
	}
	return r
}

func rawValue(a storetest.DecodedAttribute) string {
	b := []byte(a.Value)
	for _, inner := range a.Array {
		v := rawValue(inner)
		b = binary.LittleEndian.AppendUint32(b, uint32(inner.Attribute().Type))
		b = binary.LittleEndian.AppendUint64(b, uint64(len(v))<<32)
		b = append(b, v...)
	}
	return string(b)
}

// strangeAttributes are of types that nobody knows: one is said to be an array of
// attributes, and is none.
func strangeAttributes() p11.Attributes {
	return p11.Attributes{
		{Type: 0x80abcdef, Value: []byte("odd")},
		{Type: 0xc0abcdef, Value: []byte("\x00\x01no array")},
		{Type: 0xfffffffe, Value: []byte{1, 2, 3, 4, 5, 6, 7, 8}},
		{Type: 0x80abcdf0, Value: []byte{}},
	}
}

// TestGoldenChanged changes all that is in directories that stock made, and the PINs: a
// second decoder finds the same as ours at first, and then what was changed and
// nothing else. Stock's random names and ours are in one directory. PBKDF2 takes its time:
// without -whole the PINs of some stay as they are.
func TestGoldenChanged(t *testing.T) {
	golden := storetest.ReadDecoded(t)
	if testing.Short() {
		maps.DeleteFunc(golden, func(name string, _ storetest.Decoded) bool { return name != "swold" })
	}
	golden["ours"] = storetest.Decoded{} // a new one
	if littleEndian {
		golden["ours, 3.8"] = storetest.Decoded{}
	}
	for name, g := range golden {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			changeGolden(t, name, g)
		})
	}
}

func changeGolden(t *testing.T, name string, g storetest.Decoded) {
	ctx := t.Context()
	var cfg Config
	if g.Objects == nil {
		cfg = freshConfig(t)
	} else {
		cfg = config(t, storetest.Untar(t, name))
	}
	all := *whole || g.Objects == nil || name == "swold"
	d := decoder{t: t, dir: cfg.Dir, derived: map[string][]byte{}}
	if !all && name != "sw312-v3.23" {
		d.master = g.Master
	}
	decode := d.decode38
	cfg.Format = v38(t, "swtok")
	if name != "swold" && name != "ours, 3.8" {
		decode, cfg.Format = d.decode312, v312(t)
	}
	so, user := storetest.SOPIN, storetest.UserPIN
	if g.Objects == nil {
		so, user = testSO, testUser
		_ = initialised(t, cfg).Close()
	}
	want := map[string]rawObject{}
	for _, o := range g.Objects {
		want[o.File] = rawOf(o)
	}
	check := func(what string) {
		t.Helper()
		if d := cmp.Diff(want, decode(so, user)); d != "" {
			t.Errorf("%s: %s", what, d)
		}
	}
	check("as stock left it")
	if cfg.Format.FileSize() != dataSize {
		makeEarly(t, cfg.Dir, want)
	}

	s := openStore(t, cfg)
	l := login(t, s, p11.CKU_USER, user)
	found, err := s.Find(ctx, nil, true)
	if err != nil || len(found) != len(want) {
		t.Fatalf("%d objects, want %d (%v)", len(found), len(want), err)
	}
	label := func(o *tokens.Object, text string) {
		t.Helper()
		if _, err := s.Update(ctx, o.Handle, relabel(text)); err != nil {
			t.Fatalf("%s: %v", o.Stored, err)
		}
		want[o.Stored].Attrs[uint32(p11.CKA_LABEL)] = text
	}
	for i, o := range found {
		if label(o, "changed"); i%5 == 0 {
			destroy(t, s, o)
			delete(want, o.Stored)
		}
	}
	for i, attrs := range []p11.Attributes{dataObject("public", "1", false), dataObject("private", "2", true)} {
		raw := rawObject{i == 1, map[uint32]string{}}
		attrs = append(attrs, strangeAttributes()...)
		for _, a := range attrs {
			raw.Attrs[uint32(a.Type)] = string(a.Value)
		}
		raw.Attrs[uint32(p11.CKA_CLASS)] = "\x00\x00\x00\x00"
		o := create(t, s, attrs)
		if want[o.Stored] = raw; !strings.HasSuffix(o.Stored, "000000") {
			t.Errorf("the new object is %s", o.Stored)
		}
		label(o, "changed twice")
	}
	check("changed")

	if d.master != nil {
		return
	}
	set := func(role p11.UserType, pin1 *string, next string) {
		t.Helper()
		if err := s.SetPIN(ctx, role, pin(t, *pin1), pin(t, next)); err != nil {
			t.Fatal(err)
		}
		*pin1 = next
		check("with another PIN")
	}
	set(p11.CKU_USER, &user, "5555aaaa")
	if !all {
		return
	}
	set(p11.CKU_SO, &so, "6666")
	_ = l.Close()
	admin := login(t, s, p11.CKU_SO, so)
	if err := s.InitPIN(ctx, admin, pin(t, "7777")); err != nil {
		t.Fatal(err)
	}
	user = "7777"
	check("with a PIN that the SO set")
}

// makeEarly gives a public object the header that releases up to 3.14 wrote: in the
// machine's byte order.
func makeEarly(t *testing.T, dir string, objects map[string]rawObject) {
	t.Helper()
	for name := range maps.Keys(objects) {
		if objects[name].Private {
			continue
		}
		b := readFile(t, dir, objectsDir, name)
		for _, at := range []int{0, 12} {
			binary.LittleEndian.PutUint32(b[at:], binary.BigEndian.Uint32(b[at:]))
		}
		writeFile(t, b, dir, objectsDir, name)
		return
	}
}

// TestGoldenSegment reads the token's data as current stock programs have it in shared
// memory: the same as in the file, in the machine's byte order.
func TestGoldenSegment(t *testing.T) {
	f := v312(t)
	for _, name := range []string{"sw312", "sw312-v3.23"} {
		file := readFile(t, storetest.Untar(t, name), dataFile)
		d, err := f.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		segment := storetest.Segment(t, name)
		if !littleEndian {
			continue // they come from such a machine
		}
		if got, err := f.ParseSegment(segment); err != nil || got != d || !bytes.Equal(f.PrintSegment(d), segment) {
			t.Errorf("%s: the segment says something else: %v", name, err)
		}
	}
}
