package stocktpm

import (
	"encoding/hex"
	"fmt"
	"slices"
	"testing"

	"p11fs/p11"
)

// TestGolden uses stock's token: its objects are there, and its keys sign as they did.
func TestGolden(t *testing.T) {
	t.Parallel()
	g := readGolden(t)
	tok := g.open(t)
	list := func() (got []string) {
		all, err := tok.Find(t.Context(), nil, true)
		noError(t, err)
		for _, o := range all {
			a, err := o.Acquire()
			noError(t, err)
			class, _ := a.Class()
			got = append(got, fmt.Sprintf("%s %s", class.Short(), a.Label()))
			o.Release()
		}
		slices.Sort(got)
		return got
	}
	public := []string{
		"data data-public", "private-key gen-nologin", "private-key gen-pub", "public-key ext-pub", "public-key gen-nologin",
		"public-key gen-priv", "public-key gen-pub", "secret-key aes-public",
	}
	if got := list(); !slices.Equal(got, public) {
		t.Errorf("%q", got)
	}
	if a, b := tok.Counts(); a != len(public) || b != 0 {
		t.Errorf("%d public and %d private objects", a, b)
	}
	sign := func(label, with string) {
		t.Helper()
		key := find(t, tok, p11.CKO_PRIVATE_KEY, label)
		sig, err := do(t, tok, p11.CKF_SIGN, p11.CKM_SHA1_RSA_PKCS, key, []byte("hello"), nil)
		noError(t, err)
		if got := hex.EncodeToString(sig); got != g.Signatures[label] {
			t.Errorf("%s signs %s", label, got)
		}
		if with == "" {
			return
		}
		if _, err := do(t, tok, p11.CKF_VERIFY, p11.CKM_SHA1_RSA_PKCS, find(t, tok, p11.CKO_PUBLIC_KEY, with), []byte("hello"), sig); err != nil {
			t.Errorf("%s: %v", with, err)
		}
	}
	sign("gen-nologin", "gen-nologin")
	_, err := do(t, tok, p11.CKF_SIGN, p11.CKM_SHA1_RSA_PKCS, find(t, tok, p11.CKO_PRIVATE_KEY, "gen-pub"), []byte("hello"), nil)
	wantRV(t, "a key whose secret is the user's", err, p11.CKR_USER_NOT_LOGGED_IN)

	_, err = tok.Login(t.Context(), p11.CKU_USER, pin(t, "00000000"))
	wantRV(t, "a wrong PIN", err, p11.CKR_PIN_INCORRECT)
	_, err = tok.Login(t.Context(), p11.CKU_SO, pin(t, "87654321"))
	wantRV(t, "the SO's default PIN", err, p11.CKR_PIN_INCORRECT)
	noError(t, login(t, tok, p11.CKU_SO, g.SOPIN).Close())
	user := login(t, tok, p11.CKU_USER, g.UserPIN)
	all := append([]string{"data data-private", "private-key ext-priv", "private-key gen-priv", "secret-key aes-generated", "secret-key aes-private"}, public...)
	slices.Sort(all)
	if got := list(); !slices.Equal(got, all) {
		t.Errorf("%q", got)
	}
	for label, with := range map[string]string{"gen-priv": "gen-priv", "gen-pub": "gen-pub", "ext-priv": "ext-pub", "gen-nologin": "gen-nologin"} {
		sign(label, with)
		ct, err := do(t, tok, p11.CKF_ENCRYPT, p11.CKM_RSA_PKCS, find(t, tok, p11.CKO_PUBLIC_KEY, with), []byte("message"), nil)
		noError(t, err)
		if got, err := do(t, tok, p11.CKF_DECRYPT, p11.CKM_RSA_PKCS, find(t, tok, p11.CKO_PRIVATE_KEY, label), ct, nil); err != nil || string(got) != "message" {
			t.Errorf("%s decrypts %q, %v", label, got, err)
		}
		if got, err := do(t, tok, p11.CKF_DECRYPT, p11.CKM_RSA_PKCS, find(t, tok, p11.CKO_PRIVATE_KEY, label), make([]byte, len(ct)), nil); err != nil || string(got) == "message" {
			t.Errorf("%s decrypts what is no message to %q, %v", label, got, err)
		}
	}
	noError(t, user.Close())
	_, err = do(t, tok, p11.CKF_SIGN, p11.CKM_SHA1_RSA_PKCS, find(t, tok, p11.CKO_PRIVATE_KEY, "gen-pub"), []byte("hello"), nil)
	wantRV(t, "a key whose secret is the user's, after the logout", err, p11.CKR_USER_NOT_LOGGED_IN)
}
