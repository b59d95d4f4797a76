package wire_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"p11fs/mountd/rpc/wire"
	"p11fs/mountd/rpc/wire/wiretest"
	"p11fs/p11"
)

// vector is one captured call of the stock programs.
type vector struct {
	Name        string
	Protocol    wire.Protocol
	Call        string
	CallID      wire.Call `json:"call_id"`
	RequestHex  string    `json:"request_hex"`
	ResponseHex string    `json:"response_hex"`
	Imitate     any       `json:"do_not_imitate_response"`
}

func vectors(t testing.TB) []vector {
	t.Helper()
	b, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Vectors []vector }
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Vectors) < 70 {
		t.Fatalf("only %d vectors", len(file.Vectors))
	}
	return file.Vectors
}

func frame(t testing.TB, text string) (code uint32, body []byte) {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(bytes.NewReader(b))
	code, body, err = wire.ReadFrame(r, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.ReadByte(); err != io.EOF {
		t.Fatal("a frame has more bytes than it says")
	}
	return code, body
}

// copyValues reads the values that signature names and writes them again.
func copyValues(r *wire.Reader, w *wiretest.Writer, p wire.Protocol, signature string, last p11.MechanismType) {
	for signature != "" && r.Err() == nil {
		n := 1
		if strings.ContainsRune("af", rune(signature[0])) {
			n = 2
		}
		one := signature[:n]
		signature = signature[n:]
		switch one {
		case "y":
			w.Byte(r.Byte())
		case "u":
			w.Ulong(r.Ulong())
		case "v":
			w.Version(wiretest.Version(r))
		case "s", "z":
			text := r.Text()
			w.Space(text, len(text))
		case "ay":
			w.Array(r.Array())
		case "au":
			list, absent, count := wiretest.Ulongs(r)
			if absent {
				w.Count(int(count))
			} else {
				wire.Ulongs(w.Writer, list)
			}
		case "fy", "fu":
			w.Room(r.Room())
		case "aA":
			w.Attributes(r.Attributes())
		case "fA":
			w.Wanted(r.Wanted())
		case "M":
			after := -1
			if signature == "u" || signature == "" {
				after = 8 * len(signature)
			}
			w.Mechanism(r.Mechanism(after))
		case "P":
			if p.TakesParam(last) {
				w.Byte(r.Byte())
			}
		default:
			panic("value " + one)
		}
	}
}

func TestVectors(t *testing.T) {
	for _, v := range vectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			sig, ok := wire.Signatures(v.CallID)
			if !ok || sig.Name != v.Call {
				t.Fatalf("call %d is %q here, %q there", v.CallID, sig.Name, v.Call)
			}
			check := func(text, signature string, reply bool) {
				t.Helper()
				code, body := frame(t, text)
				r := wire.NewReader(body, v.Protocol)
				call, got := r.Header()
				if reply && call == uint32(wire.CallError) {
					signature = "u"
				} else if call != uint32(v.CallID) {
					t.Fatalf("call %d, want %d", call, v.CallID)
				}
				if got != signature {
					t.Fatalf("signature %q, want %q", got, signature)
				}
				options := ""
				if !reply {
					options = "client"
				}
				b, start := wire.AppendFrame(nil, code, options)
				w := wiretest.NewWriter(b, v.Protocol)
				w.Header(call, signature)
				copyValues(r, w, v.Protocol, signature, p11.CKM_ECDH1_DERIVE)
				if err := r.End(); err != nil {
					t.Fatal(err)
				}
				if err := wire.EndFrame(w.B, start); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(text, hex.EncodeToString(w.B)); diff != "" {
					t.Errorf("written again it differs (-want +got):\n%s", diff)
				}
			}
			check(v.RequestHex, sig.Request, false)
			if v.Imitate == nil {
				check(v.ResponseHex, sig.Response, true)
			}
		})
	}
}

func TestVectorsCutShort(t *testing.T) {
	for _, v := range vectors(t) {
		sig, _ := wire.Signatures(v.CallID)
		if strings.Contains(sig.Request, "M") || strings.Contains(sig.Request, "fA") || sig.Request == "" {
			continue // where a mechanism or a list of wanted attributes ends is known from what follows
		}
		_, body := frame(t, v.RequestHex)
		for n := range len(body) {
			r := wire.NewReader(body[:n], v.Protocol)
			r.Header()
			copyValues(r, wiretest.NewWriter(nil, v.Protocol), v.Protocol, sig.Request, 0)
			if r.End() == nil && n < len(body) {
				t.Errorf("%s: %d of %d bytes were taken for the whole", v.Name, n, len(body))
			}
		}
	}
}

func TestAnswer(t *testing.T) {
	for offered, want := range map[wire.Protocol]byte{0: 0, 1: 1, 2: 2, 3: 2, 255: 2, wire.Own: 0xC5} {
		if got := offered.Answer(); got != want {
			t.Errorf("offered %d: answer %d, want %d", offered, got, want)
		}
	}
}

// counting counts reads.
type counting struct {
	r     io.Reader
	reads int
}

func (c *counting) Read(b []byte) (int, error) {
	c.reads++
	return c.r.Read(b)
}

func TestReadFrameLimits(t *testing.T) {
	header := func(options, body uint32) []byte {
		b := binary.BigEndian.AppendUint32(nil, 7)
		b = binary.BigEndian.AppendUint32(b, options)
		return binary.BigEndian.AppendUint32(b, body)
	}
	t.Run("drained", func(t *testing.T) {
		in := append(header(wire.MaxOptions+1, 3), make([]byte, wire.MaxOptions+4)...)
		in = append(in, append(header(0, 1), 'x')...)
		r := bufio.NewReader(bytes.NewReader(in))
		if code, _, err := wire.ReadFrame(r, nil, nil); code != 7 || !errors.Is(err, wire.ErrTooLong) {
			t.Errorf("code %d, %v; want 7 and ErrTooLong", code, err)
		}
		if _, body, err := wire.ReadFrame(r, nil, nil); err != nil || string(body) != "x" {
			t.Errorf("the next frame: %q, %v", body, err)
		}
	})
	t.Run("drained in long reads", func(t *testing.T) {
		const n = 20*wire.LongRead + 5
		from := &counting{r: bytes.NewReader(append(header(wire.MaxOptions+1, n), make([]byte, wire.MaxOptions+1+n)...))}
		if _, _, err := wire.ReadFrame(bufio.NewReader(from), nil, &wire.Memory{Allow: func(int) bool { return false }}); !errors.Is(err, wire.ErrTooLong) {
			t.Error(err)
		}
		if from.reads > n/wire.LongRead+3 {
			t.Errorf("%d reads", from.reads)
		}
	})
	t.Run("announced only", func(t *testing.T) {
		n := testing.AllocsPerRun(100, func() {
			_, _, err := wire.ReadFrame(bufio.NewReaderSize(bytes.NewReader(header(0, wire.MaxBody)), 16), nil, nil)
			if !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("error %v", err)
			}
		})
		if n > 10 {
			t.Errorf("%v allocations for a header alone", n)
		}
	})
	t.Run("long", func(t *testing.T) {
		left := 0
		m := &wire.Memory{Parts: new(wire.Parts), Allow: func(n int) bool { left -= n; return left >= 0 }}
		const part = 256 << 10
		for _, n := range []int{part, 2*part - 1, 2 * part, 2*part + 1, 3 * part, 4*part + 7, 9*part - 1} {
			in := make([]byte, n)
			for i := range in {
				in[i] = byte(i>>8 ^ i)
			}
			frame := append(header(0, uint32(n)), in...)
			frame = append(append(frame, header(0, 1)...), 'x')
			for _, missing := range []int{0, 1} {
				left = n - missing
				r := bufio.NewReader(bytes.NewReader(frame))
				_, body, err := wire.ReadFrame(r, nil, m)
				if missing == 0 && (err != nil || !bytes.Equal(body, in) || left != 0) {
					t.Errorf("%d bytes: %v, and %d were not taken", n, err, left)
				}
				if missing == 1 && !errors.Is(err, wire.ErrNotAllowed) {
					t.Errorf("%d bytes, one of them not allowed: %v", n, err)
				}
				left = 1
				if _, body, err = wire.ReadFrame(r, nil, m); err != nil || string(body) != "x" {
					t.Errorf("the frame after %d bytes: %q, %v", n, body, err)
				}
			}
		}
	})
	t.Run("half", func(t *testing.T) {
		m := &wire.Memory{Parts: new(wire.Parts), Allow: func(int) bool { return true }}
		in := append(header(0, wire.MaxBody), make([]byte, wire.MaxBody/8)...)
		best := uint64(math.MaxUint64)
		for range 10 { // the collector takes parts away
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			if _, _, err := wire.ReadFrame(bufio.NewReader(bytes.NewReader(in)), nil, m); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Error(err)
			}
			runtime.ReadMemStats(&after)
			best = min(best, after.TotalAlloc-before.TotalAlloc)
		}
		if best > wire.MaxBody/16 {
			t.Errorf("%d bytes are made each time for %d that are sent", best, len(in))
		}
	})
	t.Run("cut", func(t *testing.T) {
		whole := append(header(2, 2), "abcd"...)
		for n := range whole {
			_, _, err := wire.ReadFrame(bufio.NewReader(bytes.NewReader(whole[:n])), nil, nil)
			want := io.ErrUnexpectedEOF
			if n == 0 {
				want = io.EOF
			}
			if !errors.Is(err, want) {
				t.Errorf("%d bytes: %v, want %v", n, err, want)
			}
		}
	})
}

func TestNesting(t *testing.T) {
	deep := func(levels int) []byte {
		w := wiretest.NewWriter(nil, wire.V2)
		a := wire.Attribute{Type: p11.CKA_WRAP_TEMPLATE, Valid: true}
		for range levels {
			a = wire.Attribute{Type: p11.CKA_WRAP_TEMPLATE, Valid: true, Length: 24, Nested: []wire.Attribute{a}}
		}
		w.Attributes([]wire.Attribute{a})
		return w.B
	}
	if r := wire.NewReader(deep(7), wire.V2); r.Attributes() == nil || r.End() != nil {
		t.Errorf("7 levels: %v", r.Err())
	}
	if r := wire.NewReader(deep(9), wire.V2); r.Attributes() != nil || r.End() == nil {
		t.Error("9 levels were read")
	}
}

// TestBounds: what a message makes a reader hold is bounded, whatever it announces.
func TestBounds(t *testing.T) {
	value := func(typ p11.AttributeType, n int) wire.Attribute {
		return wire.Attribute{Type: typ, Valid: true, Length: uint32(n), Value: make([]byte, n)}
	}
	nested := func(list ...wire.Attribute) wire.Attribute {
		return wire.Attribute{Type: p11.CKA_WRAP_TEMPLATE, Valid: true, Nested: list}
	}
	some := func(n int) (list []wire.Attribute) {
		for range n {
			list = append(list, value(p11.CKA_LABEL, 1))
		}
		return list
	}
	tests := []struct {
		name string
		list []wire.Attribute
		rv   p11.RV
	}{
		{"many", some(p11.MaxAttributes), p11.CKR_OK},
		{"too many", some(p11.MaxAttributes + 1), p11.CKR_TEMPLATE_INCONSISTENT},
		{"too many in two templates", []wire.Attribute{nested(some(300)...), nested(some(300)...)}, p11.CKR_TEMPLATE_INCONSISTENT},
		{"long", []wire.Attribute{value(p11.CKA_VALUE, p11.MaxTemplateBytes)}, p11.CKR_OK},
		{"too long", []wire.Attribute{value(p11.CKA_VALUE, p11.MaxTemplateBytes), value(p11.CKA_LABEL, 1)}, p11.CKR_TEMPLATE_INCONSISTENT},
		{"too long with its copies", []wire.Attribute{nested(value(p11.CKA_VALUE, p11.MaxTemplateBytes/2+1))}, p11.CKR_TEMPLATE_INCONSISTENT},
		{"mechanisms", []wire.Attribute{value(p11.CKA_ALLOWED_MECHANISMS, p11.MaxTemplateBytes+8)}, p11.CKR_TEMPLATE_INCONSISTENT},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := wiretest.NewWriter(nil, wire.V2)
			w.Attributes(tt.list)
			r := wire.NewReader(w.B, wire.V2)
			if r.Attributes(); p11.RVOf(r.End()) != tt.rv {
				t.Errorf("%v, want %v", r.Err(), tt.rv)
			}
		})
	}
	t.Run("wanted", func(t *testing.T) {
		for _, p := range []wire.Protocol{wire.V0, wire.V2} {
			b := binary.BigEndian.AppendUint32(nil, p11.MaxAttributes+1)
			r := wire.NewReader(append(b, make([]byte, 8*(p11.MaxAttributes+1))...), p)
			if r.Wanted(); p11.RVOf(r.Err()) != p11.CKR_TEMPLATE_INCONSISTENT {
				t.Errorf("protocol %d: %v", p, r.Err())
			}
		}
	})
}

func TestTemplate(t *testing.T) {
	label := func(s string) wire.Attribute {
		return wire.Attribute{Type: p11.CKA_LABEL, Valid: true, Length: uint32(len(s)), Value: []byte(s)}
	}
	tests := []struct {
		name string
		in   []wire.Attribute
		rv   p11.RV
	}{
		{"twice the same", []wire.Attribute{label("a"), label("a")}, p11.CKR_OK},
		{"twice", []wire.Attribute{label("a"), label("b")}, p11.CKR_TEMPLATE_INCONSISTENT},
		{"no value", []wire.Attribute{{Type: p11.CKA_LABEL}}, p11.CKR_ATTRIBUTE_VALUE_INVALID},
		{"length without pointer", []wire.Attribute{{Type: p11.CKA_ID, Valid: true, Null: true, Length: 3}}, p11.CKR_ATTRIBUTE_VALUE_INVALID},
		{"empty without pointer", []wire.Attribute{{Type: p11.CKA_ID, Valid: true, Null: true}}, p11.CKR_OK},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := wire.Template(tt.in); p11.RVOf(err) != tt.rv {
				t.Errorf("%v, want %v", err, tt.rv)
			}
		})
	}
}

func TestOwnMechanisms(t *testing.T) {
	tests := []wire.Mechanism{
		{Null: true},
		{Mechanism: p11.Mechanism{Type: p11.CKM_ECDSA}},
		{Mechanism: p11.Mechanism{Type: p11.CKM_AES_CBC, Param: p11.IV(make([]byte, 16))}},
		{Mechanism: p11.Mechanism{Type: p11.CKM_AES_GCM, Param: &p11.GCMParams{IV: make([]byte, 12), AAD: []byte("a"), TagBits: 128}}},
		{Mechanism: p11.Mechanism{Type: p11.CKM_AES_CTR, Param: &p11.CTRParams{CounterBits: 64}}},
		{Mechanism: p11.Mechanism{Type: p11.CKM_RSA_PKCS_PSS, Param: &p11.PSSParams{Hash: p11.CKM_SHA256, MGF: 2, SaltLen: 32}}},
		{Mechanism: p11.Mechanism{Type: p11.CKM_RSA_PKCS_OAEP, Param: &p11.OAEPParams{Hash: p11.CKM_SHA_1, MGF: 1}}},
		{Mechanism: p11.Mechanism{Type: p11.CKM_SHA256_HMAC_GENERAL, Param: p11.MACLength(8)}},
		{Mechanism: p11.Mechanism{Type: p11.CKM_RSA_AES_KEY_WRAP, Param: &p11.RSAAESKeyWrapParams{AESKeyBits: 256, OAEP: &p11.OAEPParams{Hash: p11.CKM_SHA_1, MGF: 1}}}},
		{Mechanism: p11.Mechanism{Type: p11.CKM_ECDH1_COFACTOR_DERIVE, Param: &p11.ECDH1Params{KDF: 1, PublicData: []byte{4}}}},
		{Mechanism: p11.Mechanism{Type: 0x8fffffff, Param: p11.RawParam("raw")}},
	}
	for _, m := range tests {
		t.Run(fmt.Sprint(m.Type), func(t *testing.T) {
			w := wiretest.NewWriter(nil, wire.Own)
			w.Mechanism(m)
			r := wire.NewReader(w.B, wire.Own)
			got := r.Mechanism(-1)
			if err := r.End(); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(m, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	// pkcs11js leaves it as malloc gave it.
	t.Run("bits of the IV unset", func(t *testing.T) {
		w := wiretest.NewWriter(nil, wire.Own)
		w.Room(wire.Room(p11.CKM_AES_GCM)) // a u32
		w.Byte(1)
		w.Byte(p11.ParamGCM.Layout())
		w.Bytes(make([]byte, 12))
		w.Ulong(0xdeadbeef)
		w.Bytes([]byte{})
		w.Ulong(128)
		r := wire.NewReader(w.B, wire.Own)
		got := r.Mechanism(-1)
		if err := r.End(); err != nil {
			t.Fatal(err)
		}
		if p, ok := got.Param.(*p11.GCMParams); !ok || len(p.IV) != 12 || p.TagBits != 128 {
			t.Errorf("%#v", got.Param)
		}
	})
	t.Run("wrong layout", func(t *testing.T) {
		w := wiretest.NewWriter(nil, wire.Own)
		w.Room(wire.Room(p11.CKM_AES_GCM)) // a u32
		w.Byte(1)
		w.Byte(p11.ParamPSS.Layout())
		r := wire.NewReader(w.B, wire.Own)
		r.Mechanism(-1)
		if rv := p11.RVOf(r.Err()); rv != p11.CKR_MECHANISM_PARAM_INVALID {
			t.Errorf("%v", rv)
		}
	})
}

// Every parameter that is declared comes back as it was sent.
func TestSampleParams(t *testing.T) {
	layouts := map[uint8]bool{}
	for _, typ := range p11.AllMechanismTypes() {
		m := wire.Mechanism{Mechanism: p11.Mechanism{Type: typ, Param: p11.SampleParam(typ)}}
		w := wiretest.NewWriter(nil, wire.Own)
		w.Mechanism(m)
		r := wire.NewReader(w.B, wire.Own)
		got := r.Mechanism(-1)
		if err := r.End(); err != nil {
			t.Errorf("%v: %v", typ, err)
		}
		if diff := cmp.Diff(m, got); diff != "" {
			t.Errorf("%v (-want +got):\n%s", typ, diff)
		}
		if f, _ := p11.MechanismFacts(typ); m.Param != nil {
			layouts[f.Param.Layout()] = true
		}
	}
	if len(layouts) < 10 {
		t.Errorf("parameters of the layouts %v only", layouts)
	}
}

func TestParamUpdate(t *testing.T) {
	ecdh := p11.Mechanism{Type: p11.CKM_ECDH1_DERIVE, Param: &p11.ECDH1Params{KDF: 1}}
	tests := []struct {
		protocol  wire.Protocol
		mechanism p11.Mechanism
		want      string
	}{
		{wire.V2, ecdh, "\x01"},
		{wire.V2, p11.Mechanism{Type: p11.CKM_ECDH1_DERIVE}, "\x00"},
		{wire.V2, p11.Mechanism{Type: p11.CKM_SHA256}, ""},
		{wire.Own, ecdh, "\x00"},
	}
	for _, tt := range tests {
		w := wiretest.NewWriter(nil, tt.protocol)
		w.ParamUpdate(tt.mechanism)
		if string(w.B) != tt.want {
			t.Errorf("protocol %d, %v: %x, want %x", tt.protocol, tt.mechanism.Type, w.B, tt.want)
		}
	}
}

func FuzzRequest(f *testing.F) {
	for _, v := range vectors(f) {
		_, body := frame(f, v.RequestHex)
		f.Add(uint8(v.Protocol), body)
	}
	f.Add(uint8(wire.Own), []byte{0, 0, 1, 0, 0, 0, 0, 7, 'u', 'M', 'u', 'a', 'y', 'f', 'y'})
	f.Fuzz(func(t *testing.T, offered uint8, body []byte) {
		p := wire.Protocol(offered)
		r := wire.NewReader(body, p)
		call, _ := r.Header()
		sig, ok := wire.Signatures(wire.Call(call))
		if !ok {
			return
		}
		w := wiretest.NewWriter(nil, p)
		copyValues(r, w, p, sig.Request, 0)
		if r.End() != nil {
			return
		}
		// What was read prints, and what is printed reads and prints the same.
		again := wiretest.NewWriter(nil, p)
		r = wire.NewReader(w.B, p)
		copyValues(r, again, p, sig.Request, 0)
		if err := r.End(); err != nil {
			t.Fatalf("what was written does not read: %v", err)
		}
		if !bytes.Equal(w.B, again.B) {
			t.Fatalf("written twice it differs:\n%x\n%x", w.B, again.B)
		}
	})
}
