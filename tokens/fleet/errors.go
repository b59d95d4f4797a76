package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/fleet/lease"
)

// errAbsent is wrapped where there is no token below the prefix.
var errAbsent = errors.New("there is no record")

func (s *Store) absent() error {
	return p11.Advise(p11.Errorf(p11.CKR_TOKEN_NOT_RECOGNIZED, "etcd has no token at %s: %w", s.cfg.Prefix, errAbsent),
		"compare the prefix with that of a machine that works; if somebody removed it, put etcd back from a snapshot")
}

// silence is the error of what has not come in time, and why as far as is known.
func (s *Store) silence(lost error) error {
	why := errors.New("its answers come late")
	return p11.Advise(p11.Errorf(p11.CKR_DEVICE_ERROR, "what other machines have changed does not come from etcd: %v", cmp.Or(lost, why)),
		"see whether etcd has a majority: etcdctl endpoint status --cluster; the token comes back by itself")
}

// final reports whether an error of loading the token stays.
func final(err error) bool { return p11.RVOf(err) == p11.CKR_TOKEN_NOT_RECOGNIZED || refused(err) }

// refused reports whether etcd has said no, so that it says the same again.
func refused(err error) bool {
	return lease.Says(err, rpctypes.ErrNoSpace, rpctypes.ErrRequestTooLarge, rpctypes.ErrTooManyOps, rpctypes.ErrPermissionDenied, rpctypes.ErrUserEmpty, rpctypes.ErrAuthFailed)
}

// trouble is an error of etcd as that of a token: what was to be done, and what to do now.
// It leaves alone what is no error of etcd.
func (s *Store) trouble(what string, err error) error {
	var rv p11.RV
	if err == nil || errors.Is(err, errLost) || errors.Is(err, errEarlier) || errors.As(err, &rv) {
		return err
	}
	rv, advice := advise(&err, s.cfg.Prefix)
	return p11.Advise(p11.Errorf(rv, "etcd did not %s: %w", what, err), advice)
}

// advise says what to do about an error of etcd, and what it is in PKCS#11.
func advise(err *error, prefix string) (rv p11.RV, advice string) {
	rv, advice = p11.CKR_DEVICE_ERROR, "see whether etcd has a majority: etcdctl endpoint status --cluster; the token comes back by itself"
	switch text := (*err).Error(); {
	case lease.Full(*err):
		rv, advice = p11.CKR_DEVICE_MEMORY, "etcd is full: "+lease.FullAdvice
	case lease.Says(*err, rpctypes.ErrRequestTooLarge, rpctypes.ErrTooManyOps):
		rv, advice = p11.CKR_DEVICE_MEMORY, "it is too large for etcd: make less at once, or start etcd with a larger --max-request-bytes"
	case lease.Says(*err, rpctypes.ErrPermissionDenied, rpctypes.ErrUserEmpty, rpctypes.ErrAuthFailed):
		advice = "give the user of this certificate the role to read and write the prefix: etcdctl role grant-permission ROLE readwrite --prefix " + prefix
	case strings.Contains(text, "certificate has expired"), strings.Contains(text, "expired certificate"):
		advice = "a certificate has expired: make a new one for this machine, or for etcd, and put it in the place of the old one; p11fs need not be restarted"
	case strings.Contains(text, "certificate"), strings.Contains(text, "x509:"):
		advice = "compare cert, key and ca of the token's configuration with those that etcd was started with"
	case errors.Is(*err, context.Canceled):
		rv, advice = p11.CKR_FUNCTION_CANCELED, "try again"
	case errors.Is(*err, context.DeadlineExceeded):
		*err = lease.ErrSlow // which nobody takes for an interrupt
	}
	return rv, advice
}

// ailing says what is wrong with a member that gives an error, and what to do.
func (s *Store) ailing(err error) (wrong, mend string) {
	_, mend = advise(&err, s.cfg.Prefix)
	return "it does not answer: " + err.Error(), mend
}

// maxTold bounds the damaged objects that are told one by one.
const maxTold = 1000

// Damaged is tokens.Inspector.
func (s *Store) Damaged() (all []tokens.Damage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wrong != "" {
		all = append(all, tokens.Damage{File: "token", Why: s.wrong})
	}
	without := 0
	for n, o := range s.objects {
		switch {
		case errors.Is(o.bad, errNoRoom):
			without++
		case o.bad != nil && len(all) < maxTold:
			all = append(all, tokens.Damage{File: "o/" + n.String(), Why: o.bad.Error()})
		}
	}
	if s.cut && without == 0 {
		all = append(all, tokens.Damage{File: "o", Why: "there are more keys than there is room for: " + tokens.RoomAdvice})
	}
	if without > 0 {
		all = append(all, tokens.Damage{File: "o", Why: fmt.Sprintf("%d objects are not loaded, since all objects have %d MiB: "+tokens.RoomAdvice, without, s.cfg.Room>>20)})
	}
	if s.foreign > 0 {
		all = append(all, tokens.Damage{File: "o", Why: fmt.Sprintf("%d more keys are no objects of the fleet: somebody else has written them", s.foreign)})
	}
	slices.SortFunc(all, func(a, b tokens.Damage) int { return cmp.Compare(a.File, b.File) })
	return all
}
