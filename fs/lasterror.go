package fs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"p11fs/p11"
)

// A lastError is what the file error shows: how the last operation ended.
type lastError struct {
	rv     p11.RV
	why    string
	advice string // what to do; empty where why ends in it, in terms of files
	// harmless is set for answers that programs get without anything being wrong.
	harmless bool
	path     string // of what it is about
	at       time.Time
}

// errorOf is what the file error has to say of err.
func errorOf(err error) lastError {
	e := lastError{rv: p11.RVOf(err), why: err.Error(), advice: p11.AdviceOf(err), harmless: errors.Is(err, errNothing)}
	var own *fileError
	if errors.As(err, &own) && strings.Contains(own.why, ": ") && e.advice == p11.AdviceOf(own) {
		e.advice = ""
	}
	return e
}

// text is the line that the file error shows.
func (e lastError) text() []byte {
	if e.rv == p11.CKR_OK {
		return []byte("0x00000000 CKR_OK\n")
	}
	why := clean(e.why)
	switch {
	case e.advice == "":
	case e.why == e.rv.String():
		why = e.advice
	default:
		why += ": " + e.advice
	}
	return fmt.Appendf(nil, "%#08x %s: %s\n", uint64(e.rv), e.rv, why)
}

// clean keeps a text on one line of printable characters.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}

// An errorFile keeps the last error of an application or a session.
type errorFile struct {
	mu    sync.Mutex // guards the others
	last  lastError
	since lastError // a harmless answer that came after last, and does not replace it
}

// errorStays is how long a harmless answer does not replace an error.
const errorStays = 5 * time.Second

// put keeps e. That there is no result to be read says nothing to who just read why.
func (f *errorFile) put(e lastError) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if e.harmless && !f.last.harmless && f.last.rv != p11.CKR_OK && e.at.Sub(f.last.at) < errorStays {
		if e.path != f.last.path {
			f.since = e
		}
		return
	}
	f.last, f.since = e, lastError{}
}

func (f *errorFile) text() []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	text := f.last.text()
	if f.since.rv != p11.CKR_OK {
		text = fmt.Appendf(nil, "%s; since then %s", bytes.TrimSuffix(text, []byte("\n")), f.since.text())
	}
	return text
}

// errorText is the file error.
func (p place) errorText(_ context.Context, c caller) ([]byte, error) {
	if p.fs.callers.sessionOf(c) == 0 {
		return errorOf(errNobody).text(), nil
	}
	if _, err := p.viewer(c); err != nil {
		return nil, err
	}
	a := p.fs.callers.find(c)
	switch {
	case a != nil:
		return p.errorFile(a).text(), nil
	case p.fs.callers.leaderless(c):
		return errorOf(errNobody).text(), nil
	}
	return lastError{}.text(), nil
}
