package desk

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"p11fs/p11"
)

// A Link is one open connection to a TPM.
type Link interface {
	// Exchange sends a command and returns the response, which has a whole header. After
	// an error the link is of no more use.
	Exchange(command []byte, patience time.Duration) ([]byte, error)
	// Close ends the connection.
	Close()
}

// ErrSilent says that a TPM does not answer in time; so does os.ErrDeadlineExceeded.
var ErrSilent = errors.New("the TPM does not answer")

// Rest is how long a TPM is kept while nobody uses it, and how often one is looked for that
// is away.
const Rest = time.Second

// A Line is the connection of a worker to its TPM, which may break, and come again. But for
// Offline it belongs to the worker's goroutine.
type Line struct {
	Device Device
	// Greet is called over each new link. What it cannot do ends the link.
	Greet func() error
	// Lost is told that the link is gone, and with it whatever the TPM had of ours.
	Lost func()
	// Give gives up what the TPM has of ours, since others will use it.
	Give func()
	// Stale says whether an error means that the TPM has forgotten what it had of ours.
	Stale func(error) bool

	link     Link  // nil: not connected
	answered int   // responses in this job
	broken   error // why the link was given up in this job
	silent   bool  // since the TPM did not answer in time
	failure  error // the last reason of that
	failed   time.Time

	mu      sync.Mutex // guards offline
	offline error
}

// Offline returns nil, or why the TPM could not be used when that was last tried.
func (l *Line) Offline() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.offline
}

func (l *Line) setOffline(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.offline = err
}

// Connected says whether there is a link.
func (l *Line) Connected() bool { return l.link != nil }

// Use puts a link in the place of the one that there is, which it returns.
func (l *Line) Use(link Link) (was Link) {
	was, l.link = l.link, link
	return was
}

// Exchange is a command on the link.
func (l *Line) Exchange(command []byte, patience time.Duration) ([]byte, error) {
	if l.link == nil {
		return nil, l.failure
	}
	response, err := l.link.Exchange(command, patience)
	if err != nil {
		return nil, l.Drop(err)
	}
	l.answered++
	return response, nil
}

// connect opens the TPM unless it is open.
func (l *Line) connect(ctx context.Context) error {
	if l.link != nil {
		return nil
	}
	link, err := l.Device.open(ctx)
	switch {
	case ctx.Err() != nil:
		if err == nil {
			link.Close()
		}
		return ctx.Err()
	case err != nil:
		return l.Drop(err)
	}
	l.link = link
	// A software TPM accepts who has to wait for another.
	if err = l.Greet(); err != nil && l.link != nil {
		l.hangUp()
		l.setOffline(err)
	}
	if err == nil {
		l.setOffline(nil)
	}
	return err
}

func (l *Line) hangUp() {
	if l.link != nil {
		l.link.Close()
		l.link = nil
	}
}

// Drop gives up the link, and returns the error that says so.
func (l *Line) Drop(why error) error {
	l.hangUp()
	l.Lost()
	l.silent = errors.Is(why, os.ErrDeadlineExceeded) || errors.Is(why, ErrSilent)
	mend, why := l.Device.advised(why)
	l.failure = p11.Errorf(p11.CKR_DEVICE_REMOVED, "the TPM %s does not answer: %w", l.Device, why)
	if mend != "" {
		l.failure = p11.Advise(l.failure, mend)
	}
	l.broken, l.failed = l.failure, time.Now()
	l.setOffline(l.failure)
	return l.failure
}

// Run is Worker's. If the job finds that the TPM, or the program that is one, has started
// again since the last one, or that somebody has flushed what we had, it is done once more.
func (l *Line) Run(ctx context.Context, since time.Time, job func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if l.failed.After(since) {
		// Who waited while the TPM was found silent does not find it so again.
		return l.failure
	}
	var err error
	for try := range 2 {
		fresh := l.link == nil
		l.answered, l.broken = 0, nil
		if err = l.connect(ctx); err == nil {
			err = job()
		}
		stale := l.broken != nil && l.answered == 0 && !l.silent || l.broken == nil && err != nil && l.Stale(err)
		if err == nil || fresh || try > 0 || !stale {
			break
		}
		if l.link != nil {
			l.Give()
		}
	}
	return err
}

// Patience is Worker's.
func (l *Line) Patience() time.Duration {
	if l.link == nil && l.Offline() == nil {
		return 0
	}
	return Rest
}

// Idle is Worker's.
func (l *Line) Idle() {
	if l.link != nil {
		l.Leave()
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), dialTime)
	defer cancel()
	_ = l.connect(ctx) // it says itself what comes of it
}

// Leave is Worker's.
func (l *Line) Leave() {
	if l.link != nil {
		l.Give()
	}
	l.hangUp()
}
