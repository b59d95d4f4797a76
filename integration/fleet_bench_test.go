package integration

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"p11fs/engine"
	"p11fs/locks"
	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/fleet"
	"p11fs/tokens/fleet/etcdtest"
	"p11fs/tokens/swtok"
	"p11fs/tokens/tokentest"
)

// BenchmarkFleet measures a token in a cluster of three members beside one in a directory, and
// what machines wait for each other. docs/fleet.md has the figures.
func BenchmarkFleet(b *testing.B) {
	c := etcdtest.Start(b, 3)
	for _, m := range []struct {
		name string
		run  func(*testing.B, *etcdtest.Cluster)
	}{{"engine", fleetEngine}, {"doors", fleetDoors}, {"create", fleetCreate}, {"destroy", fleetDestroy}, {"start", fleetStart}} {
		b.Run(m.name, func(b *testing.B) {
			m.run(b, c)
			b.ReportMetric(0, "ns/op") // it says itself how long one takes
		})
	}
}

// tell tells the least and the median of what was measured again and again.
func tell(b *testing.B, what string, took []time.Duration) (median time.Duration) {
	b.Helper()
	slices.Sort(took)
	median = took[len(took)/2]
	b.Logf("%-40s %10v, at least %v, of %d", what, median, took[0], len(took))
	b.ReportMetric(float64(median.Nanoseconds()), what+"-ns")
	return median
}

// beside has works done by turns, and tells how long one takes.
func beside(b *testing.B, rounds, each int, works map[string]func()) map[string]time.Duration {
	b.Helper()
	took, median := map[string][]time.Duration{}, map[string]time.Duration{}
	for range rounds {
		for name, work := range works {
			begun := time.Now()
			for range each {
				work()
			}
			took[name] = append(took[name], time.Since(begun)/time.Duration(each))
		}
	}
	for name, t := range took {
		median[name] = tell(b, name, t)
	}
	return median
}

func noTrouble(b *testing.B, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// fleetToken opens the token below a prefix of the cluster on a machine of its own.
func fleetToken(b *testing.B, c *etcdtest.Cluster, prefix string) tokens.Token {
	b.Helper()
	dir := b.TempDir()
	noTrouble(b, writeFleet(c, dir, dir, prefix))
	tok, err := fleet.NewKind(swtok.LoadProvider(slog.New(slog.DiscardHandler)), 1).Open(b.Context(), tokens.Place{
		Name: fleet.Kind, Dir: dir, Create: true, Room: -1, Log: slog.New(slog.DiscardHandler), Now: time.Now,
	})
	noTrouble(b, err)
	b.Cleanup(func() { _ = tok.Close() })
	return tok
}

// swToken is the software's in a directory.
func swToken(b *testing.B) tokens.Token {
	b.Helper()
	lock, err := locks.Open(filepath.Join(b.TempDir(), "lock"), locks.NoGroup)
	noTrouble(b, err)
	tok, err := swtok.NewKind(swtok.LoadProvider(slog.New(slog.DiscardHandler))).Open(b.Context(), tokens.Place{
		Name: swtok.Kind, Dir: b.TempDir(), Format: p11.Version{Major: 3, Minor: 12}, Lock: lock, Group: locks.NoGroup,
		Create: true, Log: slog.New(slog.DiscardHandler), Now: time.Now,
	})
	noTrouble(b, err)
	b.Cleanup(func() { _, _ = tok.Close(), lock.Close() })
	return tok
}

// setUp gives a token its PINs.
func setUp(b *testing.B, tok tokens.Token) {
	b.Helper()
	so := tokentest.PIN(b, tokens.DefaultSOPIN)
	noTrouble(b, tok.InitToken(b.Context(), so, "test token"))
	l, err := tok.Login(b.Context(), p11.CKU_SO, so)
	noTrouble(b, err)
	noTrouble(b, tok.InitPIN(b.Context(), l, tokentest.PIN(b, userPIN)))
	noTrouble(b, l.Close())
}

// fleetEngine signs with an engine over each.
func fleetEngine(b *testing.B, c *etcdtest.Cluster) {
	works := map[string]func(){}
	for name, tok := range map[string]tokens.Token{"engine-directory": swToken(b), "engine-fleet": fleetToken(b, c, "/engine/")} {
		setUp(b, tok)
		e, err := engine.New(engine.Config{Slots: []engine.SlotConfig{{ID: 1, Token: tok}}})
		noTrouble(b, err)
		b.Cleanup(func() { _ = e.Close() })
		s, err := e.NewApplication(engine.Owner{}, engine.ForPrograms).OpenSession(b.Context(), e.Slots()[0], p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION)
		noTrouble(b, err)
		noTrouble(b, s.Login(b.Context(), p11.CKU_USER, tokentest.PIN(b, userPIN)))
		_, key, err := s.GenerateKeyPair(b.Context(), p11.Mechanism{Type: p11.CKM_EC_KEY_PAIR_GEN}, template("token=true ec-params=p256 verify=true"), template("token=true private=true sign=true"))
		noTrouble(b, err)
		works[name] = func() {
			noTrouble(b, s.Init(b.Context(), p11.CKF_SIGN, p11.Mechanism{Type: p11.CKM_ECDSA}, key))
			_, err := s.Do(b.Context(), p11.CKF_SIGN, make([]byte, 32), nil, engine.NoLimit)
			noTrouble(b, err)
		}
	}
	took := beside(b, 21, 1000, works)
	b.ReportMetric(float64(took["engine-directory"])/float64(took["engine-fleet"]), "engine-signs-of-directory")
}

// fleetDoors signs through the module, by a daemon over each.
func fleetDoors(b *testing.B, c *etcdtest.Cluster) {
	program := benchProgram(b)
	doors := map[string]benchDoor{}
	for name, cfg := range map[string]daemonConfig{"directory": {modern: true}, "fleet": {token: fleet.Kind, fleet: c}} {
		cfg.binary = plainBinary(b)
		d, term := ready(b, cfg)
		term.ok("for key in 'rsa:2048 label=rsa2048 id=01' 'ec:p256 label=p256 id=02'; do echo $key > $T/generate && cat $T/generate; done")
		env := append(d.env(), "P11FS_SOCKET="+filepath.Join(d.dir, "p11fs/rpc.sock"))
		doors[name] = benchClient(b, newTerminal(b, terminalConfig{env: env}), program, name, d.pid(), "module", ownModule(b), "test token", userPIN)
	}
	for _, work := range []string{"sign:p256", "sign:rsa2048"} {
		for _, how := range []string{"1", "8"} {
			rates := map[string][]float64{}
			for range 9 {
				for name, d := range doors {
					m, err := d.measure(work, how)
					noTrouble(b, err)
					rates[name] = append(rates[name], m.Rate)
				}
			}
			median := func(name string) float64 { slices.Sort(rates[name]); return rates[name][len(rates[name])/2] }
			b.Logf("%-14s ×%s %8.0f/s in a directory, %8.0f/s in the fleet: %.2f", work, how, median("directory"), median("fleet"), median("fleet")/median("directory"))
			b.ReportMetric(median("fleet")/median("directory"), work+"-"+how+"-of-directory")
		}
	}
	for _, d := range doors {
		d.end()
	}
}

func note(label string) p11.Attributes {
	return template(fmt.Sprintf("class=data token=true private=false label=%q", label)).With(p11.CKA_VALUE, make([]byte, 600))
}

// fleetCreate makes objects, and as many keys of etcd.
func fleetCreate(b *testing.B, c *etcdtest.Cluster) {
	tok, client := fleetToken(b, c, "/create/"), c.Client(b)
	value, n := string(make([]byte, 900)), 0
	took := beside(b, 21, 20, map[string]func(){
		"etcd-transaction": func() {
			n++
			_, err := client.Put(b.Context(), fmt.Sprint("/bench/", n), value)
			noTrouble(b, err)
		},
		"create": func() {
			n++
			_, err := tok.Create(b.Context(), note(fmt.Sprint(n)))
			noTrouble(b, err)
		},
	})
	b.ReportMetric(float64(took["create"])/float64(took["etcd-transaction"]), "transactions-a-create")
}

// fleetDestroy destroys objects while ten machines have the token.
func fleetDestroy(b *testing.B, c *etcdtest.Cluster) {
	var all []tokens.Token
	for range 10 {
		all = append(all, fleetToken(b, c, "/destroy/"))
	}
	for _, tok := range all {
		for tok.(tokens.Offliner).Offline() != nil {
			time.Sleep(10 * time.Millisecond)
		}
	}
	var took []time.Duration
	for n := range 50 {
		o, err := all[0].Create(b.Context(), note(fmt.Sprint(n)))
		noTrouble(b, err)
		begun := time.Now()
		noTrouble(b, all[0].Destroy(b.Context(), o.Handle, func(p11.Attributes) error { return nil }))
		took = append(took, time.Since(begun))
	}
	tell(b, "destroy-with-10-machines", took)
}

// fleetStart has a machine come to a token of 10,000 objects.
func fleetStart(b *testing.B, c *etcdtest.Cluster) {
	d, _ := ready(b, daemonConfig{token: fleet.Kind, fleet: c, binary: plainBinary(b)})
	d.stop()
	tok, err := fleet.NewKind(swtok.GoProvider(), 1).Open(b.Context(), tokens.Place{
		Name: fleet.Kind, Dir: filepath.Join(d.tokenRoot(), fleet.Kind), Room: -1, Log: slog.New(slog.DiscardHandler), Now: time.Now,
	})
	noTrouble(b, err)
	user, err := tok.Login(b.Context(), p11.CKU_USER, tokentest.PIN(b, userPIN))
	noTrouble(b, err)
	for i := range 100 {
		var list []p11.Attributes
		for j := range 100 {
			o := note(fmt.Sprint("object ", 100*i+j))
			o.SetBool(p11.CKA_PRIVATE, j%2 == 0)
			list = append(list, o)
		}
		_, err := tok.(tokens.BatchCreator).CreateAll(b.Context(), list)
		noTrouble(b, err)
	}
	_, _ = user.Close(), tok.Close()
	var took []time.Duration
	for range 5 {
		begun := time.Now()
		d.start()
		term := d.terminal()
		term.ok("test $(ls -U $O | wc -l) -ge 5000")
		took = append(took, time.Since(begun))
		term.ok("echo " + userPIN + " > $T/login && test $(ls -U $O | wc -l) -ge 10000")
		b.Logf("resident %d MiB", d.resident()>>20)
		d.stop()
	}
	tell(b, "start-10000-objects", took)
}
