package tpm20

import (
	"bytes"
	"crypto/sha256"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens/tpm/tpmtest"
)

// quick is a PIN that is not stretched.
func quick(t testing.TB, pin string) *PIN {
	t.Helper()
	key := sha256.Sum256([]byte(pin))
	p := &PIN{}
	p.seal = must[*secret.Bytes](t)(authOf(key[:], "seal"))
	p.index = must[*secret.Bytes](t)(authOf(key[:], "index"))
	t.Cleanup(p.Close)
	return p
}

const masterKey = "a master key of thirty-two bytes"

// sealed is a seal of masterKey, with an index of three tries or without.
func sealed(t testing.TB, c *Chip, p Parent, pin *PIN, counted bool) Seal {
	t.Helper()
	var index uint32
	if counted {
		index = must[uint32](t)(c.FreeIndex(t.Context()))
		noError(t, c.DefineIndex(t.Context(), p, index, pin, 3))
	}
	return must[Seal](t)(c.Seal(t.Context(), p, pin, index, hide(t, []byte(masterKey))))
}

// opens checks that a PIN opens a seal.
func opens(t testing.TB, c *Chip, p Parent, pin *PIN, s Seal) {
	t.Helper()
	mk, err := c.Unseal(t.Context(), p, pin, s)
	if err != nil {
		t.Errorf("the right PIN: %v", err)
		return
	}
	defer mk.Close()
	if !bytes.Equal(show(mk), []byte(masterKey)) {
		t.Error("another key was sealed")
	}
}

// refuses checks why a PIN does not open a seal.
func refuses(t testing.TB, c *Chip, p Parent, pin *PIN, s Seal, want error) {
	t.Helper()
	mk, err := c.Unseal(t.Context(), p, pin, s)
	if err == nil {
		_ = mk.Close()
	}
	wantIs(t, "a PIN", err, want)
}

func counted(t testing.TB, c *Chip) uint32 {
	t.Helper()
	return must[Guard](t)(c.Guard(t.Context())).Failures
}

// TestSeal tries PINs up to the limit: the TPM's own count locks all seals of the machine,
// an index only its own.
func TestSeal(t *testing.T) {
	t.Parallel()
	tpm, c, p := fresh(t)
	right, wrong := quick(t, "right"), quick(t, "wrong")
	plain, behind := sealed(t, c, p, right, false), sealed(t, c, p, right, true)
	other := sealed(t, c, p, wrong, true)
	if behind.Index != 0x018f5000 || other.Index != 0x018f5001 {
		t.Errorf("indexes %#x and %#x", behind.Index, other.Index)
	}

	wantFailures := func(want uint32) {
		t.Helper()
		count, limit, err := c.Failures(t.Context(), behind.Index)
		noError(t, err)
		if count != want || limit != 3 {
			t.Errorf("the index has counted %d of %d failures, want %d of 3", count, limit, want)
		}
	}
	opens(t, c, p, right, behind)
	refuses(t, c, p, wrong, behind, ErrWrongAuth)
	wantFailures(1)
	opens(t, c, p, right, behind)
	wantFailures(0)
	for i := range uint32(3) {
		before := counted(t, c)
		refuses(t, c, p, wrong, behind, ErrWrongAuth)
		if n := counted(t, c); n != before {
			t.Errorf("the machine has counted %d failures, and %d before", n, before)
		}
		tpm.Kill() // power comes and goes, for which a TPM may count one itself
		tpm.Run(t)
		wantFailures(i + 1)
	}
	refuses(t, c, p, right, behind, ErrLocked)
	refuses(t, c, p, wrong, behind, ErrLocked)
	opens(t, c, p, wrong, other)
	reset := func() {
		t.Helper()
		if rc := raw(t, c, 0x139, 0x4000000a); rc != 0 { // TPM2_DictionaryAttackLockReset
			t.Fatalf("reset: %v", rc)
		}
	}
	reset()
	opens(t, c, p, right, plain)

	// The same with the TPM's own count.
	for range 3 {
		refuses(t, c, p, wrong, plain, ErrWrongAuth)
	}
	if g := must[Guard](t)(c.Guard(t.Context())); g.Failures != 3 || g.Most != 3 || !g.Locked || g.Interval != 1000 || g.LockoutAuth || g.OwnerAuth {
		t.Errorf("the TPM's guard: %+v", g)
	}
	refuses(t, c, p, right, plain, ErrLocked)
	refuses(t, c, p, wrong, other, ErrLocked) // which the index lets pass
	reset()
	opens(t, c, p, right, plain)

	noError(t, c.RemoveIndex(t.Context(), behind.Index))
	noError(t, c.RemoveIndex(t.Context(), behind.Index))
	_, err := c.Unseal(t.Context(), p, right, behind)
	wantRV(t, "a seal whose index is gone", err, p11.CKR_DEVICE_ERROR)
	wantRV(t, "an index of others", c.RemoveIndex(t.Context(), 0x01c00002), p11.CKR_ARGUMENTS_BAD)
}

// TestReplacedIndex is an owner who knows no PIN, and puts an index with one of his own in
// the place of that of a seal, which then has the same name.
func TestReplacedIndex(t *testing.T) {
	t.Parallel()
	_, c, p := fresh(t)
	right, own := quick(t, "right"), quick(t, "attacker's")
	s := sealed(t, c, p, right, true)
	noError(t, c.RemoveIndex(t.Context(), s.Index))
	noError(t, c.DefineIndex(t.Context(), p, s.Index, own, 1000))
	for i := range uint32(3) {
		refuses(t, c, p, own, s, ErrWrongAuth)
		if n := counted(t, c); n != i+1 {
			t.Errorf("the machine has counted %d failures, want %d", n, i+1)
		}
	}
	refuses(t, c, p, own, s, ErrLocked)
}

// TestOwner: indexes are the owner's to make, and a storage key too.
func TestOwner(t *testing.T) {
	t.Parallel()
	tpm := tpmtest.Start(t, goldenState)
	c := chip(t, tpm)
	p := must[Parent](t)(c.FindParent(t.Context()))
	// TPM2_HierarchyChangeAuth of the owner.
	if rc := raw(t, c, 0x129, uint32(tpm2.TPMRHOwner), 0, 1, 'x'); rc != 0 {
		t.Fatal(rc)
	}
	if !must[Guard](t)(c.Guard(t.Context())).OwnerAuth {
		t.Error("the owner is said to have no password")
	}
	wantRV(t, "an index", c.DefineIndex(t.Context(), p, 0x018f5000, quick(t, "pin"), 3), p11.CKR_FUNCTION_REJECTED)
	sealed(t, c, p, quick(t, "pin"), false) // there is a storage key
	_, err := c.CreateEC(t.Context(), Parent{Template: RSA2048, Name: []byte("another")}, curve(t, "P-256"), nil)
	wantRV(t, "another storage key", err, p11.CKR_FUNCTION_FAILED)
}

func TestStretch(t *testing.T) {
	t.Parallel()
	one, two := stretched(t, "1234", make([]byte, 32), Cost), stretched(t, "1235", make([]byte, 32), Cost)
	for _, pair := range [][2][]byte{{show(one.seal), show(two.seal)}, {show(one.seal), show(one.index)}} {
		if bytes.Equal(pair[0], pair[1]) || bytes.IndexByte(pair[0], 0) >= 0 || len(pair[0]) != AuthSize {
			t.Errorf("%x, %x", pair[0], pair[1])
		}
	}
	for _, cost := range []int{0, MaxCost + 1} {
		_, err := Stretch(hide(t, []byte("1234")), make([]byte, 32), cost)
		wantRV(t, "a cost", err, p11.CKR_DEVICE_ERROR)
	}
	if got := nonzero([]byte{0, 7, 0}); !bytes.Equal(got, []byte{1, 7, 1}) {
		t.Errorf("without zeros: %x", got)
	}
}
