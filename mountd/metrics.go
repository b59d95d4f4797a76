package mountd

import (
	"bytes"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/common/expfmt"
)

// metrics is the daemon's own registry: nothing of the library's default one,
// so that two daemons fit in one process.
type metrics struct{ registry *prometheus.Registry }

// newMetrics registers what is counted. Each is asked for at each collection.
func newMetrics(d *Daemon) (*metrics, error) {
	m := &metrics{registry: prometheus.NewRegistry()}
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "p11fs_info",
		Help:        "Version, cryptographic library and mode, as labels of the value 1.",
		ConstLabels: prometheus.Labels{"version": Version, "provider": d.conf.Provider, "mode": d.conf.Mode.String()},
	})
	info.Set(1)
	all := []prometheus.Collector{
		info, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	}
	for _, g := range d.gauges() {
		all = append(all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: g.name, Help: g.help}, g.value))
	}
	for _, c := range d.counters() {
		all = append(all, prometheus.NewCounterFunc(prometheus.CounterOpts{Name: c.name, Help: c.help}, c.value))
	}
	for _, c := range all {
		if err := m.registry.Register(c); err != nil {
			return nil, fmt.Errorf("metrics: %w", err)
		}
	}
	return m, nil
}

// metric is one number.
type metric struct {
	name, help string
	value      func() float64
}

// gauges are the numbers that go up and down.
func (d *Daemon) gauges() []metric {
	return []metric{
		{"p11fs_start_time_seconds", "When the daemon started, in Unix seconds.",
			func() float64 { return float64(d.started.UnixNano()) / 1e9 }},
		{"p11fs_open_handles", "Open files that hold state.", func() float64 { return float64(d.tree.Stats().Handles) }},
		{"p11fs_callers", "Callers of the mount that have state.", func() float64 { return float64(d.tree.Stats().Applications) }},
		{"p11fs_rpc_connections", "Connections of PKCS#11 programs.", func() float64 { return float64(d.rpcStats().Connections) }},
		{"p11fs_slots", "Slots.", func() float64 { return float64(len(d.slots)) }},
		{"p11fs_tokens", "Slots with a token.", func() float64 { return float64(len(d.present())) }},
		{"p11fs_tokens_offline", "Tokens whose keys cannot be used now.", func() float64 {
			n := 0
			for _, s := range d.present() {
				if s.offline() != nil {
					n++
				}
			}
			return float64(n)
		}},
		{"p11fs_applications", "Applications: one a uid and POSIX session.",
			func() float64 { return float64(d.engine.Stats().Applications) }},
		{"p11fs_sessions", "Open sessions.", func() float64 { return float64(d.engine.Stats().Sessions) }},
		{"p11fs_session_objects", "Objects that end with their session.",
			func() float64 { return float64(d.engine.Stats().SessionObjects) }},
		{"p11fs_public_token_objects", "Public objects in the tokens.",
			func() float64 { return float64(d.engine.Stats().PublicObjects) }},
		{"p11fs_operations", "Cryptographic operations in progress.",
			func() float64 { return float64(d.engine.Stats().Operations) }},
	}
}

// counters are the numbers that only go up.
func (d *Daemon) counters() []metric {
	return []metric{
		{"p11fs_panics_total", "Requests to the mount that ended in a panic and were answered EIO.",
			func() float64 { return float64(d.tree.Stats().Panics) }},
		{"p11fs_rpc_panics_total", "Calls of PKCS#11 programs that ended in a panic and were answered CKR_GENERAL_ERROR.",
			func() float64 { return float64(d.rpcStats().Panics) }},
		{"p11fs_rpc_calls_total", "Calls of PKCS#11 programs.", func() float64 { return float64(d.rpcStats().Calls) }},
		{"p11fs_rpc_connections_total", "Connections of PKCS#11 programs since the start.",
			func() float64 { return float64(d.rpcStats().Accepted) }},
	}
}

// text is the text of the file metrics, in Prometheus's exposition format.
// What cannot be collected is left out, with a comment that says why.
func (m *metrics) text() string {
	var b bytes.Buffer
	families, err := m.registry.Gather()
	if err != nil {
		fmt.Fprintf(&b, "# not complete: %s\n", oneLine(err.Error()))
	}
	for _, f := range families {
		_, _ = expfmt.MetricFamilyToText(&b, f) // a bytes.Buffer takes everything
	}
	return b.String()
}
