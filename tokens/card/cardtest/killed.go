package cardtest

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/card"
	"p11fs/tokens/card/soft"
)

// A Bed is a kind of token, and of cards.
type Bed struct {
	ABI card.ABI
	// Masters are the names of the cards' master keys.
	Masters []string
	// Token opens a new token in dir over via. It is closed with the test.
	Token func(t *testing.T, dir string, via card.Transport, now func() time.Time) tokens.Token
}

// Killed ends the process of the cards at each moment.
func Killed(t *testing.T, bed Bed) {
	for name, test := range map[string]func(*testing.T, Bed){"operations": operations, "import": bringing, "re-enciphering": reencipher} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, bed)
		})
	}
}

// change changes all master keys of the cards of a directory in one step.
func (b Bed) change(t *testing.T, dir, step string) {
	t.Helper()
	set, err := soft.OpenSet(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	for _, m := range b.Masters {
		if err := set.Change(nil, m, step); err != nil {
			t.Fatal(err)
		}
	}
}

// A rig is a token over cards that can be ended.
type rig struct {
	*testing.T
	bed   Bed
	cards *Process
	via   *hook
	tok   tokens.Token
	late  atomic.Int64 // how much later it is for the token
}

func newRig(t *testing.T, bed Bed) *rig {
	t.Helper()
	r := &rig{T: t, bed: bed}
	dir := filepath.Join(t.TempDir(), "cards")
	if err := soft.MakeSet(dir, bed.ABI.String(), []card.APQN{{Adapter: 0, Domain: 1}}, bed.Masters); err != nil {
		t.Fatal(err)
	}
	r.cards = Start(t, dir)
	r.via = &hook{Transport: card.Dial(r.cards.Socket, bed.ABI)}
	r.tok = bed.Token(t, t.TempDir(), r.via, func() time.Time { return time.Now().Add(time.Duration(r.late.Load())) })
	return r
}

// again has the cards be there again, and the token know them.
func (r *rig) again() {
	r.Helper()
	r.cards.Again()
	r.late.Add(int64(time.Minute)) // the pause of a card that did not answer is over
	if err := r.tok.GenerateRandom(r.Context(), make([]byte, 8)); err != nil {
		r.Fatalf("the cards are back: %v", err)
	}
}

func (r *rig) wantGone(what string, err error) {
	r.Helper()
	if p11.RVOf(err) != p11.CKR_DEVICE_REMOVED {
		r.Errorf("%s: %v, not %v", what, err, p11.CKR_DEVICE_REMOVED)
	}
}

// made makes a key that is kept.
func (r *rig) made(m p11.MechanismType, text string) *tokens.Object {
	r.Helper()
	a, err := p11.ParseTemplate(text)
	if err != nil {
		r.Fatal(err)
	}
	a, err = r.tok.(tokens.KeyGenerator).GenerateKey(r.Context(), p11.Mechanism{Type: m}, a)
	if err == nil {
		a, err = r.tok.(tokens.Adopter).Adopt(r.Context(), a)
	}
	if err != nil {
		r.Fatal(err)
	}
	return r.kept(a)
}

// signer makes a key of RSA that signs.
func (r *rig) signer() *tokens.Object {
	r.Helper()
	public, err := p11.ParseTemplate("class=public-key key-type=rsa modulus-bits=1024 verify=true")
	if err != nil {
		r.Fatal(err)
	}
	private, err := p11.ParseTemplate("class=private-key key-type=rsa sign=true")
	if err != nil {
		r.Fatal(err)
	}
	_, private, err = r.tok.(tokens.KeyGenerator).GenerateKeyPair(r.Context(), p11.Mechanism{Type: p11.CKM_RSA_PKCS_KEY_PAIR_GEN}, public, private)
	if err != nil {
		r.Fatal(err)
	}
	return r.kept(private)
}

func (r *rig) kept(a p11.Attributes) *tokens.Object {
	r.Helper()
	a.SetBool(p11.CKA_TOKEN, true)
	a.SetBool(p11.CKA_PRIVATE, false)
	o, err := r.tok.Create(r.Context(), a)
	if err != nil {
		r.Fatal(err)
	}
	return o
}

// A use is one of a key.
type use struct {
	name string
	of   p11.Flags
	m    p11.Mechanism
	key  *tokens.Object
}

func (r *rig) uses() []use {
	r.Helper()
	return []use{
		{"MAC", p11.CKF_SIGN, p11.Mechanism{Type: p11.CKM_SHA256_HMAC}, r.made(p11.CKM_GENERIC_SECRET_KEY_GEN, "key-type=generic-secret value-len=32 sign=true")},
		{"cipher", p11.CKF_ENCRYPT, p11.Mechanism{Type: p11.CKM_AES_CBC, Param: p11.IV(make([]byte, 16))}, r.made(p11.CKM_AES_KEY_GEN, "key-type=aes value-len=32 encrypt=true")},
		{"padded cipher", p11.CKF_ENCRYPT, p11.Mechanism{Type: p11.CKM_AES_CBC_PAD, Param: p11.IV(make([]byte, 16))}, r.made(p11.CKM_AES_KEY_GEN, "key-type=aes value-len=16 encrypt=true")},
		{"signature", p11.CKF_SIGN, p11.Mechanism{Type: p11.CKM_SHA256_RSA_PKCS}, r.signer()},
	}
}

// parts are how many parts a use has, of so many bytes that the card gets some of each.
const parts, partSize = 3, 256

// run is a whole use. at is called before each part and before the end.
func (r *rig) run(u use, at func(i int)) ([]byte, error) {
	r.Helper()
	key, err := r.tok.ByHandle(u.key.Handle)
	if err != nil {
		return nil, err
	}
	op, err := r.tok.Begin(r.Context(), u.of, u.m, key)
	if err != nil {
		return nil, err
	}
	defer op.Close()
	var out []byte
	for i := range parts {
		at(i)
		x, err := op.Update(r.Context(), bytes.Repeat([]byte{byte(i)}, partSize))
		if err != nil {
			return nil, err
		}
		out = append(out, x...)
	}
	at(parts)
	x, err := op.Final(r.Context(), nil)
	return append(out, x...), err
}

// all runs each use, which must give what it gave before.
func (r *rig) all(what string, list []use, want [][]byte) {
	r.Helper()
	for i, u := range list {
		if got, err := r.run(u, func(int) {}); err != nil || !bytes.Equal(got, want[i]) {
			r.Errorf("%s, %s: %x, %v", what, u.name, got, err)
		}
	}
}

func (r *rig) usesAndResults() (list []use, want [][]byte) {
	r.Helper()
	list = r.uses()
	for _, u := range list {
		got, err := r.run(u, func(int) {})
		if err != nil {
			r.Fatalf("%s: %v", u.name, err)
		}
		want = append(want, got)
	}
	return list, want
}

// operations ends the cards at each moment of operations: before the first part, between the
// parts, and before the end. Where they stay away the operation fails, and where they come
// back in time it goes on, as cards keep nothing of it.
func operations(t *testing.T, bed Bed) {
	r := newRig(t, bed)
	list, want := r.usesAndResults()
	for i, u := range list {
		for cut := range parts + 1 {
			got, err := r.run(u, func(at int) {
				if at == cut {
					r.cards.Kill()
				}
			})
			// A cipher that has had all may need no card any more.
			if cut < parts || err != nil || !bytes.Equal(got, want[i]) {
				r.wantGone(u.name, err)
			}
			r.again()
			got, err = r.run(u, func(at int) {
				if at == cut {
					r.cards.Kill()
					r.cards.Again()
				}
			})
			if err != nil || !bytes.Equal(got, want[i]) {
				r.Errorf("%s, the cards come back before part %d: %x, %v", u.name, cut, got, err)
			}
		}
	}
}

// bringing ends the cards before each call of those that bring a key in. None is left half in.
func bringing(t *testing.T, bed Bed) {
	r := newRig(t, bed)
	value := bytes.Repeat([]byte{7}, 32)
	bring := func() (p11.Attributes, error) {
		a, err := p11.ParseTemplate("class=secret-key key-type=generic-secret sign=true")
		if err != nil {
			r.Fatal(err)
		}
		given := bytes.Clone(value)
		a.Set(p11.CKA_VALUE, given)
		a, err = r.tok.(tokens.Adopter).Adopt(r.Context(), a)
		if !bytes.Equal(given, make([]byte, len(given))) {
			r.Errorf("the value is left in memory (%v)", err)
		}
		return a, err
	}
	if err := r.tok.GenerateRandom(r.Context(), make([]byte, 8)); err != nil { // which has the token know the cards
		r.Fatal(err)
	}
	const most = 20
	killed := 0
	for {
		r.via.at(killed+1, r.cards.Kill)
		a, err := bring()
		if r.via.waits() {
			r.via.at(0, nil)
			if err != nil {
				r.Fatal(err)
			}
			r.check(a, value)
			break
		}
		r.wantGone("at import", err)
		if killed++; killed == most {
			r.Fatalf("a key comes in by more than %d calls", most)
		}
		r.again()
	}
	if killed < 2 {
		r.Errorf("a key came in by %d calls", killed)
	}
}

// check makes a MAC with a key whose value is known.
func (r *rig) check(a p11.Attributes, value []byte) {
	r.Helper()
	o := tokens.NewObject(tokens.NewHandle(), "", a)
	defer o.Drop()
	op, err := r.tok.Begin(r.Context(), p11.CKF_SIGN, p11.Mechanism{Type: p11.CKM_SHA256_HMAC}, o)
	if err != nil {
		r.Fatal(err)
	}
	defer op.Close()
	if _, err := op.Update(r.Context(), []byte("message")); err != nil {
		r.Fatal(err)
	}
	got, err := op.Final(r.Context(), nil)
	h := hmac.New(sha256.New, value)
	h.Write([]byte("message"))
	if err != nil || !bytes.Equal(got, h.Sum(nil)) {
		r.Errorf("the key that was brought in gives %x, %v", got, err)
	}
}

// beside is how many keys have one under the next master key beside them.
func (r *rig) beside() (n int) {
	r.Helper()
	list, err := r.tok.Find(r.Context(), nil, true)
	if err != nil {
		r.Fatal(err)
	}
	for _, o := range list {
		a, err := o.Acquire()
		if err != nil {
			r.Fatal(err)
		}
		if a.Has(p11.CKA_IBM_OPAQUE_REENC) {
			n++
		}
		o.Release()
	}
	return n
}

// reencipher ends the cards after each object of a change of the master keys, which then is
// cancelled, or taken up again, and at its end. The keys are good at each moment.
func reencipher(t *testing.T, bed Bed) {
	r := newRig(t, bed)
	list, want := r.usesAndResults()
	change := r.tok.(tokens.Reencipherer)
	steps := func(names ...string) {
		r.Helper()
		for _, s := range names {
			bed.change(t, r.cards.Dir, s)
		}
	}
	// cut is a run after n objects of which the cards are there no more.
	cut := func(run func(context.Context, func(int, int)) (int, error), n int) (int, error) {
		return run(r.Context(), func(done, _ int) {
			if done == n {
				r.cards.Kill()
			}
		})
	}
	steps(soft.ChangeNew, soft.ChangeCommit)
	for n := range len(list) + 1 {
		for _, cancelled := range []bool{true, false} {
			_, err := cut(change.Reencipher, n)
			if n < len(list) {
				r.wantGone("re-enciphering", err)
			} else if err != nil {
				r.Errorf("at the end: %v", err)
			}
			if got := r.beside(); got != n {
				r.Errorf("cut off after %d objects, %d have a next key", n, got)
			}
			if cancelled { // which takes no card
				if got, err := change.CancelReencipher(r.Context(), nil); got != n || err != nil || r.beside() != 0 {
					r.Errorf("cancelled after %d objects: %d, %v", n, got, err)
				}
			}
			r.again()
			r.all("cut off", list, want)
		}
		if got, err := change.Reencipher(r.Context(), nil); got != len(list)-n || err != nil {
			r.Errorf("resumed after %d objects: %d, %v", n, got, err)
		}
		r.all("resumed", list, want)
		if got, err := change.CancelReencipher(r.Context(), nil); got != len(list) || err != nil {
			r.Errorf("cancelled: %d, %v", got, err)
		}
	}
	if got, err := change.Reencipher(r.Context(), nil); got != len(list) || err != nil {
		r.Fatalf("%d, %v", got, err)
	}
	steps(soft.ChangeActivate)
	r.all("activated", list, want)
	finalised := 0
	for n := range len(list) + 1 {
		got, err := cut(change.FinalizeReencipher, n)
		if err != nil { // where the cards are asked of each key
			r.wantGone("finalising", err)
		}
		finalised += got
		r.again()
		r.all("finalised in part", list, want)
	}
	if finalised != len(list) || r.beside() != 0 {
		r.Errorf("finalised are %d keys of %d", finalised, len(list))
	}
}
