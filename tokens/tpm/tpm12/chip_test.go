package tpm12

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"p11fs/p11"
)

// A software is a TPM in software, in a process of its own, with the state in which stock's
// token left it.
type software struct{ conn net.Conn }

func (s software) Send(_ context.Context, command []byte) ([]byte, error) {
	if _, err := s.conn.Write(command); err != nil {
		return nil, err
	}
	head := make([]byte, headerSize)
	if _, err := io.ReadFull(s.conn, head); err != nil {
		return nil, err
	}
	rest := make([]byte, binary.BigEndian.Uint32(head[2:])-headerSize)
	_, err := io.ReadFull(s.conn, rest)
	return append(head, rest...), err
}

func startTPM(t *testing.T, g golden) Chip {
	t.Helper()
	program, err := exec.LookPath("swtpm")
	if err != nil {
		t.Skip("needs swtpm")
	}
	dir, err := os.MkdirTemp("", "tpm12")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.WriteFile(filepath.Join(dir, "tpm-00.permall"), g.files["swtpm-state/tpm-00.permall"], 0o600); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "socket")
	var said bytes.Buffer
	cmd := exec.Command(program, "socket", "--tpmstate", "dir="+dir, "--server", "type=unixio,path="+socket, "--flags", "not-need-init,startup-clear")
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			t.Cleanup(func() { _ = conn.Close() })
			return Chip{software{conn}}
		}
		if time.Now().After(end) {
			t.Fatalf("%v\n%s", err, said.String())
		}
	}
}

// load loads a key for the test.
func load(t *testing.T, c Chip, parent Handle, a *Auth, k Key) Handle {
	t.Helper()
	h, err := c.Load(t.Context(), parent, a, k)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Flush(context.Background(), h); err != nil {
			t.Error(err)
		}
	})
	return h
}

// TestChip works with stock's store and its TPM: what stock signed is signed the same.
func TestChip(t *testing.T) {
	g := readGolden(t)
	c := startTPM(t, g)
	ctx := t.Context()
	srk, user := Auth{}, PINAuth(pin(t, g.UserPIN))
	before, err := c.Slots(ctx)
	if err != nil || before < 5 {
		t.Fatalf("%d slots, %v", before, err)
	}
	if !t.Run("keys", func(t *testing.T) {
		private, public := load(t, c, SRK, &srk, g.blob(t, "50000000")), load(t, c, SRK, &srk, g.blob(t, "10000000"))
		leaf := load(t, c, private, nil, g.blob(t, "70000000"))
		info := sha1Info("hello")
		for name, k := range map[string]struct {
			object string
			parent Handle
		}{"gen-priv": {"90000000", private}, "gen-pub": {"B0000000", private}, "ext-priv": {"C0000000", private}, "gen-nologin": {"K0000000", public}} {
			var a *Auth
			if bound, ok := g.objects[k.object].Get(p11.CKA_ENC_AUTHDATA); ok && len(bound) > 0 {
				usage, err := c.UnBind(ctx, leaf, &user, bound)
				if err != nil || len(usage) != sha1.Size {
					t.Fatalf("%s: its secret: %v", name, err)
				}
				a = (*Auth)(usage)
			}
			sig, err := c.Sign(ctx, load(t, c, k.parent, nil, g.blob(t, k.object)), a, info)
			if err != nil || hex.EncodeToString(sig) != g.Signatures[name] {
				t.Errorf("%s signs %x, %v", name, sig, err)
			}
		}
		if _, err := c.Load(ctx, public, nil, g.blob(t, "90000000")); !errors.Is(err, CodeDecrypt) {
			t.Errorf("under the other root: %v", err)
		}
		mk := g.files["tpm/root/"+MasterKeyFile]
		if got, err := c.UnBind(ctx, leaf, &user, mk); err != nil || hex.EncodeToString(got) != g.MasterKey {
			t.Errorf("%s: %v", MasterKeyFile, err)
		}
		wrong := PINAuth(pin(t, "00000000"))
		if _, err := c.UnBind(ctx, leaf, &wrong, mk); !errors.Is(err, CodeAuth) {
			t.Errorf("a wrong PIN: %v", err)
		}

		// Another PIN.
		now := PINAuth(pin(t, "24682468"))
		changed, err := c.ChangeAuth(ctx, private, Auth{}, g.blob(t, "70000000"), user, now)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := c.UnBind(ctx, load(t, c, private, nil, changed), &now, mk); err != nil || hex.EncodeToString(got) != g.MasterKey {
			t.Errorf("under the new PIN: %v", err)
		}

		testNewKeys(t, g, c, private)
	}) {
		return
	}
	if after, err := c.Slots(ctx); err != nil || after != before {
		t.Errorf("%d slots, %d before, %v", after, before, err)
	}
	random := make([]byte, 1000)
	if err := c.Random(ctx, random); err != nil || bytes.Contains(random, make([]byte, 8)) {
		t.Errorf("random bytes: %v", err)
	}
}

// testNewKeys: a key that the TPM makes, and one that is wrapped here, sign and decrypt.
func testNewKeys(t *testing.T, g golden, c Chip, private Handle) {
	t.Helper()
	ctx, info, wrong := t.Context(), sha1Info("hello"), PINAuth(pin(t, "00000000"))
	usage := Auth{1, 2, 3}
	made, err := c.Create(ctx, private, Auth{}, NewKey(Legacy, 1024, true), usage, usage)
	if err != nil {
		t.Fatal(err)
	}
	_, imported := g.open(t, "C0000000", g.root(t, PrivateRootFile, g.UserPIN))
	imported.Usage = usage
	wrapped := NewKey(Legacy, 2048, true)
	wrapped.Modulus = g.blob(t, "C0000000").Modulus
	root, err := g.blob(t, "50000000").RSA()
	if err == nil {
		wrapped, err = wrapped.Wrap(root, imported)
	}
	if err != nil {
		t.Fatal(err)
	}
	for name, k := range map[string]Key{"made": made, "imported": wrapped} {
		n, err := k.RSA()
		if err != nil {
			t.Fatal(err)
		}
		h := load(t, c, private, nil, k)
		digest := sha1.Sum([]byte("hello"))
		sig, err := c.Sign(ctx, h, &usage, info)
		if err != nil || rsa.VerifyPKCS1v15(n, crypto.SHA1, digest[:], sig) != nil {
			t.Errorf("the key that was %s signs %x, %v", name, sig, err)
		}
		if _, err := c.Sign(ctx, h, &wrong, info); !errors.Is(err, CodeAuth) {
			t.Errorf("the key that was %s without its secret: %v", name, err)
		}
		ct, err := rsa.EncryptPKCS1v15(rand.Reader, n, []byte("message")) //nolint:staticcheck // what the key's scheme is
		if err != nil {
			t.Fatal(err)
		}
		if got, err := c.UnBind(ctx, h, &usage, ct); err != nil || string(got) != "message" {
			t.Errorf("the key that was %s decrypts %q, %v", name, got, err)
		}
		if got, err := c.Public(ctx, h, &usage); err != nil || !got.Equal(n) {
			t.Errorf("the public half of the key that was %s: %v", name, err)
		}
	}
}

// TestOtherTPM has a TPM with another storage root key take a store: the root key comes
// from its file, and all below it works.
func TestOtherTPM(t *testing.T) {
	g := readGolden(t)
	c := startTPM(t, g)
	srk := Auth{}
	public, err := c.Public(t.Context(), SRK, &srk)
	if err != nil {
		t.Fatal(err)
	}
	root, err := RootKey(g.root(t, PrivateRootFile, g.UserPIN), public)
	if err != nil {
		t.Fatal(err)
	}
	private := load(t, c, SRK, &srk, root)
	if sig, err := c.Sign(t.Context(), load(t, c, private, nil, g.blob(t, "C0000000")), nil, sha1Info("hello")); err != nil || hex.EncodeToString(sig) != g.Signatures["ext-priv"] {
		t.Errorf("signs %x, %v", sig, err)
	}
}

// sha1Info is the DigestInfo of a SHA-1 digest.
func sha1Info(message string) []byte {
	prefix, _ := hex.DecodeString("3021300906052b0e03021a05000414")
	digest := sha1.Sum([]byte(message))
	return append(prefix, digest[:]...)
}

// A script answers with what it has, whatever it is asked.
type script struct {
	answers [][]byte
	asked   int
	err     error
}

func (s *script) Send(context.Context, []byte) ([]byte, error) {
	if s.err != nil {
		return nil, s.err
	}
	s.asked++
	return s.answers[min(s.asked, len(s.answers))-1], nil
}

func response(code Code, tag uint16, rest ...byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, tag)
	b = binary.BigEndian.AppendUint32(b, uint32(headerSize+len(rest)))
	return append(binary.BigEndian.AppendUint32(b, uint32(code)), rest...)
}

// TestResponses: damaged responses are told, a busy TPM is asked again, and codes are what
// they mean.
func TestResponses(t *testing.T) {
	good := response(0, tagResponse, 0, 0, 0, 4, 0, 0, 0, 9)
	ask := func(answers ...[]byte) (int, *script, error) {
		s := &script{answers: answers}
		n, err := Chip{s}.Slots(t.Context())
		return n, s, err
	}
	if n, _, err := ask(good); n != 9 || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
	if n, s, err := ask(response(codeRetry, tagResponse), response(codeRetry, tagResponse), good); n != 9 || err != nil || s.asked != 3 {
		t.Errorf("busy: %d, %v, asked %d times", n, err, s.asked)
	}
	for i := range good {
		cut := bytes.Clone(good[:i])
		if _, _, err := ask(cut); !errors.Is(err, errResponse) {
			t.Errorf("%d bytes: %v", i, err)
		}
		if i >= headerSize {
			binary.BigEndian.PutUint32(cut[2:], uint32(i))
			if _, _, err := ask(cut); !errors.Is(err, errResponse) {
				t.Errorf("%d bytes that say so: %v", i, err)
			}
		}
	}
	for name, b := range map[string][]byte{
		"longer":             append(bytes.Clone(good), 0),
		"longer, and said":   response(0, tagResponse, 0, 0, 0, 4, 0, 0, 0, 9, 0),
		"another tag":        response(0, tagResponse+1, 0, 0, 0, 4, 0, 0, 0, 9),
		"a wrong count":      response(0, tagResponse, 0, 0, 0, 5, 0, 0, 0, 9),
		"an endless count":   response(0, tagResponse, 0xff, 0xff, 0xff, 0xff),
		"more than there is": response(0, tagResponse, make([]byte, maxResponse)...),
	} {
		if _, _, err := ask(b); !errors.Is(err, errResponse) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for code, want := range map[Code]p11.RV{
		CodeAuth: p11.CKR_FUNCTION_FAILED, CodeDefending: p11.CKR_PIN_LOCKED, CodeDecrypt: p11.CKR_ENCRYPTED_DATA_INVALID,
		CodeNoSlot: p11.CKR_DEVICE_MEMORY, 17: p11.CKR_DEVICE_MEMORY, codeDisabled: p11.CKR_DEVICE_ERROR, 99: p11.CKR_FUNCTION_FAILED,
	} {
		if _, _, err := ask(response(code, tagResponse)); !errors.Is(err, code) || p11.RVOf(err) != want {
			t.Errorf("code %d: %v", code, err)
		}
	}
	gone := errors.New("gone")
	if _, err := (Chip{&script{err: gone}}).Slots(t.Context()); !errors.Is(err, gone) {
		t.Errorf("%v", err)
	}
	stopped, stop := context.WithCancel(t.Context())
	stop()
	if _, err := (Chip{&script{answers: [][]byte{response(codeRetry, tagResponse)}}}).Slots(stopped); !errors.Is(err, context.Canceled) {
		t.Errorf("a busy TPM that nobody waits for: %v", err)
	}
	// A response that nobody authorised.
	session := response(0, tagResponse, make([]byte, 4+sha1.Size)...)
	forged := response(0, tagResponse+1, append([]byte{0, 0, 0, 1, 5}, make([]byte, trailerOut)...)...)
	if _, err := (Chip{&script{answers: [][]byte{session, forged}}}).Sign(t.Context(), 1, &Auth{}, []byte("x")); !errors.Is(err, errResponse) {
		t.Errorf("a forged signature: %v", err)
	}
}

// FuzzResponse: no response makes more of itself than it is.
func FuzzResponse(f *testing.F) {
	f.Add(response(0, tagResponse, 0, 0, 0, 4, 0, 0, 0, 9), []byte(nil))
	f.Add(response(0, tagResponse, make([]byte, 4+2*sha1.Size)...), response(0, tagResponse+1, make([]byte, trailerOut+4)...))
	f.Add(response(0, tagResponse, make([]byte, 24)...), response(CodeAuth, tagResponse))
	f.Fuzz(func(t *testing.T, one, other []byte) {
		for _, b := range [][]byte{one, other} {
			if len(b) >= headerSize && Code(binary.BigEndian.Uint32(b[6:])) == codeRetry {
				return
			}
		}
		chip := func() Chip { return Chip{&script{answers: [][]byte{one, other}}} }
		ctx := t.Context()
		_, _ = chip().Slots(ctx)
		_, _ = chip().Public(ctx, SRK, nil)
		_, _ = chip().Load(ctx, SRK, &Auth{}, Key{})
		if b, err := chip().Sign(ctx, 1, &Auth{}, nil); err == nil && len(b) > maxModulus {
			t.Error("a signature that is too long")
		}
		_, _ = chip().Create(ctx, 1, Auth{}, NewKey(Legacy, 2048, true), Auth{}, Auth{})
		_, _ = chip().ChangeAuth(ctx, 1, Auth{}, Key{}, Auth{}, Auth{})
		_ = chip().Random(ctx, make([]byte, 16))
	})
}
