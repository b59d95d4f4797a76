package fleet

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/fleet/etcdtest"
	"p11fs/tokens/swtok"
)

// Each certificate that keeps a machine from etcd is named, with what to do, by who opens the
// token and by one that has it.
func TestWrongCertificates(t *testing.T) {
	k := newKeepers(t)
	s := k.open("/a/")
	ready(t, s.Store)
	t.Run("opened", func(t *testing.T) { testOpened(t, k) })
	t.Run("a member's that has ended", func(t *testing.T) {
		until := func(at time.Time) { k.cluster.Pair("m0", at) } // which etcd reads for each connection
		until(time.Now().Add(-time.Minute))
		k.cluster.Kill(0)
		k.cluster.Restart(0)
		eventually(t, "the reason", func() bool { return s.Offline() != nil && strings.Contains(s.Offline().Error(), "has ended at") })
		if err := s.Offline(); !strings.HasPrefix(err.Error(), "no contact with the fleet since 2") || !strings.Contains(p11.AdviceOf(err), "--cert-file") {
			t.Errorf("%v (%s)", err, p11.AdviceOf(err))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 6*time.Second)
		defer cancel()
		if m := s.Fleet(ctx).Members[0]; !strings.Contains(m.Wrong, "has ended at") || !strings.Contains(m.Mend, "--cert-file") {
			t.Errorf("%+v", m)
		}
		until(time.Now().Add(time.Hour))
		eventually(t, "contact", func() bool { return s.Offline() == nil })
	})
}

// testOpened opens tokens whose configuration names other certificates than it should.
func testOpened(t *testing.T, k keepers) {
	other := etcdtest.NewAuthority(t, t.TempDir())
	strange := other.Pair(t, "strange", time.Now().Add(time.Hour))
	for _, test := range []struct {
		name, from, to string // in the configuration
		says, mend     string
	}{
		{"another authority", "ca = \"" + k.cluster.CA(), "ca = \"" + other.CA(), "is signed by another authority than that in " + other.CA(), "see who answers"},
		{"a name", "https://127.0.0.1:", "https://localhost:", "is of another name", "as the certificate has it"},
		{"a certificate that etcd does not know", "", "", "does not take the certificate " + strange.Cert, "--trusted-ca-file"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			p := k.place("/a/")
			text := string(must[[]byte](t)(os.ReadFile(p.Config)))
			if test.from == "" {
				text = replaceLine(replaceLine(text, "cert", strange.Cert), "key", strange.Key)
			} else {
				text = strings.ReplaceAll(text, test.from, test.to)
			}
			noError(t, os.WriteFile(p.Config, []byte(text), 0o600))
			_, err := NewKind(swtok.GoProvider(), iterations).Open(t.Context(), p)
			if !errors.Is(err, tokens.ErrAway) || p11.RVOf(err) != p11.CKR_DEVICE_ERROR || !strings.Contains(err.Error(), test.says) || !strings.Contains(p11.AdviceOf(err), test.mend) {
				t.Errorf("%v (%s)", err, p11.AdviceOf(err))
			}
		})
	}
}

// replaceLine gives a line of a configuration another value.
func replaceLine(text, name, value string) string {
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, name+" = ") {
			lines[i] = name + " = \"" + value + "\""
		}
	}
	return strings.Join(lines, "\n")
}
