package fs

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"p11fs/engine"
	"p11fs/locks"
	"p11fs/p11"
)

// whoText is a line for each application that has sessions: the caller's own uid's, and to
// root and the owner of the tree everybody's. A caller in another PID namespace sees none.
func (p place) whoText(_ context.Context, c caller) ([]byte, error) {
	var b bytes.Buffer
	holders := lockHolders{}
	for _, w := range p.fs.config.Engine.Who() {
		if c.pid == 0 || w.Owner.UID != c.uid && !p.owns(c.uid) {
			continue
		}
		fmt.Fprintf(&b, "%d uid=%d pid=%d command=%q door=%s since=%s sessions=%d operations=%d",
			w.Number, w.Owner.UID, w.Owner.PID, w.Owner.Command, w.Owner.Door, w.Since.UTC().Format(time.RFC3339), w.Sessions, w.Operations)
		if w.Owner.Unit != "" {
			fmt.Fprintf(&b, " unit=%q", w.Owner.Unit)
		}
		fmt.Fprintf(&b, " calls=%d errors=%d seconds=%.6f", w.Calls, w.Errors, w.Took.Seconds())
		if d := w.Busy; d != nil {
			fmt.Fprintf(&b, " busy=%q", fmt.Sprintf("%s:%s:%s:%.6f", d.Token, d.Does, d.Mechanism.Short(), time.Since(d.Since).Seconds()))
		}
		if l := w.Lock; l != nil {
			token := strings.TrimPrefix(filepath.Base(l.Path), "LCK..")
			fmt.Fprintf(&b, " lock=%q", fmt.Sprintf("%s:%.6f:%d", token, time.Since(l.Since).Seconds(), holders.of(l.Path)))
		}
		if w.Waits != (engine.Waits{}) {
			fmt.Fprintf(&b, " waits=processor:%d,long:%d", w.Waits.Processor, w.Waits.Long)
		}
		for _, l := range w.Logins {
			user := "user"
			if l.User == p11.CKU_SO {
				user = "so"
			}
			fmt.Fprintf(&b, " login=%q", l.Token+":"+user+":"+l.Since.UTC().Format(time.RFC3339))
		}
		b.WriteByte('\n')
	}
	return b.Bytes(), nil
}

// lockHolders are the processes that have the locks of files, 0 where that is not told. The kernel's
// list is as long as anybody likes, and very many may wait for one lock: it is read once.
type lockHolders map[string]int

func (h lockHolders) of(path string) int {
	pid, ok := h[path]
	if !ok {
		pid, _ = locks.Holder("/proc", path)
		h[path] = pid
	}
	return pid
}

// kick closes the sessions of an application, by its number in who.
func (p place) kick(_ context.Context, a *application, line []byte) error {
	word := strings.TrimSpace(string(line))
	number, err := strconv.ParseUint(word, 10, 64)
	if err != nil {
		return p11.Errorf(p11.CKR_ARGUMENTS_BAD, "%q is no number: write one that the file who has", clean(word))
	}
	mine := func(o engine.Owner) bool { return o.UID == a.owner.uid || p.owns(a.owner.uid) }
	if !p.fs.config.Engine.Kick(number, mine) {
		return refuse(syscall.ESRCH, p11.CKR_ARGUMENTS_BAD, "who has no application of that number, or it is another user's: read the file who")
	}
	p.fs.config.Log.Info("sessions closed by kick", "application", number, "uid", a.owner.uid, "pid", a.owner.sid)
	return nil
}
