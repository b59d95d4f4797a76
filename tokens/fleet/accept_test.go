package fleet

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
	"p11fs/tokens/swtok"
	"p11fs/tokens/tokentest"
)

// accept has what is in etcd be the token, and returns what was shown before.
func (k keepers) accept(prefix, pin string) (shown string, err error) {
	err = k.upkeep(prefix).Accept(k.t.Context(), func(found []string) (*secret.Bytes, error) {
		shown = strings.Join(found, "\n")
		if pin == "" {
			return nil, errors.New("no PIN was given")
		}
		return secret.New([]byte(pin))
	})
	return shown, err
}

// Who has the SO PIN goes on with what a stranger has left in etcd, also on machines that have
// seen it otherwise: they do not before.
func TestAccept(t *testing.T) {
	k := newKeepers(t)
	s := k.open("/a/")
	ready(t, s.Store)
	str := stranger{t, k.cluster.Client(t)}
	record := str.get(s.recordKey())
	one, two := create(t, s.Store, "one", false), create(t, s.Store, "two", false)
	create(t, s.Store, "three", false)
	was := str.get(keyOf(s.Store, two))
	_, err := s.Update(t.Context(), two.Handle, func(a p11.Attributes) (p11.Attributes, error) { return a.With(p11.CKA_LABEL, []byte("new")), nil })
	noError(t, err)
	str.put(keyOf(s.Store, two), was)
	_, err = str.c.Delete(t.Context(), keyOf(s.Store, one))
	noError(t, err)
	damaged(t, s.Store, "o/"+two.Stored, "token")

	if _, err := k.accept("/a/", ""); err == nil {
		t.Error("it was accepted without a PIN")
	}
	if _, err := k.accept("/a/", "wrong-pin"); p11.RVOf(err) != p11.CKR_PIN_INCORRECT {
		t.Errorf("with a wrong PIN: %v", err)
	}
	damaged(t, s.Store, "o/"+two.Stored, "token")
	shown, err := k.accept("/a/", soPIN)
	noError(t, err)
	for _, want := range []string{"2 objects; the fleet has written 3", `"two"`, `"three"`, "removed some", "tries left"} {
		if !strings.Contains(shown, want) {
			t.Errorf("%q is not shown:\n%s", want, shown)
		}
	}
	damaged(t, s.Store)
	want(t, s.Store, "two", "three")
	create(t, s.Store, "goes on", false)

	// All of the token is put back.
	str.put(s.recordKey(), record)
	eventually(t, "an error of every call", func() bool { return p11.RVOf(s.Refresh(t.Context())) == p11.CKR_DEVICE_ERROR })
	_, err = k.accept("/a/", soPIN)
	noError(t, err)
	eventually(t, "a token that is used again", func() bool { return s.Refresh(t.Context()) == nil })
	create(t, s.Store, "at last", false)
	damaged(t, s.Store)
}

// What is wrong with etcd is told with what to do, while it is, and a token goes on by itself
// after.
func TestFleetIsTold(t *testing.T) {
	k := newKeepers(t)
	k.lease = "20s" // who loses his while etcd is full gets none
	s := k.open("/a/")
	ready(t, s.Store)
	f := s.Fleet(t.Context())
	if f.Contact != nil || f.Lag != 0 || f.Lease <= 0 || len(f.Hosts) != 1 || !f.Hosts[0].Here || len(f.Members) != 1 || !strings.HasPrefix(f.Members[0].State, "leads") {
		t.Errorf("%+v", f)
	}
	t.Run("full", func(t *testing.T) {
		one, two := k.open("/full/"), k.open("/full/")
		gone := create(t, one.Store, "there", false)
		want(t, two.Store, "there")
		k.cluster.Full(t)
		defer k.cluster.Room(t)
		keep := func(p11.Attributes) error { return nil }
		for what, err := range map[string]error{
			"create":  second(one.Create(t.Context(), data("no", false))),
			"destroy": one.Destroy(t.Context(), gone.Handle, keep),
			"login":   second(two.Login(t.Context(), p11.CKU_SO, tokentest.PIN(t, tokens.DefaultSOPIN))),
		} {
			if p11.RVOf(err) != p11.CKR_DEVICE_MEMORY || !strings.Contains(p11.AdviceOf(err), "alarm disarm") {
				t.Errorf("%s: %v (%s)", what, err, p11.AdviceOf(err))
			}
		}
		for _, s := range []*token{one, two} {
			noError(t, s.Offline())
			want(t, s.Store, "there")
		}
		_, err := openToken(t.Context(), swtok.GoProvider(), k.place("/full/"), iterations)
		if p11.RVOf(err) != p11.CKR_DEVICE_ERROR || !strings.Contains(err.Error(), "etcd is full") || !strings.Contains(p11.AdviceOf(err), "alarm disarm") {
			t.Errorf("a machine that joins: %v (%s)", err, p11.AdviceOf(err))
		}
		if m := one.Fleet(t.Context()).Members[0]; m.Wrong != "etcd is full" || !strings.Contains(m.Mend, "alarm disarm") {
			t.Errorf("%+v", m)
		}
		k.cluster.Room(t)
		noError(t, one.Destroy(t.Context(), gone.Handle, keep))
		create(t, two.Store, "there is room", false)
		want(t, one.Store, "there is room")
	})
	t.Run("compacted", func(t *testing.T) {
		c := k.cluster.Client(t)
		create(t, s.Store, "before", false)
		_, err := c.Compact(t.Context(), must[*clientv3.GetResponse](t)(c.Get(t.Context(), "x")).Header.Revision)
		noError(t, err)
		k.cluster.Kill(0)
		k.cluster.Restart(0)
		eventually(t, "contact", func() bool { return s.Refresh(t.Context()) == nil })
		create(t, s.Store, "after", false)
		want(t, s.Store, "before", "after")
	})
}

func second[T any](_ T, err error) error { return err }

// A certificate that has ended is named, and a new one in its place is all that it takes.
func TestCertificateEnds(t *testing.T) {
	k := newKeepers(t)
	s := k.open("/a/")
	ready(t, s.Store)
	good, ended := k.cluster.Pair("good", time.Now().Add(time.Hour)), k.cluster.Pair("ended", time.Now().Add(-time.Minute))
	replace := func(cert, key string) {
		for from, to := range map[string]string{cert: s.conf.Cert, key: s.conf.Key} {
			noError(t, copyFile(from, to))
		}
	}
	replace(ended.Cert, ended.Key)
	k.cluster.Kill(0)
	eventually(t, "no contact", func() bool { return s.Offline() != nil })
	k.cluster.Restart(0)
	eventually(t, "the reason", func() bool { return strings.Contains(s.Offline().Error(), "has ended at") })
	if err := s.Offline(); p11.RVOf(err) != p11.CKR_DEVICE_ERROR || !strings.Contains(p11.AdviceOf(err), "sign another one") {
		t.Errorf("%v (%s)", err, p11.AdviceOf(err))
	}
	if _, err := s.Login(t.Context(), p11.CKU_USER, tokentest.PIN(t, userPIN)); !strings.Contains(p11.AdviceOf(err), "sign another one") {
		t.Errorf("a login: %v (%s)", err, p11.AdviceOf(err))
	}
	replace(good.Cert, good.Key)
	eventually(t, "contact", func() bool { return s.Offline() == nil })
	must[tokens.Login](t)(s.Login(t.Context(), p11.CKU_USER, tokentest.PIN(t, userPIN)))
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o600)
}
