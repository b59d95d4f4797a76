package swtok

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/tink-crypto/tink-go/v2/streamingaead/subtle"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/tokentest"
)

func streamMechanism() p11.Mechanism { return p11.Mechanism{Type: p11.CKM_P11FS_STREAM} }

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

// through runs data through an operation in parts of n bytes, and returns what it gave
// also where it failed.
func through(t *testing.T, c *Crypto, use p11.Flags, key *tokens.Object, data []byte, n int) ([]byte, error) {
	t.Helper()
	op, err := c.Begin(t.Context(), use, streamMechanism(), key)
	if err != nil {
		return nil, err
	}
	defer op.Close()
	var out []byte
	for len(data) > 0 {
		part := data[:min(n, len(data))]
		data = data[len(part):]
		size := op.(tokens.Sizer).UpdateSize(len(part))
		x, err := op.Update(t.Context(), part)
		if err != nil {
			return out, err
		}
		if len(x) != size {
			return out, fmt.Errorf("%d bytes, announced as %d", len(x), size)
		}
		out = append(out, x...)
	}
	rest, err := op.Final(t.Context(), nil)
	return append(out, rest...), err
}

// What the stream encrypts Tink's library decrypts, and the other way about.
func TestStreamIsTinks(t *testing.T) {
	eachProvider(t, func(t *testing.T, c *Crypto) {
		sizes := []int{32, 16}
		if testing.Short() {
			sizes = sizes[:1]
		}
		for _, size := range sizes {
			value := randomBytes(size)
			key := tokentest.Secret(t, p11.CKK_AES, bytes.Clone(value))
			tink, err := subtle.NewAESGCMHKDF(value, "SHA256", size, streamSegment, 0)
			if err != nil {
				t.Fatal(err)
			}
			const next = streamSegment - streamTag
			first := next - (1 + size + streamPrefix)
			for _, n := range []int{0, 1, first - 1, first, first + 1, first + next, first + next + 1, 3*next + 7} {
				plain := randomBytes(n)
				for _, cut := range []int{64 << 10, 1<<20 + 1, max(n, 1)} {
					t.Run(fmt.Sprintf("key of %d/%d in parts of %d", size, n, cut), func(t *testing.T) { bothWays(t, c, key, tink, plain, cut) })
				}
			}
		}
	})
}

func bothWays(t *testing.T, c *Crypto, key *tokens.Object, tink *subtle.AESGCMHKDF, plain []byte, cut int) {
	ct, err := through(t, c, p11.CKF_ENCRYPT, key, plain, cut)
	if err != nil {
		t.Fatal(err)
	}
	r, err := tink.NewDecryptingReader(bytes.NewReader(ct), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, plain) {
		t.Errorf("Tink reads %d bytes, %v", len(got), err)
	}
	var theirs bytes.Buffer
	w, err := tink.NewEncryptingWriter(&theirs, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Write(plain)
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	for who, ct := range map[string][]byte{"ours": ct, "Tink's": theirs.Bytes()} {
		if got, err := through(t, c, p11.CKF_DECRYPT, key, ct, cut); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%s gives %d bytes, %v", who, len(got), err)
		}
	}
}

// A stream that was changed, cut, prolonged or encrypted by another key is refused
// where that shows, and gives nothing of what is not authentic.
func TestStreamDamage(t *testing.T) {
	c := NewCrypto(GoProvider(), nil)
	key := tokentest.Secret(t, p11.CKK_AES, randomBytes(32))
	plain := randomBytes(3 << 20)
	ct, err := through(t, c, p11.CKF_ENCRYPT, key, plain, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	other, err := through(t, c, p11.CKF_ENCRYPT, key, plain, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	const first, next = streamSegment - streamTag - 40, streamSegment - streamTag
	flipped := func(at int) []byte {
		b := bytes.Clone(ct)
		b[at] ^= 1
		return b
	}
	join := func(list ...[]byte) []byte { return bytes.Join(list, nil) }
	segment := func(n int) []byte { return ct[n<<20 : (n+1)<<20] }
	another := tokentest.Secret(t, p11.CKK_AES, randomBytes(32))
	for _, tt := range []struct {
		name string
		key  *tokens.Object
		data []byte
		want int // bytes of plaintext
		says string
	}{
		{"nothing", key, nil, 0, "cut off"},
		{"no stream", key, []byte("Salted__12345678"), 0, "not encrypted as a stream"},
		{"half a header", key, ct[:20], 0, "cut off"},
		{"a header", key, ct[:40], 0, "cut off"},
		{"cut in the first segment", key, ct[:1000], 0, "cut off"},
		{"cut behind the first segment", key, ct[:1<<20], 0, "cut off, behind segment 0"},
		{"cut in the second segment", key, ct[:1<<20+5], first, "cut off, within segment 1"},
		{"cut behind the second segment", key, ct[:2<<20], first, "cut off, behind segment 1"},
		{"cut by a byte", key, ct[:len(ct)-1], first + 2*next, "cut off"},
		{"a byte more", key, join(ct, []byte{0}), first + 2*next, "damaged"},
		{"more behind a full end", key, nil, 0, ""}, // below
		{"two streams", key, join(ct, other), first + 2*next, "damaged"},
		{"another length of header", key, flipped(0), 0, "not encrypted as a stream"},
		{"another salt", key, flipped(1), 0, "another key"},
		{"another prefix", key, flipped(35), 0, "another key"},
		{"another byte in the first segment", key, flipped(100), 0, "another key"},
		{"another byte in the second segment", key, flipped(1<<20 + 100), first, "segment 1 is damaged"},
		{"two segments change places", key, join(segment(0), segment(2), segment(1), ct[3<<20:]), first, "segment 1 is damaged"},
		{"a segment is missing", key, join(segment(0), ct[2<<20:]), first, "segment 1 is damaged"},
		{"a segment of another stream", key, join(segment(0), other[1<<20:]), first, "segment 1 is damaged"},
		{"another key", another, ct, 0, "another key"},
		{"a shorter key", tokentest.Secret(t, p11.CKK_AES, randomBytes(16)), ct, 0, "key of 16 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.says == "" {
				full, err := through(t, c, p11.CKF_ENCRYPT, key, plain[:first], 1<<20)
				if err != nil || len(full) != streamSegment {
					t.Fatalf("%d bytes, %v", len(full), err)
				}
				tt.data, tt.says = join(full, other), "more data behind the end of the stream, which is segment 0"
			}
			for _, n := range []int{100 << 10, len(tt.data) + 1} {
				got, err := through(t, c, p11.CKF_DECRYPT, tt.key, tt.data, n)
				if !errors.Is(err, p11.CKR_ENCRYPTED_DATA_INVALID) || !strings.Contains(err.Error(), tt.says) {
					t.Errorf("in parts of %d: %v", n, err)
				}
				if n == 100<<10 && len(got) != tt.want || !bytes.HasPrefix(plain, got) {
					t.Errorf("in parts of %d: %d bytes of plaintext, want %d", n, len(got), tt.want)
				}
			}
		})
	}
	for _, use := range []p11.Flags{p11.CKF_ENCRYPT, p11.CKF_DECRYPT} {
		if _, err := c.Begin(t.Context(), use, streamMechanism(), tokentest.Secret(t, p11.CKK_AES, randomBytes(24))); !errors.Is(err, p11.CKR_KEY_SIZE_RANGE) {
			t.Errorf("a key of 24 bytes: %v", err)
		}
	}
}

// The result of a stream may be asked for after each part, and is that of the data so far.
func TestStreamResult(t *testing.T) {
	c := NewCrypto(GoProvider(), nil)
	key := tokentest.Secret(t, p11.CKK_AES, randomBytes(32))
	plain := randomBytes(2<<20 + 100)
	op, err := c.Begin(t.Context(), p11.CKF_ENCRYPT, streamMechanism(), key)
	if err != nil {
		t.Fatal(err)
	}
	defer op.Close()
	var out []byte
	for n := 0; n < len(plain); {
		part := plain[n:min(n+300<<10, len(plain))]
		n += len(part)
		x, err := op.Update(t.Context(), part)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, x...)
		for range 2 {
			rest, err := op.(tokens.Resumer).Result(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			got, err := through(t, c, p11.CKF_DECRYPT, key, bytes.Join([][]byte{out, rest}, nil), 1<<20)
			if err != nil || !bytes.Equal(got, plain[:n]) {
				t.Fatalf("after %d bytes: %d bytes, %v", n, len(got), err)
			}
		}
	}
}

// What can be encrypted can be decrypted: where a mechanism holds all of its input, that
// is refused behind the same length on both ways.
func TestCiphersUndo(t *testing.T) {
	if testing.Short() {
		t.Skip("encrypts 64 MiB by each")
	}
	c := NewCrypto(LoadProvider(slog.New(slog.DiscardHandler)), nil)
	var held []p11.MechanismType
	for _, info := range c.Mechanisms() {
		switch facts, _ := p11.MechanismFacts(info.Type); {
		case info.Flags&p11.CKF_ENCRYPT == 0 || info.Flags&p11.CKF_DECRYPT == 0 || facts.KeyTypes[0] == p11.CKK_RSA:
		case info.Type == p11.CKM_AES_KEY_WRAP, info.Type == p11.CKM_AES_KEY_WRAP_PAD, info.Type == p11.CKM_AES_KEY_WRAP_PKCS7:
			// As CKM_AES_KEY_WRAP_KWP, each for some seconds.
		default:
			m := p11.Mechanism{Type: info.Type, Param: p11.SampleParam(info.Type)}
			size := uint64(32)
			if lengths := p11.KeyLengths(facts.KeyTypes[0]); len(lengths) > 0 {
				size = lengths[0]
			}
			key := tokentest.Secret(t, facts.KeyTypes[0], randomBytes(int(size)))
			if info.Type == p11.CKM_P11FS_STREAM || gives(t, c, p11.CKF_ENCRYPT, m, key) && gives(t, c, p11.CKF_DECRYPT, m, key) {
				continue
			}
			held = append(held, info.Type)
			t.Run(info.Type.Short(), func(t *testing.T) { undone(t, c, m, key) })
		}
	}
	for _, want := range []p11.MechanismType{p11.CKM_AES_GCM, p11.CKM_AES_KEY_WRAP_KWP} {
		if !slices.Contains(held, want) {
			t.Errorf("held are %v", held)
		}
	}
}

// gives reports whether there is output before the end.
func gives(t *testing.T, c *Crypto, use p11.Flags, m p11.Mechanism, key *tokens.Object) bool {
	op, err := c.Begin(t.Context(), use, m, key)
	if err != nil {
		t.Fatalf("%s: %v", m.Type, err)
	}
	defer op.Close()
	out, err := op.Update(t.Context(), make([]byte, 1<<16))
	return err == nil && len(out) > 0
}

// undone encrypts the longest message that there may be.
func undone(t *testing.T, c *Crypto, m p11.Mechanism, key *tokens.Object) {
	run := func(use p11.Flags, data []byte) ([]byte, error) {
		op, err := c.Begin(t.Context(), use, m, key)
		if err != nil {
			t.Fatal(err)
		}
		defer op.Close()
		var out []byte
		for part := range slices.Chunk(data, 1<<20) {
			x, err := op.Update(t.Context(), part)
			if err != nil {
				return nil, err
			}
			out = append(out, x...)
		}
		rest, err := op.Final(t.Context(), nil)
		return append(out, rest...), err
	}
	plain := make([]byte, maxHeld+16)
	refused := 0
	for _, n := range []int{maxHeld + 16, maxHeld, maxHeld - 16, maxHeld - 32, 16<<20 + 16, 16 << 20, 16<<20 - 16} {
		ct, err := run(p11.CKF_ENCRYPT, plain[:n])
		if err == nil {
			if got, err := run(p11.CKF_DECRYPT, ct); err != nil || !bytes.Equal(got, plain[:n]) {
				t.Errorf("%d bytes decrypt to %d, %v", n, len(got), err)
			}
			break
		}
		refused++
		if !errors.Is(err, p11.CKR_DATA_LEN_RANGE) || m.Type == p11.CKM_AES_GCM && !strings.Contains(p11.AdviceOf(err), "encrypt:stream") {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	if refused == 0 || refused == 7 {
		t.Errorf("%d of the lengths are refused", refused)
	}
}
