// Benchreport makes a page and a picture of what BenchmarkDoors of integration has measured,
// or compares it with an earlier run.
//
//	benchreport RESULTS.json DIRECTORY     write README.md and doors.svg into DIRECTORY
//	benchreport -check OLD.json NEW.json   fail if a ratio has fallen by more than a fifth
//	benchreport -wanted RESULTS.json       print what is wanted, what was reached, and whether it holds
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A run is one measurement of a work at a door.
type run struct {
	Rate     float64 `json:"rate"`     // a second
	CPU      float64 `json:"cpu"`      // microseconds of processor time for each, of the program
	Daemon   float64 `json:"daemon"`   // the same of the daemon
	Switches float64 `json:"switches"` // of threads for each, of the program
	Half     float64 `json:"half"`     // microseconds that half of them took at most
	Most     float64 `json:"most"`     // likewise 99 of 100
	Least    float64 `json:"least"`    // of an even share of the work: what the thread had that had least
}

type row struct {
	Work  string            `json:"work"`
	How   string            `json:"how"`
	Doors map[string][]run  `json:"doors"`
	Not   map[string]string `json:"refused"`
}

type results struct {
	Machine  string            `json:"machine"`
	Date     string            `json:"date"`
	Programs map[string]string `json:"programs"`
	Rows     []row             `json:"rows"`
}

// peer is what our doors are measured by.
const peer = "softhsm2"

// doors are in the order of the page.
func doors() []string {
	return []string{peer, "libp11fs", "p11-kit", "stock-over-p11fs", "opencryptoki", "files", "empty", "shell", "libcrypto"}
}

// ours are the doors of p11fs.
func ours() []string { return []string{"libp11fs", "p11-kit", "stock-over-p11fs", "files", "shell"} }

// reference is what a row has that SoftHSM2 cannot do: the rate of this work there.
const reference = "sign:p256"

func main() {
	check := flag.Bool("check", false, "compare two runs")
	wanted := flag.Bool("wanted", false, "print what is wanted and what was reached")
	flag.Parse()
	var err error
	switch {
	case *wanted && flag.NArg() == 1:
		var r results
		if r, err = read(flag.Arg(0)); err == nil {
			fmt.Print(r.table())
		}
	case *wanted || flag.NArg() != 2:
		fmt.Fprintln(os.Stderr, "usage: benchreport RESULTS.json DIRECTORY\n       benchreport -check OLD.json NEW.json\n       benchreport -wanted RESULTS.json")
		os.Exit(2)
	case *check:
		err = compare(flag.Arg(0), flag.Arg(1))
	default:
		err = report(flag.Arg(0), flag.Arg(1))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchreport:", err)
		os.Exit(1)
	}
}

func read(path string) (r results, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

func (r row) name() string {
	switch {
	case r.How == "1":
		return r.Work
	case r.How[0] == 'p':
		return r.Work + ", " + r.How[1:] + " processes"
	}
	return r.Work + ", " + r.How + " threads"
}

// median of the rates at a door, 0 if there are none.
func (r row) median(door string) float64 {
	rates := r.rates(door)
	if len(rates) == 0 {
		return 0
	}
	return rates[len(rates)/2]
}

func (r row) rates(door string) (rates []float64) {
	for _, m := range r.Doors[door] {
		rates = append(rates, m.Rate)
	}
	slices.Sort(rates)
	return rates
}

// ratios are the rates of our doors in each row as parts of SoftHSM2's for the same, or for
// the reference.
func (r results) ratios() map[string]float64 {
	var common float64
	for _, row := range r.Rows {
		if row.Work == reference && row.How == "1" {
			common = row.median(peer)
		}
	}
	all := map[string]float64{}
	for _, row := range r.Rows {
		base := row.median(peer)
		if base == 0 {
			base = common
		}
		for _, d := range ours() {
			if rate := row.median(d); rate > 0 && base > 0 {
				all[row.name()+" at "+d] = rate / base
			}
		}
	}
	return all
}

// compare fails if a ratio of old is less in another run, by more than a fifth, or missing.
func compare(old, now string) error {
	was, err := read(old)
	if err != nil {
		return err
	}
	is, err := read(now)
	if err != nil {
		return err
	}
	var worse []string
	ratios := is.ratios()
	for name, ratio := range was.ratios() {
		if got := ratios[name]; got < 0.8*ratio {
			worse = append(worse, fmt.Sprintf("%s: %.2f, and was %.2f", name, got, ratio))
		}
	}
	if len(worse) == 0 {
		return nil
	}
	slices.Sort(worse)
	return fmt.Errorf("%d ratios have fallen by more than a fifth:\n%s", len(worse), strings.Join(worse, "\n"))
}

func report(path, dir string) error {
	r, err := read(path)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "README.md"), []byte(r.page()), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "doors.svg"), []byte(r.picture()), 0o644)
}
