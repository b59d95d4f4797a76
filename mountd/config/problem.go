package config

import (
	"errors"
	"fmt"
)

// ErrTokenName is in the error of Parse when two slots have one tokname.
var ErrTokenName = errors.New("tokname used twice")

// A Problem is a mistake in a configuration file.
type Problem struct {
	File   string
	Line   int // from 1; 0 when it is about the file as a whole
	Reason string
	kind   error // what errors.Is finds, or nil
}

// Error is "file:line: reason".
func (p *Problem) Error() string {
	if p.Line == 0 {
		return fmt.Sprintf("%s: %s", p.File, p.Reason)
	}
	return fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.Reason)
}

// Unwrap is the kind of the problem, if callers tell it from others.
func (p *Problem) Unwrap() error { return p.kind }

// problems collects what is wrong with one file.
type problems struct {
	file string
	list []*Problem
}

func (ps *problems) add(line int, format string, args ...any) {
	ps.list = append(ps.list, &Problem{File: ps.file, Line: line, Reason: fmt.Sprintf(format, args...)})
}
