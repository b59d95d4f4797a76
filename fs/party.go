package fs

import (
	"slices"
	"strconv"
	"strings"
)

// A party is a process by its ancestors, the eldest first, and itself. Who is which tells
// whose result one of several scripts in a session is to get: that of its own.
type party []string

// party returns who the caller is.
func (cs *callers) party(c caller) party {
	if cs.system.stat == nil {
		return nil
	}
	var p party
	tid, sid := int(c.pid), cs.sessionOf(c)
	for pid := cs.process(c); pid > 0 && len(p) < maxAncestors; {
		f := cs.system.stat(pid)
		if len(f) <= statStart {
			break
		}
		p = append(p, strconv.Itoa(pid)+" "+f[statStart])
		if pid == sid {
			break
		}
		pid, _ = strconv.Atoi(f[statParent])
	}
	slices.Reverse(p)
	if cs.process(c) != tid {
		p = append(p, strconv.Itoa(tid))
	}
	return p
}

// maxAncestors is how far back a party is known.
const maxAncestors = 64

// common returns how many ancestors two parties have in common.
func (p party) common(q party) int {
	for i := range p {
		if i == len(q) || p[i] != q[i] {
			return i
		}
	}
	return len(p)
}

// pid is the number of the process, or of its thread.
func (p party) pid() int {
	if len(p) == 0 {
		return 0
	}
	number, _, _ := strings.Cut(p[len(p)-1], " ")
	pid, _ := strconv.Atoi(number)
	return pid
}

// processes is the party without the thread.
func (p party) processes() party {
	if n := len(p); n > 0 && !strings.Contains(p[n-1], " ") {
		return p[:n-1]
	}
	return p
}

// near reports whether both do one thing after the other in one script: they are
// children of one process, or one is the other's.
func (p party) near(q party) bool { return p.common(q) >= max(len(p), len(q))-1 }

// An overtaken is a writer of a file whose result nobody read, since another open came.
// It is kept until its reader would have gone too, for that is not to get the result of
// another.
type overtaken struct {
	path string
	by   party
	// overlapped is the generation that came while this one was at work: then even one
	// script cannot know whose result it reads. It is 0 if there is none, and where a signal
	// was ending the writer or it was closed without a write.
	overlapped uint64
}

// maxOvertaken bounds the writers that a session keeps in mind; the oldest go first.
const maxOvertaken = 512

// overtake keeps in mind one who could not begin to write.
func (s *session) overtake(path string, by party) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.overtakeLocked(path, by, 0)
}

func (s *session) overtakeLocked(path string, by party, overlapped uint64) {
	s.overtaken = slices.DeleteFunc(s.overtaken, func(o overtaken) bool { return o.path == path && slices.Equal(o.by, by) })
	if len(s.overtaken) >= maxOvertaken {
		s.overtaken = s.overtaken[1:]
	}
	s.overtaken = append(s.overtaken, overtaken{path, by, overlapped})
}

// isForLocked reports whether a result is what the reader looks for: no other writer is
// nearer to the reader. Where two are as near, neither is if they were at work at once,
// or if both were started for the write alone, as make starts a shell for each line: the
// terminal's shell does so for one thing after the other.
func (s *session) isForLocked(path string, r *result, reader party) bool {
	own := reader.common(r.by)
	for _, o := range s.overtaken {
		if o.path != path || slices.Equal(o.by, r.by) {
			continue
		}
		other := reader.common(o.by)
		theirs, its := o.by.processes(), r.by.processes() // which thread opens the file is chance
		asFar := own > 1 && !theirs.near(its) && len(theirs)-other <= len(its)-own
		if other > own || other == own && (o.overlapped == r.generation || asFar) {
			return false
		}
	}
	return true
}
