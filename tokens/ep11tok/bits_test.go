package ep11tok

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/card/ep11"
	"p11fs/tokens/card/soft"
	"p11fs/tokens/securekey"
)

// The numbers of control points.
const (
	pointModify = 17
	pointTrust  = 37
)

// point switches a control point of the cards.
func (s *sitting) point(n int, on bool) {
	s.Helper()
	if err := s.set.SetControlPoints(map[int]bool{n: on}); err != nil {
		s.Fatal(err)
	}
}

// keep stores a key as the engine does.
func (s *sitting) keep(a p11.Attributes, err error) *tokens.Object {
	s.Helper()
	if err == nil {
		a, err = s.tok.Adopt(s.Context(), a)
	}
	if err != nil {
		s.Fatal(err)
	}
	a.SetBool(p11.CKA_TOKEN, true)
	o, err := s.tok.Create(s.Context(), a)
	if err != nil {
		s.Fatal(err)
	}
	return o
}

func (s *sitting) newest(o *tokens.Object) *tokens.Object {
	s.Helper()
	o, err := s.tok.ByHandle(o.Handle)
	if err != nil {
		s.Fatal(err)
	}
	return o
}

// change changes a key as the engine does.
func change(t *testing.T, tok *token, o *tokens.Object, text string) error {
	t.Helper()
	o, err := tok.ByHandle(o.Handle)
	if err != nil {
		return err
	}
	was, err := o.Acquire()
	if err != nil {
		return err
	}
	defer o.Release()
	now := was.Merge(parse(t, text))
	told, err := tok.Change(t.Context(), was, now)
	if err != nil {
		return err
	}
	if told == nil {
		told = now
	}
	_, err = tok.Update(t.Context(), o.Handle, func(p11.Attributes) (p11.Attributes, error) { return told, nil })
	return err
}

func (s *sitting) change(o *tokens.Object, text string, rv p11.RV) {
	s.Helper()
	if err := change(s.T, s.tok, o, text); p11.RVOf(err) != rv && (err != nil || rv != p11.CKR_OK) {
		s.Errorf("%s: %v, not %v", text, err, rv)
	}
}

// wrap has the card wrap a key. The engine, which would refuse before, is not asked.
func (s *sitting) wrap(m p11.Mechanism, kek, key *tokens.Object, rv p11.RV) {
	s.Helper()
	_, err := s.tok.WrapKey(s.Context(), m, s.newest(kek), s.newest(key))
	if p11.RVOf(err) != rv && (err != nil || rv != p11.CKR_OK) {
		s.Errorf("wrap: %v, not %v", err, rv)
	}
}

// guarded is a key that leaves the card under one that is trusted.
func (s *sitting) guarded() *tokens.Object {
	s.Helper()
	return s.keep(s.tok.GenerateKey(s.Context(), p11.Mechanism{Type: p11.CKM_AES_KEY_GEN},
		parse(s, "class=secret-key key-type=aes value-len=32 private=true extractable=true wrap-with-trusted=true")))
}

// TestTrusted: a security officer says of a key that others are to trust it, and the card
// itself then lets them leave under it, and under no other; by the card's rules alone.
func TestTrusted(t *testing.T) {
	t.Parallel()
	s := sit(t)
	cbc := p11.Mechanism{Type: p11.CKM_AES_CBC_PAD, Param: p11.IV(make([]byte, 16))}
	key := s.guarded()
	aes := s.keep(s.tok.GenerateKey(t.Context(), p11.Mechanism{Type: p11.CKM_AES_KEY_GEN}, parse(t, "class=secret-key key-type=aes value-len=32 wrap=true")))
	public, private, err := s.tok.GenerateKeyPair(t.Context(), p11.Mechanism{Type: p11.CKM_RSA_PKCS_KEY_PAIR_GEN}, parse(t, "modulus-bits=1024 wrap=true"), nil)
	private.Wipe()
	bare := public.Clone() // as it is brought in, without the card's MAC
	bare.Delete(p11.CKA_IBM_OPAQUE)
	for name, kek := range map[string]struct {
		*tokens.Object
		m p11.Mechanism
	}{
		"aes": {aes, cbc}, "rsa": {s.keep(public, err), p11.Mechanism{Type: p11.CKM_RSA_PKCS}}, "rsa, brought in": {s.keep(bare, nil), p11.Mechanism{Type: p11.CKM_RSA_PKCS}},
	} {
		t.Run(name, func(t *testing.T) {
			s := &sitting{T: t, tok: s.tok, dir: s.dir, set: s.set}
			s.wrap(kek.m, kek.Object, key, p11.CKR_KEY_NOT_WRAPPABLE)
			before := s.blobs(kek.Object)
			s.change(kek.Object, "trusted=true", p11.CKR_ATTRIBUTE_READ_ONLY)
			if !bytes.Equal(s.blobs(kek.Object)[p11.CKA_IBM_OPAQUE], before[p11.CKA_IBM_OPAQUE]) || valueOf(t, s.newest(kek.Object), p11.CKA_LABEL) != nil {
				t.Error("a change that was refused changed the key")
			}
			s.point(pointTrust, true)
			s.change(kek.Object, "trusted=true", p11.CKR_OK)
			s.wrap(kek.m, kek.Object, key, p11.CKR_OK)
			s.change(kek.Object, "label=renamed", p11.CKR_OK)
			s.wrap(kek.m, kek.Object, key, p11.CKR_OK)
			s.point(pointTrust, false)
			s.change(kek.Object, "trusted=false", p11.CKR_OK)
			s.wrap(kek.m, kek.Object, key, p11.CKR_KEY_NOT_WRAPPABLE)
		})
	}
	_, err = s.tok.Adopt(t.Context(), parse(t, "class=public-key key-type=ec ec-params=0x06082a8648ce3d030107 trusted=true ec-point=0x"+
		"0441046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c2964fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"))
	s.wantRV(err, p11.CKR_ATTRIBUTE_READ_ONLY)
	_, err = s.tok.GenerateKey(t.Context(), p11.Mechanism{Type: p11.CKM_AES_KEY_GEN}, parse(t, "class=secret-key key-type=aes value-len=32 trusted=true"))
	s.wantRV(err, p11.CKR_ATTRIBUTE_READ_ONLY)
}

// TestBits: whatever a program changes of what a key may do, the card goes by it too, also
// with a copy of the key that the change was made in, and in the course of a change of the
// wrapping key.
func TestBits(t *testing.T) {
	t.Parallel()
	s := sit(t)
	cbc := p11.Mechanism{Type: p11.CKM_AES_CBC_PAD, Param: p11.IV(make([]byte, 16))}
	kek := s.keep(s.tok.GenerateKey(t.Context(), p11.Mechanism{Type: p11.CKM_AES_KEY_GEN}, parse(t, "class=secret-key key-type=aes value-len=32 wrap=true")))
	key := s.aes("one")
	s.wrap(cbc, kek, key, p11.CKR_OK)
	before := held(t, s.tok, parse(t, fmt.Sprintf("class=secret-key key-type=aes value-len=32 ibm-opaque=0x%x", s.blobs(key)[p11.CKA_IBM_OPAQUE])))
	s.change(key, "encrypt=false", p11.CKR_OK)
	_, err := s.encrypt(s.tok, key)
	s.wantRV(err, p11.CKR_KEY_FUNCTION_NOT_PERMITTED)
	if _, err := s.tok.once(t.Context(), p11.CKF_ENCRYPT, p11.Mechanism{Type: p11.CKM_AES_ECB}, before, make([]byte, 16), nil); err != nil {
		t.Errorf("a copy of the blob that was made before: %v", err)
	}
	s.change(key, "encrypt=true label=two", p11.CKR_OK)
	want := s.mustEncrypt(key, nil)
	s.point(pointModify, false)
	s.change(key, "encrypt=false", p11.CKR_ACTION_PROHIBITED)
	s.change(key, "label=three", p11.CKR_OK) // which is no matter of the card's
	s.mustEncrypt(key, want)
	s.point(pointModify, true)

	s.wk(nil, soft.ChangeNew, soft.ChangeCommit)
	if _, err := s.tok.Reencipher(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	s.change(key, "extractable=false", p11.CKR_OK)
	s.wrap(cbc, kek, key, p11.CKR_KEY_UNEXTRACTABLE)
	s.mustEncrypt(key, want)
	s.wk(nil, soft.ChangeActivate)
	s.wrap(cbc, kek, key, p11.CKR_KEY_UNEXTRACTABLE)
	s.change(key, "encrypt=false", p11.CKR_OK)
	if b := s.blobs(key); b[p11.CKA_IBM_OPAQUE_REENC] != nil || b[p11.CKA_IBM_OPAQUE_OLD] == nil {
		t.Error("a key that was changed under the new wrapping key is not under that one alone")
	}
	if _, err := s.tok.FinalizeReencipher(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	_, err = s.encrypt(s.tok, key)
	s.wantRV(err, p11.CKR_KEY_FUNCTION_NOT_PERMITTED)
	s.change(key, "encrypt=true", p11.CKR_OK)
	s.mustEncrypt(key, want)
	s.wrap(cbc, kek, key, p11.CKR_KEY_UNEXTRACTABLE)

	s.wk(nil, soft.ChangeNew, soft.ChangeCommit)
	if _, err := s.tok.Reencipher(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	s.wk(nil, soft.ChangeActivate, soft.ChangeNew, soft.ChangeCommit, soft.ChangeActivate)
	s.change(key, "encrypt=false", p11.CKR_DEVICE_ERROR) // of no wrapping key any more
}

// bitsEnv has TestBitsKilled be the process that is killed: it names a directory, and when.
const bitsEnv = "P11FS_EP11TOK_KILL_BITS"

// TestBitsKilled kills a process that changes a key, at any moment: what the object says is
// what its blob says.
func TestBitsKilled(t *testing.T) {
	if how := os.Getenv(bitsEnv); how != "" {
		var after time.Duration
		var dir string
		if _, err := fmt.Sscanf(how, "%d %s", &after, &dir); err != nil {
			t.Fatal(err)
		}
		flip(t, dir, after)
		return
	}
	t.Parallel()
	via, cards := softCard(t)
	dir := filepath.Dir(cards)
	h := newHouse(t, bed{via: via}, dir)
	l, ctx := h.login()
	o := h.must(ctx, "token=true private=false")
	if err := errors.Join(l.Close(), h.Close()); err != nil {
		t.Fatal(err)
	}
	const kills = 12
	for i := range kills {
		err := again(t, "TestBitsKilled", fmt.Sprintf("%s=%d %s", bitsEnv, time.Duration(i)*700*time.Microsecond, dir))
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatal(err)
		}
		tok := bed{via: via}.token(t, dir)
		now, err := tok.ByName(o.Name)
		if err != nil {
			t.Fatal(err)
		}
		a, err := now.Acquire()
		if err != nil {
			t.Fatal(err)
		}
		blob, _ := securekey.Blob(a)
		if says := ep11.Blob(blob).BitsOf(binary.NativeEndian)&ep11.BitSign != 0; says != a.Bool(p11.CKA_SIGN) {
			t.Errorf("sign is %v in the object, and %v in its blob", a.Bool(p11.CKA_SIGN), says)
		}
		now.Release()
		if err := tok.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// flip changes a key until the process is killed.
func flip(t *testing.T, dir string, after time.Duration) {
	tok := bed{via: openCard(t, filepath.Join(dir, "card"))}.token(t, dir)
	found, err := tok.Find(t.Context(), parse(t, "class=secret-key"), true)
	if err != nil || len(found) != 1 {
		t.Fatalf("%d keys, %v", len(found), err)
	}
	for i := 0; ; i++ {
		if i == 1 {
			time.AfterFunc(after, killed)
		}
		if err := change(t, tok, found[0], fmt.Sprintf("sign=%v", i%2 == 1)); err != nil {
			t.Fatal(err)
		}
	}
}
