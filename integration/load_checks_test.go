package integration

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// What TestStockLoad looks at when the load is over.

// readLogs reads what the workers have done, and returns the number of creations,
// changes, destructions and signatures that were good.
func (l *loadTest) readLogs() (done int) {
	l.t.Helper()
	l.ops = l.ops[:0]
	for _, name := range l.workers {
		ops, err := readLoadLog(filepath.Join(l.dir, name+".log"), name)
		if err != nil && !os.IsNotExist(err) {
			l.t.Fatal(err)
		}
		l.ops = append(l.ops, ops...)
	}
	for _, o := range l.ops {
		if o.result == "ok" && o.kind != "read" {
			done++
		}
	}
	return done
}

// down says that there was no daemon for a part of the operation.
func (l *loadTest) down(o *loadOp) bool {
	return slices.ContainsFunc(l.downs, func(s span) bool { return s.meets(o) })
}

// downsBefore counts the times without a daemon that began before the time, in
// microseconds.
func (l *loadTest) downsBefore(at int64) (n int) {
	for _, s := range l.downs {
		if s.from < at {
			n++
		}
	}
	return n
}

// cutOff marks what shells wrote into files of data while there was no daemon for
// a moment: it counts when the file is closed, and shells do not tell whether that
// went well.
func (l *loadTest) cutOff() {
	for _, o := range l.ops {
		if o.shell() && o.kind == "write" && place(o.key) < 0 && l.down(o) {
			o.result = "err"
		}
	}
}

// checkResults goes through what failed: a shell may miss the daemon while it is
// down, and once afterwards its login, which ended with the daemon, however late it
// comes to see that; and a stock process may meet a file that another one writes or
// destroys. While the daemon is down stock processes work on.
func (l *loadTest) checkResults() {
	l.t.Helper()
	tally := map[string]int{}
	alone := make([]int, len(l.downs))
	missed := map[string]int{} // each shell's logins that it found to be gone
	for _, o := range l.ops {
		if o.shell() && o.result == "err" && strings.HasPrefix(o.got, "no login: ") {
			missed[o.worker]++
		}
		tally[o.worker[:1]+" "+o.kind+" "+o.result]++
		switch {
		case o.result != "err":
		case o.shell() && l.down(o):
		case o.shell() && strings.HasPrefix(o.got, "no login: ") && missed[o.worker] <= l.downsBefore(o.back):
		case o.stock() && o.kind == "read" && o.got == "0x6" && stockWriter(o.key) != "":
		default:
			l.t.Errorf("failed: %v", o)
		}
		for i, down := range l.downs {
			if o.stock() && o.kind != "read" && o.result == "ok" && o.call > down.from && o.back < down.to {
				alone[i]++
			}
		}
	}
	l.t.Logf("operations of stock processes (c) and shells (s): %v; of stock processes without a daemon: %v", tally, alone)
	if slices.Contains(alone, 0) {
		l.t.Error("stock processes did nothing while there was no daemon")
	}
}

// checkSignatures verifies every signature.
func (l *loadTest) checkSignatures() {
	l.t.Helper()
	b, err := os.ReadFile(filepath.Join(l.dir, "load.pem"))
	if err != nil {
		l.t.Fatal(err)
	}
	block, _ := pem.Decode(b)
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		l.t.Fatal(err)
	}
	good := 0
	for _, o := range l.ops {
		if o.kind != "sign" || o.result != "ok" {
			continue
		}
		decode, hash := base64.StdEncoding.DecodeString, crypto.SHA256
		if o.stock() {
			decode, hash = hex.DecodeString, crypto.SHA1
		}
		sig, err := decode(o.got)
		if err == nil {
			h := hash.New()
			h.Write([]byte(o.value))
			err = rsa.VerifyPKCS1v15(key.(*rsa.PublicKey), hash, h.Sum(nil), sig)
		}
		if err != nil {
			l.t.Errorf("%v: %v", o, err)
			continue
		}
		good++
	}
	l.t.Logf("%d signatures are good", good)
}

// checkHistory looks whether there is an order of all operations in which each has
// the result that it had, and which ends in what was listed.
func (l *loadTest) checkHistory() {
	l.t.Helper()
	l.cutOff()
	bad := 0
	all := histories(append(l.ops, l.ends...))
	for key, history := range all {
		switch porcupine.CheckOperationsTimeout(loadModel(), history, time.Minute) {
		case porcupine.Ok:
			continue
		case porcupine.Unknown:
			l.t.Errorf("the history of %s could not be checked in time", key)
		default:
			l.t.Errorf("%s has a history that is not linearisable", key)
		}
		if bad++; bad <= 5 {
			l.t.Log(tellHistory(history))
		}
	}
	l.t.Logf("the histories of %d objects are checked", len(all))
}
