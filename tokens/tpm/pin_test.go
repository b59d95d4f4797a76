package tpm

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/store/format"
	"p11fs/tokens/swtok"
	"p11fs/tokens/tokentest"
	"p11fs/tokens/tpm/tpm20"
	"p11fs/tokens/tpm/tpmtest"
)

const (
	soPIN   = "so-pin-1"
	userPIN = "user-pin"
)

// opened is a token of a software TPM, and its place.
func opened(t *testing.T, soft *tpmtest.TPM, p tokens.Place) *token {
	t.Helper()
	tok, err := NewKind(swtok.GoProvider(), soft.Device()).Open(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tok.Close() })
	return tok.(*token)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// ready gives a new token its PINs.
func ready(t *testing.T, tok *token) {
	t.Helper()
	ctx := t.Context()
	must(t, tok.InitToken(ctx, tokentest.PIN(t, tokens.DefaultSOPIN), "mine"))
	must(t, tok.SetPIN(ctx, p11.CKU_SO, tokentest.PIN(t, tokens.DefaultSOPIN), tokentest.PIN(t, soPIN)))
	so, err := tok.Login(ctx, p11.CKU_SO, tokentest.PIN(t, soPIN))
	must(t, err)
	defer so.Close()
	must(t, tok.InitPIN(ctx, so, tokentest.PIN(t, userPIN)))
}

// try tries a user's PIN.
func try(t *testing.T, tok *token, pin string) p11.RV {
	t.Helper()
	return tryAs(t, tok, p11.CKU_USER, pin)
}

func tryAs(t *testing.T, tok *token, who p11.UserType, pin string) p11.RV {
	t.Helper()
	l, err := tok.Login(t.Context(), who, tokentest.PIN(t, pin))
	if err == nil {
		_ = l.Close()
	}
	return p11.RVOf(err)
}

// indexes are those that the TPM has of the first ten.
func indexes(t *testing.T, c *tpm20.Chip) (list []uint32) {
	t.Helper()
	for i := uint32(0x018f5000); i < 0x018f500a; i++ {
		if _, _, err := c.Failures(t.Context(), i); err == nil {
			list = append(list, i)
		}
	}
	return list
}

// TestDescribe: a token tells what its TPM is, and what tries are left.
func TestDescribe(t *testing.T) {
	t.Parallel()
	for protection, want := range map[string][]string{
		PINFail: {"protection pinfail, 3 tries left of the SO PIN, 2 tries left of the user PIN", "32 failures left of 32"},
		DA:      {"protection da", "31 failures left of 32"},
	} {
		t.Run(protection, func(t *testing.T) {
			t.Parallel()
			soft := tpmtest.Start(t, nil)
			soft.Tries(t, 32)
			tok := opened(t, soft, place(t, t.TempDir(), protection))
			ready(t, tok)
			if rv := try(t, tok, "wrong"); rv != p11.CKR_PIN_INCORRECT {
				t.Fatal(rv)
			}
			got := tok.Describe(t.Context())
			if len(got) != 3 || !strings.Contains(got[0], soft.Device()) || got[1] != want[0] || !strings.HasPrefix(got[2], want[1]) {
				t.Errorf("%q", got)
			}
			soft.Kill()
			if got := tok.Describe(t.Context()); len(got) > 2 {
				t.Errorf("without a TPM: %q", got)
			}
		})
	}
}

// TestIndexes: each PIN has one index, whatever became of others, and a token that was cut
// off leaves none.
func TestIndexes(t *testing.T) {
	t.Parallel()
	soft := tpmtest.Start(t, nil)
	tok := opened(t, soft, place(t, t.TempDir(), PINFail))
	ready(t, tok)
	chip, k := tok.k.chip, tok.k
	want := func(what string, n int) {
		t.Helper()
		r, err := readRecord(k.dir)
		must(t, err)
		if got := indexes(t, chip); len(got) != n || !slices.Equal(slices.Sorted(slices.Values(r.indexes)), got) {
			t.Errorf("%s: the TPM has the indexes %x, and the file %x", what, got, r.indexes)
		}
	}
	want("two PINs", 2)
	old, err := os.ReadFile(filepath.Join(k.dir, "MK_USER"))
	must(t, err)
	must(t, tok.SetPIN(t.Context(), p11.CKU_USER, tokentest.PIN(t, userPIN), tokentest.PIN(t, "another-pin")))
	want("a new PIN", 2)
	f, err := parseKeyFile(old)
	must(t, err)
	stretched, err := tpm20.Stretch(tokentest.PIN(t, userPIN), f.salt[:], f.cost)
	must(t, err)
	defer stretched.Close()
	if mk, err := chip.Unseal(t.Context(), k.parent(), stretched, f.seal); p11.RVOf(err) != p11.CKR_DEVICE_ERROR {
		_ = mk.Close()
		t.Errorf("the old file opens with the old PIN: %v", err)
	}

	// Cut off after the index, and before the file.
	master, err := k.NewMasterKey()
	must(t, err)
	defer master.Close()
	made, err := k.Make(t.Context(), p11.CKU_USER, tokentest.PIN(t, "lost-pin"), master, kept(old))
	must(t, err)
	if len(made.File) != keyFileSize || len(indexes(t, chip)) != 3 {
		t.Errorf("a file of %d bytes, indexes %x", len(made.File), indexes(t, chip))
	}
	must(t, k.changing(t.Context(), func() error { return nil }))
	want("after a change that was cut off", 2)
	if rv := try(t, tok, "another-pin"); rv != p11.CKR_OK {
		t.Errorf("the PIN: %v", rv)
	}
	must(t, tok.InitToken(t.Context(), tokentest.PIN(t, soPIN), "again"))
	want("no user", 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := k.changing(ctx, func() error { return ctx.Err() }); p11.RVOf(err) != p11.CKR_FUNCTION_CANCELED {
		t.Errorf("interrupted: %v", err)
	}
}

// TestLimit gives wrong PINs up to the limit, with a power cut after each, and then puts
// the directory's own count back: with pinfail the TPM has counted too, and the machine
// has not been locked for anybody else.
func TestLimit(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		protection string
		who        p11.UserType
		pin        string
	}{
		"da":                {DA, p11.CKU_USER, userPIN},
		"pinfail":           {PINFail, p11.CKU_USER, userPIN},
		"da of the SO":      {DA, p11.CKU_SO, soPIN},
		"pinfail of the SO": {PINFail, p11.CKU_SO, soPIN},
	} {
		t.Run(name, func(t *testing.T) {
			protection := c.protection
			t.Parallel()
			soft := tpmtest.Start(t, nil)
			soft.Tries(t, 20)
			p := place(t, t.TempDir(), protection)
			tok := opened(t, soft, p)
			ready(t, tok)
			before, err := os.ReadFile(filepath.Join(p.Dir, "NVTOK.DAT"))
			must(t, err)
			for i := range 3 {
				g, err := tok.k.chip.Guard(t.Context())
				must(t, err)
				if rv := tryAs(t, tok, c.who, "a wrong PIN"); rv != p11.CKR_PIN_INCORRECT {
					t.Errorf("wrong PIN %d: %v", i+1, rv)
				}
				after, err := tok.k.chip.Guard(t.Context())
				must(t, err)
				if n := after.Failures - g.Failures; n != map[string]uint32{DA: 1, PINFail: 0}[protection] {
					t.Errorf("wrong PIN %d: the machine has counted %d failures more", i+1, n)
				}
				must(t, tok.Close())
				soft.Kill()
				soft.Run(t)
				tok = opened(t, soft, p)
			}
			g, err := tok.k.chip.Guard(t.Context())
			must(t, err)
			if rv := tryAs(t, tok, c.who, c.pin); rv != p11.CKR_PIN_LOCKED {
				t.Errorf("the right PIN after three wrong ones: %v", rv)
			}
			if after, err := tok.k.chip.Guard(t.Context()); err != nil || after != g {
				t.Errorf("a PIN that is locked was tried: %+v, %v", after, err)
			}
			must(t, tok.Close())
			must(t, os.WriteFile(filepath.Join(p.Dir, "NVTOK.DAT"), before, 0o600))
			tok = opened(t, soft, p)
			want := map[string]p11.RV{DA: p11.CKR_OK, PINFail: p11.CKR_PIN_LOCKED}[protection]
			if rv := tryAs(t, tok, c.who, c.pin); rv != want {
				t.Errorf("the right PIN of a directory that was put back: %v, want %v", rv, want)
			}
			if c.who == p11.CKU_SO {
				return
			}
			so, err := tok.Login(t.Context(), p11.CKU_SO, tokentest.PIN(t, soPIN))
			must(t, err)
			defer so.Close()
			must(t, tok.InitPIN(t.Context(), so, tokentest.PIN(t, "a new PIN")))
			if rv := try(t, tok, "a new PIN"); rv != p11.CKR_OK {
				t.Errorf("the PIN that the SO has set: %v", rv)
			}
		})
	}
}

func kept(file []byte) format.Kept { return format.Kept{File: file} }

// TestElsewhere takes a token to another TPM, and takes the TPM away.
func TestElsewhere(t *testing.T) {
	t.Parallel()
	soft := tpmtest.Start(t, nil)
	dir := t.TempDir()
	p := place(t, dir, DA)
	tok := opened(t, soft, p)
	ready(t, tok)
	soft.Kill()
	if rv := try(t, tok, userPIN); rv != p11.CKR_DEVICE_REMOVED || tok.Offline() == nil {
		t.Errorf("a login without the TPM: %v, offline %v", rv, tok.Offline())
	}
	if info, err := tok.Info(t.Context()); err != nil || info.Flags&p11.CKF_USER_PIN_COUNT_LOW != 0 {
		t.Errorf("a PIN that was not looked at is counted: %v", err)
	}
	must(t, tok.Close())
	tok = opened(t, soft, p) // its objects can be seen
	if len(tok.Mechanisms()) == 0 {
		t.Error("a token without its TPM has no mechanisms")
	}
	soft.Run(t)
	if rv := try(t, tok, userPIN); rv != p11.CKR_OK {
		t.Errorf("the TPM is back: %v", rv)
	}
	must(t, tok.Close())

	other := tpmtest.Start(t, nil)
	r, err := readRecord(p.Dir)
	must(t, err)
	r.device = other.Device()
	must(t, r.write(p.Dir, p.Group))
	tok = opened(t, other, p)
	if rv := try(t, tok, userPIN); rv != p11.CKR_TOKEN_NOT_RECOGNIZED {
		t.Errorf("with another TPM: %v", rv)
	}
	must(t, os.Remove(filepath.Join(p.Dir, chipFile)))
	if _, err := NewKind(swtok.GoProvider(), other.Device()).Open(t.Context(), p); p11.RVOf(err) != p11.CKR_TOKEN_NOT_RECOGNIZED {
		t.Errorf("without its file: %v", err)
	}
	if wrong, mend := NewKind(swtok.GoProvider(), "").Check(p); wrong == "" || mend == "" {
		t.Errorf("check says %q, %q", wrong, mend)
	}
	p.Dir += ".absent"
	p.Create = false
	if _, err := NewKind(swtok.GoProvider(), other.Device()).Open(t.Context(), p); p11.RVOf(err) != p11.CKR_TOKEN_NOT_PRESENT {
		t.Errorf("no token: %v", err)
	}
}

// TestCost: a PIN costs what the configuration says, else what the one before costs, or the
// SO's.
func TestCost(t *testing.T) {
	t.Parallel()
	p := place(t, t.TempDir(), DA)
	soft := tpmtest.Start(t, nil)
	tok := opened(t, soft, p)
	with := func(config string) {
		t.Helper()
		must(t, tok.Close())
		if p.Config = config; config != "" {
			p.Config = filepath.Join(t.TempDir(), "tpm.conf")
			must(t, writeFile(p.Config, config))
		}
		tok = opened(t, soft, p)
	}
	want := func(what string, so, user int) {
		t.Helper()
		for name, cost := range map[string]int{"MK_SO": so, "MK_USER": user} {
			b, err := os.ReadFile(filepath.Join(p.Dir, name))
			must(t, err)
			if f, err := parseKeyFile(b); err != nil || f.cost != cost {
				t.Errorf("%s: %s costs %d, not %d: %v", what, name, f.cost, cost, err)
			}
		}
	}
	change := func() {
		t.Helper()
		must(t, tok.SetPIN(t.Context(), p11.CKU_USER, tokentest.PIN(t, userPIN), tokentest.PIN(t, "another-pin")))
		must(t, tok.SetPIN(t.Context(), p11.CKU_USER, tokentest.PIN(t, "another-pin"), tokentest.PIN(t, userPIN)))
	}
	with("")
	ready(t, tok)
	want("nothing is said", tpm20.Cost, tpm20.Cost)
	with("cost = 12\n")
	want("before a change", tpm20.Cost, tpm20.Cost)
	change()
	want("said", tpm20.Cost, 12)
	with("")
	change()
	want("as before", tpm20.Cost, 12)
	with("cost = 11\n")
	must(t, tok.SetPIN(t.Context(), p11.CKU_SO, tokentest.PIN(t, soPIN), tokentest.PIN(t, "so-pin-2")))
	must(t, tok.SetPIN(t.Context(), p11.CKU_SO, tokentest.PIN(t, "so-pin-2"), tokentest.PIN(t, soPIN)))
	with("")
	must(t, tok.InitToken(t.Context(), tokentest.PIN(t, soPIN), "again"))
	so, err := tok.Login(t.Context(), p11.CKU_SO, tokentest.PIN(t, soPIN))
	must(t, err)
	defer so.Close()
	must(t, tok.InitPIN(t.Context(), so, tokentest.PIN(t, userPIN)))
	want("as the SO's", 11, 11)
}
