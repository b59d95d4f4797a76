package mountd

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/common/expfmt"

	"p11fs/engine"
)

// metrics registers what is counted, and returns what gives the text of the file metrics,
// in Prometheus's exposition format. Each number is asked for at each collection. The
// registry is the daemon's own: nothing of the library's default one, so that two
// daemons fit in one process.
func (d *Daemon) metrics() (text func(owner bool) string, err error) {
	registry := prometheus.NewRegistry()
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "p11fs_info",
		Help:        "Version, cryptographic library and mode, as labels of the value 1.",
		ConstLabels: prometheus.Labels{"version": Version, "provider": d.conf.Provider, "mode": d.conf.Mode.String()},
	})
	info.Set(1)
	started := prometheus.NewGauge(prometheus.GaugeOpts{Name: "p11fs_start_time_seconds", Help: "When the daemon started, in Unix seconds."})
	started.Set(float64(d.started.UnixNano()) / 1e9)
	all := []prometheus.Collector{
		info, started, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		callCollector{d.engine}, fleetCollector{d},
	}
	for _, g := range d.gauges() {
		all = append(all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: g.name, Help: g.help}, func() float64 { return float64(g.value()) }))
	}
	for _, c := range d.counters() {
		all = append(all, prometheus.NewCounterFunc(prometheus.CounterOpts{Name: c.name, Help: c.help}, func() float64 { return float64(c.value()) }))
	}
	for _, c := range all {
		if err := registry.Register(c); err != nil {
			return nil, fmt.Errorf("metrics: %w", err)
		}
	}
	return func(owner bool) string { return metricsText(registry, owner) }, nil
}

// metric is one number.
type metric struct {
	name, help string
	value      func() int
}

// gauges are the numbers that go up and down.
func (d *Daemon) gauges() []metric {
	return []metric{
		{"p11fs_open_handles", "Open files that hold state.", func() int { return d.tree.Stats().Handles }},
		{"p11fs_callers", "Callers of the mount that have state.", func() int { return d.tree.Stats().Applications }},
		{"p11fs_rpc_connections", "Connections of PKCS#11 programs.", func() int { return d.rpcStats().Connections }},
		{"p11fs_slots", "Slots.", func() int { return len(d.all()) }},
		{"p11fs_tokens", "Slots with a token.", func() int { return len(d.present()) }},
		{"p11fs_tokens_offline", "Tokens whose keys cannot be used now.", func() (n int) {
			for _, s := range d.present() {
				if s.offline() != nil {
					n++
				}
			}
			return n
		}},
		{"p11fs_applications", "Applications: one a uid and POSIX session.", func() int { return d.engine.Stats().Applications }},
		{"p11fs_sessions", "Open sessions.", func() int { return d.engine.Stats().Sessions }},
		{"p11fs_session_objects", "Public objects that end with their session.", func() int { n, _ := d.engine.Stats().Shown(); return n }},
		{"p11fs_public_token_objects", "Public objects in the tokens.", func() int { return d.engine.Stats().PublicObjects }},
		{"p11fs_operations", "Cryptographic operations in progress.", func() int { return d.engine.Stats().Operations }},
	}
}

// counters are the numbers that only go up.
func (d *Daemon) counters() []metric {
	return []metric{
		{"p11fs_panics_total", "Requests to the mount that ended in a panic and were answered EIO.",
			func() int { return int(d.tree.Stats().Panics) }},
		{"p11fs_rpc_panics_total", "Calls of PKCS#11 programs that ended in a panic and were answered CKR_GENERAL_ERROR.",
			func() int { return int(d.rpcStats().Panics) }},
		{"p11fs_rpc_calls_total", "Calls of PKCS#11 programs.", func() int { return int(d.rpcStats().Calls) }},
		{"p11fs_rpc_connections_total", "Connections of PKCS#11 programs since the start.", func() int { return int(d.rpcStats().Accepted) }},
	}
}

// ownerNames begins the names of what tells which mechanisms others use.
const ownerNames = "p11fs_token_call_"

// A callCollector collects the calls of the tokens, which the engine has counted.
type callCollector struct{ engine *engine.Engine }

// Describe is prometheus.Collector.
func (c callCollector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range callDescs() {
		to <- d
	}
}

func callDescs() []*prometheus.Desc {
	labels := []string{"token", "mechanism", "door"}
	return []*prometheus.Desc{
		prometheus.NewDesc(ownerNames+"seconds", "Calls of a token with a mechanism, by door: each part of a message, and each key that is made.", labels, nil),
		prometheus.NewDesc(ownerNames+"errors_total", "Calls that failed.", labels, nil),
	}
}

// Collect is prometheus.Collector.
func (c callCollector) Collect(to chan<- prometheus.Metric) {
	descs, limits := callDescs(), engine.CallLimits()
	for _, calls := range c.engine.Calls() {
		labels := []string{calls.Token, calls.Mechanism.Short(), calls.Door}
		buckets := make(map[float64]uint64, len(limits))
		for i, limit := range limits {
			buckets[limit.Seconds()] = calls.Within[i]
		}
		to <- prometheus.MustNewConstHistogram(descs[0], calls.Count, calls.Total.Seconds(), buckets, labels...)
		to <- prometheus.MustNewConstMetric(descs[1], prometheus.CounterValue, float64(calls.Errors), labels...)
	}
}

// metricsText leaves out what cannot be collected, with a comment that says why. Memory
// and processor time, which show what others do, are for the owner's eyes, and so is which
// mechanisms are used.
func metricsText(registry *prometheus.Registry, owner bool) string {
	var b bytes.Buffer
	families, err := registry.Gather()
	if err != nil {
		fmt.Fprintf(&b, "# not complete: %s\n", oneLine(err.Error()))
	}
	for _, f := range families {
		if name := f.GetName(); !owner && (!strings.HasPrefix(name, "p11fs_") || strings.HasPrefix(name, ownerNames)) {
			continue
		}
		_, _ = expfmt.MetricFamilyToText(&b, f) // a bytes.Buffer takes everything
	}
	return b.String()
}
