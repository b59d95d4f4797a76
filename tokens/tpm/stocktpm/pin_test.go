package stocktpm

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/tpm/tpm12"
)

// signs signs with a golden key as stock did.
func (g golden) signs(t testing.TB, tok *token, labels ...string) {
	t.Helper()
	for _, label := range labels {
		sig, err := do(t, tok, p11.CKF_SIGN, p11.CKM_SHA1_RSA_PKCS, find(t, tok, p11.CKO_PRIVATE_KEY, label), []byte("hello"), nil)
		if err != nil || hex.EncodeToString(sig) != g.Signatures[label] {
			t.Errorf("%s signs %x, %v", label, sig, err)
		}
	}
}

// leaves is how many leaf keys a role has.
func leaves(t testing.TB, tok *token, u p11.UserType) int {
	t.Helper()
	tree, err := tok.tree(t.Context(), u)
	noError(t, err)
	return len(tree.leaves)
}

// TestSetPIN changes both PINs of stock's token. Its keys sign as before, also in a login
// that began under the PIN before.
func TestSetPIN(t *testing.T) {
	t.Parallel()
	g := readGolden(t)
	tok := g.open(t)
	before := login(t, tok, p11.CKU_USER, g.UserPIN)
	g.signs(t, tok, "gen-priv")
	for _, c := range []struct {
		user p11.UserType
		old  string
		file string
	}{{p11.CKU_USER, g.UserPIN, tpm12.PrivateRootFile}, {p11.CKU_SO, g.SOPIN, tpm12.PublicRootFile}} {
		now := "a new PIN"
		wantRV(t, "a PIN that is too short", tok.SetPIN(t.Context(), c.user, pin(t, c.old), pin(t, "12345")), p11.CKR_PIN_LEN_RANGE)
		noError(t, tok.SetPIN(t.Context(), c.user, pin(t, c.old), pin(t, now)))
		if n := leaves(t, tok, c.user); n != 1 {
			t.Errorf("%d leaf keys", n)
		}
		file, err := os.ReadFile(filepath.Join(g.dir, "token", "root", c.file))
		noError(t, err)
		if _, err := tpm12.ParseRoot(file, pin(t, now)); err != nil {
			t.Errorf("%s: %v", c.file, err)
		}
		_, err = tok.Login(t.Context(), c.user, pin(t, c.old))
		wantRV(t, "the old PIN", err, p11.CKR_PIN_INCORRECT)
		noError(t, login(t, tok, c.user, now).Close())
	}
	noError(t, before.Valid())
	g.signs(t, tok, "gen-priv", "gen-pub", "ext-priv", "gen-nologin")
	info, err := tok.Info(t.Context())
	if noError(t, err); info.Flags != 0x44d {
		t.Errorf("the flags are %#x", uint64(info.Flags))
	}
	st, err := os.Stat(filepath.Join(g.dir, "token", "root", tpm12.PrivateRootFile))
	if noError(t, err); st.Mode().Perm() != 0o600 {
		t.Errorf("the file of a root key is %v", st.Mode())
	}
}

// TestCutOff cuts a change of the user's PIN off behind each of its steps. The PIN under
// which the file of the root key is is the PIN, and a login settles the rest.
func TestCutOff(t *testing.T) {
	t.Parallel()
	g := readGolden(t)
	for _, c := range []struct {
		name        string
		file        bool // the file has taken its place
		right, gone string
	}{{"behind the leaf key", false, g.UserPIN, "a new PIN"}, {"behind the file", true, "a new PIN", g.UserPIN}} {
		t.Run(c.name, func(t *testing.T) {
			g := golden{SOPIN: g.SOPIN, UserPIN: g.UserPIN, Signatures: g.Signatures, tpm: g.tpm, device: g.device, dir: t.TempDir()}
			unpackToken(t, g.dir)
			tok := g.open(t)
			k := keeper{state: &tok.state}
			tree, err := tok.tree(t.Context(), p11.CKU_USER)
			noError(t, err)
			name := filepath.Join(g.dir, "token", "root", tpm12.PrivateRootFile)
			file, err := os.ReadFile(name)
			noError(t, err)
			noError(t, tok.setting(t.Context(), pin(t, g.UserPIN), func() error {
				kept, err := k.rekey(t.Context(), p11.CKU_USER, tree, pin(t, "a new PIN"), keptFile(file))
				if err == nil && c.file {
					err = os.WriteFile(name, kept.File, 0o600)
				}
				tok.change = change{} // as if it had ended here
				return err
			}))
			if n := leaves(t, tok, p11.CKU_USER); n != 2 {
				t.Fatalf("%d leaf keys", n)
			}
			_, err = tok.Login(t.Context(), p11.CKU_USER, pin(t, c.gone))
			wantRV(t, "the other PIN", err, p11.CKR_PIN_INCORRECT)
			login(t, tok, p11.CKU_USER, c.right)
			g.signs(t, tok, "gen-priv")
			if n := leaves(t, tok, p11.CKU_USER); n != 1 {
				t.Errorf("%d leaf keys after the login", n)
			}
			_, err = tok.Login(t.Context(), p11.CKU_USER, pin(t, c.gone))
			wantRV(t, "the other PIN afterwards", err, p11.CKR_PIN_INCORRECT)
		})
	}
}

// TestUnlock: three wrong PINs lock the user's, and with the same PIN the SO unlocks it, at
// no cost; with another one the user's keys are others.
func TestUnlock(t *testing.T) {
	t.Parallel()
	g := readGolden(t)
	tok := g.open(t)
	for range 3 {
		_, err := tok.Login(t.Context(), p11.CKU_USER, pin(t, "wrong PIN"))
		wantRV(t, "a wrong PIN", err, p11.CKR_PIN_INCORRECT)
	}
	_, err := tok.Login(t.Context(), p11.CKU_USER, pin(t, g.UserPIN))
	wantRV(t, "the right PIN when locked", err, p11.CKR_PIN_LOCKED)
	so := login(t, tok, p11.CKU_SO, g.SOPIN)
	noError(t, tok.InitPIN(t.Context(), so, pin(t, g.UserPIN)))
	l := login(t, tok, p11.CKU_USER, g.UserPIN)
	g.signs(t, tok, "gen-priv", "ext-priv")
	noError(t, l.Close())

	noError(t, tok.InitPIN(t.Context(), so, pin(t, "another PIN")))
	login(t, tok, p11.CKU_USER, "another PIN")
	_, err = do(t, tok, p11.CKF_SIGN, p11.CKM_SHA1_RSA_PKCS, find(t, tok, p11.CKO_PRIVATE_KEY, "gen-priv"), []byte("hello"), nil)
	wantRV(t, "a key of the PIN before", err, p11.CKR_DEVICE_ERROR)
	g.signs(t, tok, "gen-nologin")
	if _, err := os.Stat(filepath.Join(g.dir, "token", "root", tpm12.MasterKeyFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what was bound to the leaf key before is still there: %v", err)
	}
	if tree, err := tok.tree(t.Context(), p11.CKU_USER); err != nil || len(tree.all) != 4 {
		t.Errorf("%d keys of the user, %v", len(tree.all), err)
	}
}

// TestDefence: after some wrong secrets the TPM takes no PIN, the right one neither. That
// is no wrong PIN.
func TestDefence(t *testing.T) {
	t.Parallel()
	g := readGolden(t)
	tok := g.open(t)
	tree, err := tok.tree(t.Context(), p11.CKU_USER)
	noError(t, err)
	provoke := func() {
		for n := 0; ; n++ {
			_, err := tok.takes(t.Context(), tree, tree.leaves[0].key, tpm12.Auth{})
			if errors.Is(err, tpm12.CodeDefending) {
				return
			}
			if noError(t, err); n == 50 {
				t.Fatal("the TPM does not defend itself")
			}
		}
	}
	provoke()
	for refused := 0; refused < 40; { // more than there are sessions
		l, err := tok.Login(t.Context(), p11.CKU_USER, pin(t, g.UserPIN))
		if err == nil { // it does so for a second only, but longer each time
			noError(t, l.Close())
			provoke()
			continue
		}
		wantRV(t, "the right PIN while the TPM defends itself", err, p11.CKR_PIN_LOCKED)
		refused++
	}
	info, err := tok.Info(t.Context())
	if noError(t, err); info.Flags&(p11.CKF_USER_PIN_COUNT_LOW|p11.CKF_USER_PIN_LOCKED) != 0 {
		t.Errorf("it is counted: flags %#x", uint64(info.Flags))
	}
}

// TestChangedByOthers: a login with a PIN that another program has changed ends when the
// chip has refused it once. Keys that it has used before go on.
func TestChangedByOthers(t *testing.T) {
	t.Parallel()
	g := readGolden(t)
	tok, other := g.open(t), g.open(t)
	l := login(t, tok, p11.CKU_USER, g.UserPIN)
	g.signs(t, tok, "gen-pub")
	noError(t, other.SetPIN(t.Context(), p11.CKU_USER, pin(t, g.UserPIN), pin(t, "a new PIN")))
	noError(t, tok.Refresh(t.Context()))
	g.signs(t, tok, "gen-pub")
	_, err := do(t, tok, p11.CKF_SIGN, p11.CKM_SHA1_RSA_PKCS, find(t, tok, p11.CKO_PRIVATE_KEY, "gen-priv"), []byte("hello"), nil)
	wantRV(t, "another key", err, p11.CKR_USER_NOT_LOGGED_IN)
	wantRV(t, "the login", l.Valid(), p11.CKR_USER_NOT_LOGGED_IN)
	login(t, tok, p11.CKU_USER, "a new PIN")
	g.signs(t, tok, "gen-priv", "gen-pub")
}

// TestMove: with a new storage root key a login brings the keys of its role over, from the
// file of its root key.
func TestMove(t *testing.T) {
	t.Parallel()
	g := readGolden(t)
	tok := g.open(t)
	// The blob of a root key for another storage root key: that of another key.
	tree, err := tok.tree(t.Context(), p11.CKU_USER)
	noError(t, err)
	other, err := newRoot()
	noError(t, err)
	file, err := os.ReadFile(filepath.Join(g.dir, "token", "root", tpm12.PrivateRootFile))
	noError(t, err)
	root, err := tpm12.ParseRoot(file, pin(t, g.UserPIN))
	noError(t, err)
	blob, err := tpm12.RootKey(root, &other.PublicKey)
	noError(t, err)
	_, err = tok.Update(t.Context(), tree.root.handle, func(a p11.Attributes) (p11.Attributes, error) {
		return a.With(blobAttribute, blob.Print()), nil
	})
	noError(t, err)
	again := g.open(t)
	_, err = again.Login(t.Context(), p11.CKU_USER, pin(t, "wrong PIN"))
	wantRV(t, "a wrong PIN", err, p11.CKR_PIN_INCORRECT)
	login(t, again, p11.CKU_USER, g.UserPIN)
	g.signs(t, again, "gen-priv", "ext-priv")
	moved, err := again.tree(t.Context(), p11.CKU_USER)
	noError(t, err)
	if bytes.Equal(moved.root.key.Private, blob.Private) {
		t.Error("the blob is the old one")
	}
	// Without the file there is nothing to bring over.
	_, err = again.Update(t.Context(), moved.root.handle, func(a p11.Attributes) (p11.Attributes, error) {
		return a.With(blobAttribute, blob.Print()), nil
	})
	noError(t, err)
	noError(t, os.Remove(filepath.Join(g.dir, "token", "root", tpm12.PrivateRootFile)))
	_, err = g.open(t).Login(t.Context(), p11.CKU_USER, pin(t, g.UserPIN))
	wantRV(t, "without the file", err, p11.CKR_TOKEN_NOT_RECOGNIZED)
}

// TestInitToken: all goes but the SO's PIN.
func TestInitToken(t *testing.T) {
	t.Parallel()
	g := readGolden(t)
	tok := g.open(t)
	noError(t, tok.InitToken(t.Context(), pin(t, g.SOPIN), "anew"))
	list, err := tok.Find(t.Context(), nil, true)
	if noError(t, err); len(list) != 0 {
		t.Errorf("%d objects", len(list))
	}
	_, err = tok.Login(t.Context(), p11.CKU_USER, pin(t, g.UserPIN))
	wantRV(t, "the user", err, p11.CKR_USER_PIN_NOT_INITIALIZED)
	again := g.open(t)
	_, err = again.Login(t.Context(), p11.CKU_SO, pin(t, tokens.DefaultSOPIN))
	wantRV(t, "the default PIN", err, p11.CKR_PIN_INCORRECT)
	so := login(t, again, p11.CKU_SO, g.SOPIN)
	noError(t, again.InitPIN(t.Context(), so, pin(t, g.UserPIN)))
	login(t, again, p11.CKU_USER, g.UserPIN)
	files, err := os.ReadDir(filepath.Join(g.dir, "token", "root"))
	noError(t, err)
	var names []string
	for _, f := range files {
		names = append(names, f.Name())
	}
	if !slices.Equal(names, []string{tpm12.PrivateRootFile, tpm12.PublicRootFile, "TOK_OBJ"}) {
		t.Errorf("the user's directory has %q", names)
	}
}

// TestPINStamp: it changes with the PIN of the role, in whichever process, and with nothing
// else: a login that the daemon holds ends then.
func TestPINStamp(t *testing.T) {
	t.Parallel()
	g := readGolden(t)
	a, b := g.open(t), g.open(t)
	user, so := b.PINStamp(p11.CKU_USER), b.PINStamp(p11.CKU_SO)
	noError(t, login(t, a, p11.CKU_USER, g.UserPIN).Close())
	if b.PINStamp(p11.CKU_USER) != user {
		t.Error("it changed with a login")
	}
	noError(t, a.SetPIN(t.Context(), p11.CKU_USER, pin(t, g.UserPIN), pin(t, "another1")))
	if b.PINStamp(p11.CKU_USER) == user {
		t.Error("it did not change with the PIN")
	}
	if b.PINStamp(p11.CKU_SO) != so {
		t.Error("that of the SO changed with the user's PIN")
	}
}
