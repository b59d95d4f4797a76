package fleet

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"p11fs/p11"
	"p11fs/tokens/fleet/etcdtest"
	"p11fs/tokens/swtok"
)

// late is how late a slow member's answers are: so late that a machine whose stream of changes
// comes from there cannot renew its lease, and not so late that the connection counts as dead.
const late = 5 * time.Second

// hostConf writes the configuration of a machine whose links are a host's.
func hostConf(t *testing.T, k keepers, h *etcdtest.Host) string {
	t.Helper()
	p := k.place("/a/").Config
	var text strings.Builder
	for _, line := range strings.SplitAfter(string(must[[]byte](t)(os.ReadFile(p))), "\n") {
		if !strings.HasPrefix(line, "endpoint") {
			text.WriteString(line)
		}
	}
	for _, e := range h.Endpoints() {
		fmt.Fprintf(&text, "endpoint = %s\n", e)
	}
	noError(t, os.WriteFile(p, []byte(strings.Replace(text.String(), "lease = 3s", "lease = 9s", 1)), 0o600))
	return p
}

// A machine of which one member answers late goes on with the others: its changes do not wait for
// that member, nor does who destroys something elsewhere, from whichever member it has its stream of
// changes; and it says which one that is.
func TestSlowMember(t *testing.T) {
	k := keepersOn(t, etcdtest.Start(t, 3))
	other := k.open("/a/")
	ready(t, other.Store)
	type machine struct {
		*token
		slow string // the member of its number
	}
	var all []machine
	for i := range 3 { // one of them has the stream of changes from the slow member
		h := k.cluster.Host(t)
		m := machine{must[*token](t)(openToken(t.Context(), swtok.GoProvider(), place(t, hostConf(t, k, h)), iterations)), must[*url.URL](t)(url.Parse(h.Endpoints()[i])).Host}
		t.Cleanup(func() { _ = m.Close() })
		all = append(all, m)
		h.Slow(i, late)
	}
	for i, m := range all {
		eventually(t, "the slow member is left alone", func() bool {
			begun := time.Now()
			if _, err := m.Create(t.Context(), data("one of many", false)); err != nil {
				t.Log(err) // while it cannot renew its lease
			} else if took := time.Since(begun); took >= late {
				begun = time.Now() // a busy machine takes as long for a change that waits for none
				create(t, other.Store, "to compare", false)
				if without := time.Since(begun); took >= late+without {
					t.Errorf("a change has waited for the slow member: %v, and another one takes %v", took, without)
				}
			}
			return m.client.Late(m.slow) != nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), etcdtest.Patience)
		members := m.Fleet(ctx).Members
		cancel()
		for j, member := range members {
			if slow := strings.Contains(member.Wrong, "it answered more than 300ms"); slow != (j == i) || slow && !strings.Contains(member.Mend, "the disk and the network") {
				t.Errorf("of member %d: %+v", j, member)
			}
		}
	}
	for _, m := range all {
		eventually(t, "contact", func() bool { return m.Offline() == nil })
	}
	for _, m := range all {
		made := create(t, other.Store, "gone", false)
		noError(t, other.Destroy(t.Context(), made.Handle, func(p11.Attributes) error { return nil }))
		noError(t, m.Sync(t.Context()))
		if m.Index.ByName(made.Name) != nil {
			t.Error("what was destroyed is there")
		}
	}
}
