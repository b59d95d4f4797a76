package main

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// A reading is what the daemon tells at one time, in the files who and metrics.
type reading struct {
	at      time.Time
	who     []presence
	numbers map[string]float64 // those of metrics that have no labels
	calls   map[tokenCalls]callNumbers
}

// tokenCalls is what calls of a token are counted by.
type tokenCalls struct {
	Token     string `json:"token"`
	Mechanism string `json:"mechanism"`
	Door      string `json:"door"`
}

// callNumbers are such calls since the daemon began.
type callNumbers struct {
	count, seconds, errors float64
	within                 []callBucket // shorter times first
}

type callBucket struct{ limit, count float64 }

// The families of metrics that tell of calls, which only root and the owner see.
const (
	callSeconds = "p11fs_token_call_seconds"
	callErrors  = "p11fs_token_call_errors_total"
)

// reading reads the files.
func (t tree) reading(at time.Time) (r reading, err error) {
	if r.who, err = t.who(); err != nil {
		return r, err
	}
	text, err := t.read("metrics")
	if err != nil {
		return r, notMounted(err)
	}
	r.at = at
	r.numbers, r.calls, err = parseMetrics(text)
	return r, err
}

// parseMetrics reads the file metrics.
func parseMetrics(text string) (numbers map[string]float64, calls map[tokenCalls]callNumbers, err error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		return nil, nil, fmt.Errorf("the file metrics is none of this version's: use the daemon's own p11fs: %w", err)
	}
	numbers, calls = map[string]float64{}, map[tokenCalls]callNumbers{}
	for name, family := range families {
		for _, m := range family.GetMetric() {
			var of tokenCalls
			for _, l := range m.GetLabel() {
				switch l.GetName() {
				case "token":
					of.Token = l.GetValue()
				case "mechanism":
					of.Mechanism = l.GetValue()
				case "door":
					of.Door = l.GetValue()
				}
			}
			n := calls[of]
			switch name {
			case callSeconds:
				h := m.GetHistogram()
				n.count, n.seconds = float64(h.GetSampleCount()), h.GetSampleSum()
				for _, b := range h.GetBucket() {
					n.within = append(n.within, callBucket{b.GetUpperBound(), float64(b.GetCumulativeCount())})
				}
				calls[of] = n
			case callErrors:
				n.errors = m.GetCounter().GetValue()
				calls[of] = n
			default:
				if len(m.GetLabel()) == 0 {
					numbers[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue() // it is one of them
				}
			}
		}
	}
	return numbers, calls, nil
}

// A topView is what has changed from one reading to the next.
type topView struct {
	Time     time.Time  `json:"time"`
	Mount    string     `json:"mount"`
	Seconds  float64    `json:"seconds"` // between the readings
	Sessions float64    `json:"sessions"`
	Objects  float64    `json:"session_objects"`
	Programs float64    `json:"programs"` // that are connected at the socket
	Handles  float64    `json:"open_files"`
	Callers  []topCall  `json:"callers"`
	Tokens   []topToken `json:"tokens"`
}

// rates are what calls of a token were like between two readings.
type rates struct {
	Calls   float64 `json:"calls_per_second"`
	Latency float64 `json:"latency_seconds"` // on average; 0 without calls
	Errors  float64 `json:"errors_per_second"`
}

// A topCall is an application.
type topCall struct {
	presence
	rates
}

// A topToken is a mechanism of a token, at one door.
type topToken struct {
	tokenCalls
	rates
	P99 float64 `json:"p99_seconds"` // at most; 0 without calls, or where it is longer than all limits
}

// compare says what has changed. Numbers that have become less are of another daemon, that
// has begun meanwhile.
func compare(before, now reading) topView {
	seconds := now.at.Sub(before.at).Seconds()
	v := topView{
		Time: now.at.UTC(), Seconds: seconds,
		Sessions: now.numbers["p11fs_sessions"], Objects: now.numbers["p11fs_session_objects"],
		Programs: now.numbers["p11fs_rpc_connections"], Handles: now.numbers["p11fs_open_handles"],
		Callers: []topCall{}, Tokens: []topToken{},
	}
	const start = "p11fs_start_time_seconds"
	same := before.numbers[start] == now.numbers[start]
	was := map[uint64]presence{}
	if same {
		for _, p := range before.who {
			was[p.Number] = p
		}
	}
	for _, p := range now.who {
		old, known := was[p.Number]
		since, err := time.Parse(time.RFC3339, p.Since)
		if !known && (err != nil || since.Before(before.at.Truncate(time.Second))) {
			old = p // it had no sessions for a while, and what it did before is long ago
		}
		v.Callers = append(v.Callers, topCall{p, ratesOf(seconds, float64(p.Calls)-float64(old.Calls), p.Took-old.Took, float64(p.Errors)-float64(old.Errors))})
	}
	for of, n := range now.calls {
		var old callNumbers
		if same {
			old = before.calls[of]
		}
		v.Tokens = append(v.Tokens, topToken{of, ratesOf(seconds, n.count-old.count, n.seconds-old.seconds, n.errors-old.errors), percentile(old.within, n.within, 0.99)})
	}
	return v
}

// ratesOf are the rates of calls, their whole time, and their errors.
func ratesOf(seconds, calls, took, errors float64) (r rates) {
	if seconds <= 0 || !(calls > 0) || math.IsInf(calls, 0) {
		return r
	}
	return rates{calls / seconds, max(0, took) / calls, max(0, errors) / seconds}
}

// percentile is the limit that a part of the calls between two readings did not exceed.
func percentile(before, now []callBucket, part float64) float64 {
	more := func(i int) float64 {
		if i < len(before) {
			return now[i].count - before[i].count
		}
		return now[i].count
	}
	if len(now) == 0 || more(len(now)-1) <= 0 {
		return 0
	}
	for i, b := range now {
		if more(i) >= part*more(len(now)-1) {
			if math.IsInf(b.limit, 0) {
				return 0
			}
			return b.limit
		}
	}
	return 0
}
