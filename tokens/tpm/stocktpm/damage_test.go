package stocktpm

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/tokens/tpm/tpm12"
)

// TestDamage spoils one thing of the directory at a time: what is left works, and errors
// say that something is wrong, but not that a PIN is.
func TestDamage(t *testing.T) {
	t.Parallel()
	whole := readGolden(t)
	spoil := func(name string, b []byte) func(t *testing.T, g golden) {
		return func(t *testing.T, g golden) {
			t.Helper()
			noError(t, os.WriteFile(filepath.Join(g.dir, "token", name), b, 0o600))
		}
	}
	attr := func(label string, at p11.AttributeType, change func([]byte) []byte) func(t *testing.T, g golden) {
		return func(t *testing.T, g golden) {
			t.Helper()
			tok := g.open(t)
			login(t, tok, p11.CKU_USER, g.UserPIN)
			o := find(t, tok, p11.CKO_PRIVATE_KEY, label)
			_, err := tok.Update(t.Context(), o.Handle, func(a p11.Attributes) (p11.Attributes, error) {
				v, _ := a.Get(at)
				return a.With(at, change(bytes.Clone(v))), nil
			})
			noError(t, err)
		}
	}
	flip := func(at int) func([]byte) []byte {
		return func(b []byte) []byte { b[at] ^= 1; return b }
	}
	for name, c := range map[string]struct {
		spoil func(*testing.T, golden)
		login p11.RV
		sign  p11.RV // of gen-priv; 0 where the login fails
	}{
		"the user's root key":          {spoil: spoil("TOK_OBJ/50000000", nil), login: p11.CKR_DEVICE_ERROR},
		"its leaf key":                 {spoil: spoil("TOK_OBJ/70000000", []byte("nothing")), login: p11.CKR_DEVICE_ERROR},
		"the file of the root key":     {spoil: spoil("root/"+tpm12.PrivateRootFile, []byte("nothing")), login: p11.CKR_OK, sign: p11.CKR_OK},
		"what stock binds to the leaf": {spoil: spoil("root/"+tpm12.MasterKeyFile, []byte("nothing")), login: p11.CKR_OK, sign: p11.CKR_OK},
		"a key's public part":          {spoil: attr("gen-priv", blobAttribute, flip(50)), login: p11.CKR_OK, sign: p11.CKR_DEVICE_ERROR},
		"its private part":             {spoil: attr("gen-priv", blobAttribute, flip(400)), login: p11.CKR_OK, sign: p11.CKR_DEVICE_ERROR},
		"its end":                      {spoil: attr("gen-priv", blobAttribute, func(b []byte) []byte { return b[:500] }), login: p11.CKR_OK, sign: p11.CKR_DEVICE_ERROR},
		"all of its blob":              {spoil: attr("gen-priv", blobAttribute, func([]byte) []byte { return nil }), login: p11.CKR_OK, sign: p11.CKR_DEVICE_ERROR},
		"its secret":                   {spoil: attr("gen-priv", authAttribute, flip(9)), login: p11.CKR_OK, sign: p11.CKR_DEVICE_ERROR},
	} {
		t.Run(name, func(t *testing.T) {
			g := whole
			g.dir = t.TempDir()
			unpackToken(t, g.dir)
			c.spoil(t, g)
			tok := g.open(t)
			l, err := tok.Login(t.Context(), p11.CKU_USER, pin(t, g.UserPIN))
			if p11.RVOf(err) != c.login {
				t.Errorf("the login: %v", err)
			}
			if err != nil {
				g.signs(t, tok, "gen-nologin")
				return
			}
			defer l.Close()
			_, err = do(t, tok, p11.CKF_SIGN, p11.CKM_SHA1_RSA_PKCS, find(t, tok, p11.CKO_PRIVATE_KEY, "gen-priv"), []byte("hello"), nil)
			if p11.RVOf(err) != c.sign {
				t.Errorf("a signature: %v", err)
			}
			g.signs(t, tok, "ext-priv", "gen-nologin")
		})
	}
}

// FuzzAttributes makes keys of what an object may hold: of nonsense there is none.
func FuzzAttributes(f *testing.F) {
	key := tpm12.NewKey(tpm12.Legacy, 2048, true)
	key.Modulus, key.Private = rootKeys()[0].N.Bytes(), make([]byte, 256)
	f.Add(key.Print(), key.Modulus, make([]byte, 256), []byte(nil))
	f.Add([]byte(nil), key.Modulus, []byte(nil), rootKeys()[0].Primes[0].Bytes())
	f.Add(key.Print()[:300], key.Modulus[:20], []byte(nil), []byte{1})
	h := &holder{&state{}}
	f.Fuzz(func(t *testing.T, blob, modulus, bound, prime []byte) {
		a := template(p11.CKO_PRIVATE_KEY, "", true)
		a.Set(blobAttribute, blob)
		a.Set(p11.CKA_MODULUS, modulus)
		a.Set(authAttribute, bound)
		a.Set(p11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1})
		a.Set(p11.CKA_PRIME_1, prime)
		k, err := h.RSA(a)
		if err != nil {
			return
		}
		got := k.(*held).key
		if got.blob == nil {
			if _, err := pkix.RSAPrivate(a); err != nil {
				t.Errorf("a key without numbers: %v", err)
			}
		} else if !bytes.Equal(bytes.TrimLeft(modulus, "\x00"), got.n.Bytes()) {
			t.Error("the blob is that of another key")
		}
		k.(*held).Close()
	})
}
