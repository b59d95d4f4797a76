package fs

import "context"

// A gate lets one request at a time use a handle. Waiting for it can be
// interrupted.
type gate chan struct{}

func newGate() gate { return make(gate, 1) }

// enter says whether the caller is in, and must leave.
func (g gate) enter(ctx context.Context) bool {
	select {
	case g <- struct{}{}:
		if ctx.Err() == nil {
			return true
		}
		<-g
		return false
	default:
	}
	select {
	case g <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// force waits as long as it takes.
func (g gate) force() { g <- struct{}{} }

func (g gate) leave() { <-g }
