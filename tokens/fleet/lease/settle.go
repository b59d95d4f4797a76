package lease

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"p11fs/p11"
)

// pollTime is how often the records are read while none is told to have changed.
const pollTime = 250 * time.Millisecond

// Settle waits until each other host has in memory what was changed up to a revision, or has
// lost its lease. It waits on when ctx is cancelled, since the change is made; an error is that
// of a change that is made, and that some host may not know of.
func (h *Host) Settle(ctx context.Context, rev int64) error {
	bound := 2*h.cfg.TTL + 2*answerTime
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), bound)
	defer cancel()
	var hosts []Info
	var err error
	for asked := false; ; {
		h.mu.Lock()
		changed := h.changed
		h.mu.Unlock()
		one, stop := context.WithTimeout(ctx, answerTime) // another member may answer
		if asked {
			hosts, err = h.Hosts(one)
		} else if hosts, err = h.ask(one, rev); err == nil {
			asked = true
		}
		stop()
		if err == nil {
			if hosts = h.behind(hosts, rev); len(hosts) == 0 {
				return nil
			}
		}
		select {
		case <-changed:
		case <-time.After(pollTime):
		case <-ctx.Done():
			return h.unsettled(hosts, err, bound)
		}
	}
}

// behind are the hosts that have not acknowledged a revision, and have been there before it.
func (h *Host) behind(hosts []Info, rev int64) []Info {
	h.mu.Lock()
	own := h.key
	h.mu.Unlock()
	return slices.DeleteFunc(hosts, func(i Info) bool {
		return i.Acked >= rev || i.Created > rev || h.hosts()+i.ID == own
	})
}

// unsettled is the error of a change that is made, and not known everywhere.
func (h *Host) unsettled(hosts []Info, err error, bound time.Duration) error {
	if err != nil {
		return advise(err, p11.Advise(p11.Errorf(p11.CKR_DEVICE_ERROR, "the change is made, but it is not known whether the other hosts of the fleet have heard of it: %w", plain(err)),
			"see that most members of etcd run and that this machine reaches one: then all hear of it"))
	}
	var names []string
	for _, i := range hosts {
		names = append(names, fmt.Sprintf("%s (%s)", i.Name, i.ID))
	}
	return p11.Advise(p11.Errorf(p11.CKR_DEVICE_ERROR, "the change is made, but %s has not acknowledged it in %v and still holds a lease", strings.Join(names, ", "), bound),
		"stop p11fs there")
}
