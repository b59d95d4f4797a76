package icsfwire

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"reflect"
	"strings"
	"testing"

	"p11fs/p11"
)

// An exchange is one line of testdata/transcript.jsonl.gz.
type exchange struct {
	name              string
	request, response []byte
}

// transcript reads the golden exchanges between the stock token and a server.
func transcript(t testing.TB) (list []exchange) {
	t.Helper()
	f, err := os.Open("testdata/transcript.jsonl.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(z)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var x struct{ Service, Rules, Request, Response string }
		if err := json.Unmarshal(lines.Bytes(), &x); err != nil {
			t.Fatal(err)
		}
		request, err := hex.DecodeString(x.Request)
		if err != nil {
			t.Fatal(err)
		}
		response, err := hex.DecodeString(x.Response)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, exchange{x.Service + " " + x.Rules, request, response})
	}
	if err := lines.Err(); err != nil || len(list) != 102 {
		t.Fatalf("%d exchanges: %v", len(list), err)
	}
	return list
}

// answerTo is where the answer to a request is read into.
func answerTo(r *Request) Data {
	switch r.Data.(type) {
	case *ListTokens:
		return &TokenList{}
	case *ListObjects:
		return &ObjectList{}
	case *GetAttributes:
		return &AttributeList{}
	case *GeneratePair:
		return &PrivateHandle{}
	case *Encrypt:
		return &Encrypted{}
	case *Decrypt:
		return &Decrypted{}
	case *PrivateUse:
		return &PrivateResult{}
	case *PublicEncrypt:
		return &PublicResult{}
	case *MAC:
		return &MACResult{}
	case *VerifyMAC:
		return &VerifyMACResult{}
	case *Hash:
		return &HashResult{}
	case *Wrap:
		return &Wrapped{}
	case *Master, *Agree:
		return &Derived{}
	case *KeyMaterial:
		return &DerivedKeys{}
	}
	return nil
}

// TestTranscript takes each request of the stock token apart and puts it together again byte
// for byte, and so each response.
func TestTranscript(t *testing.T) {
	seen := make(map[Service]bool)
	for i, x := range transcript(t) {
		r, err := ParseRequest(x.request)
		if err != nil {
			t.Fatalf("%d, %s: %v", i, x.name, err)
		}
		seen[r.Data.service()] = true
		if got := r.Data.service().String() + " " + strings.Join(r.Rules, " "); got != x.name {
			t.Errorf("%d: %s is read as %s", i, x.name, got)
		}
		again, err := r.Print()
		if err != nil || !bytes.Equal(again, x.request) {
			t.Errorf("%d, %s: %v\n got %x\nwant %x", i, x.name, err, again, x.request)
		}
		testAnswer(t, i, x, r)
	}
	// No program of stock's asks for these: TRC of a token stands in TestOwn.
	for s := DMK; s <= WPK; s++ {
		if !seen[s] {
			t.Errorf("the transcript has no %s", s)
		}
	}
}

func testAnswer(t *testing.T, i int, x exchange, r *Request) {
	t.Helper()
	p, err := ParseResponse(x.response)
	if err != nil {
		t.Fatalf("%d, answer to %s: %v", i, x.name, err)
	}
	data := answerTo(r)
	if p.Return == 8 && len(p.body) == 0 {
		data = nil
	}
	if data != nil {
		if err := p.Into(data); err != nil {
			t.Fatalf("%d, answer to %s: %v", i, x.name, err)
		}
	}
	again, err := PrintResponse(p.Return, p.Reason, p.Handle, r.Data.service(), data)
	if err != nil || !bytes.Equal(again, x.response) {
		t.Errorf("%d, answer to %s: %v\n got %x\nwant %x", i, x.name, err, again, x.response)
	}
}

// TestParts looks at the parts of some requests of the transcript.
func TestParts(t *testing.T) {
	list := transcript(t)
	for i, want := range map[int]*Request{
		0: {Rules: []string{"TOKEN"}, Data: &ListTokens{Room: 1160, Max: 10}},
		9: {Handle: "TESTTOKEN", Rules: []string{"OBJECT"}, Data: &ListObjects{Room: 440, Max: 10, Template: p11.Attributes{{Type: p11.CKA_LABEL, Value: []byte("rsa")}}}},
		20: {Handle: ObjectHandle("TESTTOKEN", 1, false), Data: &SetAttributes{p11.Attributes{
			{Type: p11.CKA_LABEL, Value: []byte("aes-renamed")},
		}}},
		94: {Handle: ObjectHandle("TESTTOKEN", 0xA, false), Rules: []string{"OBJECT"}, Data: &Destroy{}},
	} {
		got, err := ParseRequest(list[i].request)
		if err != nil {
			t.Fatal(err)
		}
		if i == 94 { // whichever object it was
			want.Handle = got.Handle
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%d: %+v, want %+v", i, got, want)
		}
	}
	gsk, err := ParseRequest(list[3].request)
	if err != nil {
		t.Fatal(err)
	}
	if d := gsk.Data.(*GenerateKey); d.Attributes.Text() == "" || d.Attributes.Label() != "aesgen" {
		t.Errorf("the key to be made is %v", d.Attributes)
	}
}

// TestOwn prints and reads what the transcript has none of.
func TestOwn(t *testing.T) {
	for _, r := range []*Request{
		{Handle: "NEW", Rules: []string{"TOKEN"}, Data: &CreateToken{bytes.Repeat([]byte{' '}, 68)}},
		{Handle: "NEW", Rules: []string{"TOKEN"}, Data: &Destroy{}},
		{Handle: ObjectHandle("NEW", 7, true), Rules: []string{"PKCS-DH"}, Data: &Agree{p11.Attributes{{Type: p11.CKA_VALUE_LEN, Value: p11.Ulong(uint64(32))}}, []byte{1, 2}}},
		{Handle: "NEW", Data: &GeneratePair{Public: p11.Attributes{{Type: 0x80000001, Value: []byte{0xff}}}, Private: nil}},
	} {
		b, err := r.Print()
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseRequest(b)
		if err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("%v: %+v became %+v", err, r, got)
		}
	}
}

// TestLiberal reads what another server may say: lengths in the long form, numbers with
// leading zeros, the size of attributes before them, elements that nobody knows.
func TestLiberal(t *testing.T) {
	long := func(tag byte, body ...byte) []byte {
		return append([]byte{tag, 0x84, 0, 0, byte(len(body) >> 8), byte(len(body))}, body...)
	}
	join := func(list ...[]byte) []byte { return bytes.Join(list, nil) }
	handle := long(tagOctets, ObjectHandle("T", 1, false).Print()...)
	attrs := long(tagSequence, long(tagSequence, join(long(tagInteger, 0, 0, 1, 0), long(valueNumber, 0, 0, 0, 0, 31))...)...)
	data := long(0xa3, join(long(tagInteger, 0, 0, 9), long(0x8f, 1), attrs, long(tagOctets, 7))...)
	p, err := ParseResponse(long(tagSequence, join(long(tagInteger, 0, 1), long(tagInteger, 0), long(tagInteger, 0), long(tagOctets), handle, data, long(tagOctets))...))
	if err != nil {
		t.Fatal(err)
	}
	var got AttributeList
	if err := p.Into(&got); err != nil {
		t.Fatal(err)
	}
	if kt, _ := got.Attributes.KeyType(); kt != p11.CKK_AES || got.Size != 9 || len(got.Attributes) != 1 {
		t.Errorf("read %+v", got)
	}
}

// TestHostile reads what no server says.
func TestHostile(t *testing.T) {
	nested := bytes.Repeat([]byte{0x30, 0x80}, 1<<16)
	for name, b := range map[string][]byte{
		"nothing": {}, "no sequence": {4, 0}, "a length without end": nested, "too long": {0x30, 0x84, 0xff, 0xff, 0xff, 0xff},
		"a long tag": {0x30, 2, 0x1f, 1}, "a number of nine bytes": {0x30, 11, 2, 9, 1, 1, 1, 1, 1, 1, 1, 1, 1},
	} {
		if _, err := ParseResponse(b); err == nil {
			t.Errorf("%s is taken for a response", name)
		}
		if _, err := ParseRequest(b); err == nil {
			t.Errorf("%s is taken for a request", name)
		}
		if _, err := ReadMessage(bytes.NewReader(b)); err == nil {
			t.Errorf("%s is taken for a message", name)
		}
	}
	if _, err := ParseHandle([]byte(strings.Repeat("\n", HandleSize))); err == nil {
		t.Error("a handle of line ends is read")
	}
}

func TestCheckAttributes(t *testing.T) {
	for _, c := range []struct {
		a    p11.Attribute
		want p11.RV
	}{
		{p11.Attribute{Type: p11.CKA_LABEL, Value: []byte("x")}, p11.CKR_OK},
		{p11.Attribute{Type: p11.CKA_VALUE_LEN, Value: p11.Ulong(uint64(32))}, p11.CKR_OK},
		{p11.Attribute{Type: p11.CKA_VALUE_LEN, Value: []byte{1}}, p11.CKR_ATTRIBUTE_VALUE_INVALID},
		{p11.Attribute{Type: p11.CKA_VALUE_LEN, Value: p11.Ulong(uint64(1 << 32))}, p11.CKR_ATTRIBUTE_VALUE_INVALID},
		{p11.Attribute{Type: 1 << 32, Value: nil}, p11.CKR_ATTRIBUTE_TYPE_INVALID},
	} {
		if err := CheckAttributes(p11.Attributes{c.a}); p11.RVOf(err) != c.want {
			t.Errorf("%#x: %v", uint64(c.a.Type), err)
		}
	}
}

// TestMessages writes each message of LDAP and reads it.
func TestMessages(t *testing.T) {
	message := func(op Op) func([]byte, error) []byte {
		return func(b []byte, err error) []byte {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			r := bytes.NewReader(b)
			m, err := ReadMessage(r)
			if err != nil || m.ID != 300 || m.Op != op || r.Len() > 0 {
				t.Fatalf("%x is read as %+v, %v", b, m, err)
			}
			if _, err := ReadMessage(r); !errors.Is(err, io.EOF) {
				t.Errorf("after it comes %v", err)
			}
			if _, err := ReadMessage(bytes.NewReader(b[:len(b)-1])); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("cut off it is %v", err)
			}
			return m.Body
		}
	}
	c, err := ParseBind(message(BindRequest)(Bind(300, "cn=x", []byte("pw"))))
	if err != nil || c.DN != "cn=x" || string(c.Password) != "pw" || c.External {
		t.Errorf("%+v, %v", c, err)
	}
	c, err = ParseBind(message(BindRequest)(BindExternal(300)))
	if err != nil || c.DN != "" || c.Password != nil || !c.External {
		t.Errorf("%+v, %v", c, err)
	}
	if body := message(UnbindRequest)(Unbind(300)); len(body) > 0 {
		t.Errorf("unbind has %x", body)
	}
	message(SearchRequest)(Search(300))
	ext, err := Extensions(message(SearchEntry)(PrintEntry(300, "1.2", RequestOID)))
	if err != nil || !reflect.DeepEqual(ext, []string{"1.2", RequestOID}) {
		t.Errorf("%v, %v", ext, err)
	}
	big := bytes.Repeat([]byte("x"), 70000)
	oid, value, err := ParseExtended(message(ExtendedRequest)(Extended(300, big)))
	if err != nil || oid != RequestOID || !bytes.Equal(value, big) {
		t.Errorf("%s, %d bytes, %v", oid, len(value), err)
	}
	r, err := ParseResult(message(ExtendedResponse)(PrintResult(300, ExtendedResponse, Success, "a\x1b\nb", big)))
	if err != nil || r.Code != Success || r.Text != "a  b" || !bytes.Equal(r.Value, big) {
		t.Errorf("%d %q %d bytes, %v", r.Code, r.Text, len(r.Value), err)
	}
	r, err = ParseResult(message(BindResponse)(PrintResult(300, BindResponse, InvalidCredentials, "", nil)))
	if err != nil || r.Code != InvalidCredentials || r.Value != nil {
		t.Errorf("%+v, %v", r, err)
	}
}

// FuzzRequest prints what can be read so that the same is read again.
func FuzzRequest(f *testing.F) {
	for _, x := range transcript(f) {
		f.Add(x.request)
		f.Add(bytes.Replace(x.request, []byte("OBJECT"), []byte("OBJ\u00e9C"), 1)) // six bytes that are five characters
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseRequest(b)
		if err != nil {
			return
		}
		again, err := r.Print()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := ParseRequest(again); err != nil || !reflect.DeepEqual(plain(got), plain(r)) {
			t.Errorf("%+v became %+v, %v", r, got, err)
		}
	})
}

// plain is a request in text that does not tell nothing from none.
func plain(r *Request) string { b, _ := r.Print(); return string(b) }

// FuzzResponse reads answers into all that they may be.
func FuzzResponse(f *testing.F) {
	var requests []*Request
	for _, x := range transcript(f) {
		r, err := ParseRequest(x.request)
		if err != nil {
			f.Fatal(err)
		}
		requests = append(requests, r)
		f.Add(x.response)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParseResponse(b)
		if err != nil {
			return
		}
		for _, r := range requests {
			d := answerTo(r)
			if d == nil || p.Into(d) != nil {
				continue
			}
			again, err := PrintResponse(p.Return, p.Reason, p.Handle, d.service(), d)
			if err != nil {
				t.Fatal(err)
			}
			q, err := ParseResponse(again)
			if err != nil || q.Into(answerTo(r)) != nil {
				t.Errorf("%x became %x, %v", b, again, err)
			}
		}
	})
}

// FuzzMessage reads messages of LDAP, and all that may be in them.
func FuzzMessage(f *testing.F) {
	for _, make := range []func() ([]byte, error){
		func() ([]byte, error) { return Bind(1, "cn=x", []byte("pw")) },
		func() ([]byte, error) { return BindExternal(1) },
		func() ([]byte, error) { return Unbind(1) },
		func() ([]byte, error) { return Search(1) },
		func() ([]byte, error) { return PrintEntry(1, RequestOID) },
		func() ([]byte, error) { return Extended(1, []byte("x")) },
		func() ([]byte, error) { return PrintResult(1, ExtendedResponse, 0, "x", []byte("x")) },
	} {
		b, err := make()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(_ *testing.T, b []byte) {
		m, err := ReadMessage(bytes.NewReader(b))
		if err != nil {
			return
		}
		_, _ = ParseBind(m.Body)
		_, _, _ = ParseExtended(m.Body)
		_, _ = ParseResult(m.Body)
		_, _ = Extensions(m.Body)
	})
}
