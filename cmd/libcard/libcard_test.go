package libcard

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/template"

	"p11fs/p11"
	"p11fs/tokens/card"
	"p11fs/tokens/card/cca"
)

// scripted answers calls from what is in them alone, and keeps the last one.
type scripted struct {
	mu   sync.Mutex // guards all below
	last *card.Call
	lies bool // of how much it has stored
}

func (*scripted) Close() error { return nil }

func (s *scripted) Call(_ context.Context, c *card.Call) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = &card.Call{Function: c.Function, Target: c.Target, Args: append([]card.Arg{}, c.Args...)}
	for i := range c.Args {
		s.last.Args[i].Bytes = bytes.Clone(c.Args[i].Bytes)
		if a := c.Args[i].Attributes; a != nil {
			s.last.Args[i].Attributes = a.Clone()
		}
	}
	answer(c)
	for i := range c.Args {
		if k := c.Function.Args[i]; s.lies && (k == card.Output || k == card.Numbers) {
			c.Args[i].Length, c.Args[i].Out, c.Args[i].Numbers = 1<<40, nil, nil
		}
	}
	return nil
}

// outputLen is the length of the output at i.
func outputLen(i int) int { return 20 + i }

func answer(c *card.Call) {
	fits := true
	for i, k := range c.Function.Args {
		a := &c.Args[i]
		switch k {
		case card.Output:
			n := outputLen(i)
			switch {
			case c.Function.Name == "m_GenerateRandom":
				n = int(a.Room)
			case c.Function.ABI == card.CCA:
				n = verbOutput(c.Function.Name, i)
			}
			fits = a.Give(bytes.Repeat([]byte{byte(c.Function.Number)}, n)) && fits
		case card.InOut:
			b := bytes.Clone(a.Bytes)
			for j := range b {
				b[j] ^= 0xff
			}
			fits = a.Give(b) && fits
		case card.Numbers:
			fits = a.GiveNumbers([]uint64{uint64(c.Function.Number), 1 << 40, 3}) && fits
		case card.Wanted:
			fits = a.GiveAttributes(p11.Attributes{{Type: p11.CKA_SIGN, Value: p11.Bool(true)}, {Type: p11.CKA_VALUE_LEN, Value: p11.Ulong(uint64(77))}}) && fits
		}
	}
	switch {
	case !fits:
		if c.Return = uint64(p11.CKR_BUFFER_TOO_SMALL); c.Function.ABI == card.CCA {
			c.Return = cca.ErrBuffer.Value()
		}
		c.Drop()
	case c.Asks():
		c.KeepStates()
	}
}

// verbOutput is the length of the output of a verb at i; of some it is always the same.
func verbOutput(name string, i int) int {
	switch name {
	case "CSNBRNG":
		return 8
	case "CSNBKGN", "CSNBKTB", "CSNBCKM", "CSNBKTC":
		return 64
	case "CSNBENC", "CSNBDEC":
		return 24
	case "CSUACFQ":
		return 8 * (2 + i)
	}
	return outputLen(i)
}

// A mode is how much room a program has for outputs.
type mode int

const (
	query mode = iota
	short
	exact
)

// room is what a program has in a mode for an output of n.
func (m mode) room(n int) int {
	if m == short {
		return n - 1
	}
	return n
}

// A sample is a call of a function: in Go what arrives of it, and in C what is written.
type sample struct {
	Name, Call string
	Setup      []string
	Print      []string
	mode       mode
	want       *card.Call
}

// sampleOf makes a call of f.
func sampleOf(f *card.Function, m mode) *sample {
	s := &sample{Name: fmt.Sprintf("%s %d", f.Name, m), mode: m, want: &card.Call{Function: f}}
	var args []string
	add := func(a card.Arg, in ...string) {
		s.want.Args = append(s.want.Args, a)
		args = append(args, in...)
	}
	set := func(format string, v ...any) { s.Setup = append(s.Setup, fmt.Sprintf(format, v...)) }
	show := func(format string, v ...any) { s.Print = append(s.Print, fmt.Sprintf(format, v...)) }
	for i, k := range f.Args {
		x := fmt.Sprintf("x%d", i)
		switch k {
		case card.Number:
			add(card.Arg{Number: uint64(1000 + i)}, fmt.Sprint(1000+i))
		case card.Bytes:
			if i == 2 { // a null pointer with a length of all ones, as programs have it for a MAC key
				add(card.Arg{}, "NULL", "~0UL")
				continue
			}
			text := fmt.Sprintf("%s.%d", f.Name, i)
			add(card.Arg{Bytes: []byte(text)}, fmt.Sprintf("(const unsigned char *)%q", text), fmt.Sprint(len(text)))
		case card.InOut:
			set("unsigned char %s[] = \"state\";", x)
			add(card.Arg{Bytes: []byte("state"), Room: 5}, x, "5")
			show("hex(%s, 5);", x)
		case card.Mechanism:
			add(mechanismSample(i, x, set), "&"+x)
		case card.Attributes:
			set("CK_ULONG %s_n = 0x1234; CK_ATTRIBUTE %[1]s[] = {{CKA_VALUE_LEN, &%[1]s_n, sizeof %[1]s_n}, {CKA_LABEL, \"l\", 1}, {CKA_ID, NULL, 0}, {CKA_WRAP_TEMPLATE, %[1]s, sizeof *%[1]s}};", x)
			add(card.Arg{Attributes: p11.Attributes{{Type: p11.CKA_VALUE_LEN, Value: p11.Ulong(uint64(0x1234))}, {Type: p11.CKA_LABEL, Value: []byte("l")}, {Type: p11.CKA_ID, Value: []byte{}}}}, x, "4")
		case card.Wanted:
			set("CK_BYTE %s_sign = 9; CK_ULONG %[1]s_n = 0; CK_BYTE %[1]s_l[4]; CK_ATTRIBUTE %[1]s[] = {{CKA_SIGN, &%[1]s_sign, 1}, {CKA_VALUE_LEN, %s, %d}, {CKA_LABEL, %[1]s_l, 4}};", x,
				map[bool]string{true: "NULL", false: "&" + x + "_n"}[m == query], m.room(8))
			n := card.WantedValue{Type: p11.CKA_VALUE_LEN, Room: uint64(m.room(8)), Query: m == query}
			if m == query {
				n.Room = 0
			}
			add(card.Arg{Want: []card.WantedValue{{Type: p11.CKA_SIGN, Room: 1}, n, {Type: p11.CKA_LABEL, Room: 4}}}, x, "3")
			show(`printf(" %%u %%lu %%ld %%ld %%ld", %[1]s_sign, %[1]s_n, (long)%[1]s[0].ulValueLen, (long)%[1]s[1].ulValueLen, (long)%[1]s[2].ulValueLen);`, x)
		case card.Output:
			s.output(i, x, f.Name == "m_GenerateRandom", add, set, show)
		case card.Numbers:
			s.numbers(f.Name == "m_GetMechanismInfo", x, add, set, show)
		}
	}
	s.Call = fmt.Sprintf("%s(%s)", f.Name, strings.Join(append(args, "0"), ", "))
	return s
}

func (s *sample) output(i int, x string, fill bool, add func(card.Arg, ...string), set, show func(string, ...any)) {
	room := s.mode.room(outputLen(i))
	set("unsigned char %s[64] = {0}; size_t %[1]s_len = %d;", x, room)
	a := card.Arg{Room: uint64(room), Query: s.mode == query && !fill}
	pointer := x
	if a.Query {
		pointer = "NULL"
	}
	if fill {
		add(a, pointer, x+"_len")
	} else {
		add(a, pointer, "&"+x+"_len")
	}
	show(`printf(" %%zu", %s_len); hex(%[1]s, 24);`, x)
}

func (s *sample) numbers(info bool, x string, add func(card.Arg, ...string), set, show func(string, ...any)) {
	const n = 3
	if info {
		set("CK_MECHANISM_INFO %s = {0};", x)
		add(card.Arg{Room: n}, "&"+x)
		show(`printf(" %%lu %%lu %%lu", %[1]s.ulMinKeySize, %[1]s.ulMaxKeySize, %[1]s.flags);`, x)
		return
	}
	set("CK_ULONG %s[3] = {0}, %[1]s_n = %d;", x, s.mode.room(n))
	a := card.Arg{Room: uint64(s.mode.room(n)), Query: s.mode == query}
	if a.Query {
		add(a, "NULL", "&"+x+"_n")
	} else {
		add(a, x, "&"+x+"_n")
	}
	show(`printf(" %%lu %%lu %%lu %%lu", %[1]s_n, %[1]s[0], %[1]s[1], %[1]s[2]);`, x)
}

// mechanismSample is one with a struct, one with bytes and one without a parameter.
func mechanismSample(i int, x string, set func(string, ...any)) card.Arg {
	switch i % 3 {
	case 0:
		set("CK_RSA_PKCS_PSS_PARAMS %s_p = {CKM_SHA256, CKG_MGF1_SHA256, 32}; CK_MECHANISM %[1]s = {CKM_RSA_PKCS_PSS, &%[1]s_p, sizeof %[1]s_p};", x)
		return card.Arg{Mechanism: &p11.Mechanism{Type: p11.CKM_RSA_PKCS_PSS, Param: &p11.PSSParams{Hash: p11.CKM_SHA256, MGF: p11.CKG_MGF1_SHA256, SaltLen: 32}}}
	case 1:
		set("CK_MECHANISM %s = {CKM_AES_CBC, \"0123456789abcdef\", 16};", x)
		return card.Arg{Mechanism: &p11.Mechanism{Type: p11.CKM_AES_CBC, Param: p11.IV("0123456789abcdef")}}
	}
	set("CK_MECHANISM %s = {CKM_SHA256, NULL, 0};", x)
	return card.Arg{Mechanism: &p11.Mechanism{Type: p11.CKM_SHA256}}
}

// printed is what the program prints of the sample when it is answered directly.
func (s *sample) printed() string {
	c := &card.Call{Function: s.want.Function, Args: append([]card.Arg{}, s.want.Args...)}
	answer(c)
	hex := func(b []byte, n int) string {
		return fmt.Sprintf(" %x", append(bytes.Clone(b), make([]byte, n)...)[:n])
	}
	out := fmt.Sprintf("%s: %#x", s.Name, c.Return)
	for i, k := range c.Function.Args {
		a := c.Args[i]
		switch k {
		case card.InOut:
			state := a.Bytes
			if a.Out != nil {
				state = a.Out
			}
			out += hex(state, 5)
		case card.Output:
			out += fmt.Sprint(" ", a.Length) + hex(a.Out, 24)
		case card.Numbers:
			n := append(append([]uint64{}, a.Numbers...), 0, 0, 0)[:3]
			if c.Function.Name != "m_GetMechanismInfo" {
				out += fmt.Sprint(" ", a.Length)
			}
			out += fmt.Sprintf(" %d %d %d", n[0], n[1], n[2])
		case card.Wanted:
			out += map[mode]string{query: " 1 0 1 8 -1", short: " 9 0 -1 -1 -1", exact: " 1 77 1 8 -1"}[s.mode]
		}
	}
	return out
}

var program = template.Must(template.New("").Parse(`#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include "ep11.h"
{{range .Prototypes}}{{.}}
{{end}}
static void hex(const unsigned char *p, size_t n) { putchar(' '); while (n-- != 0) printf("%02x", *p++); }
{{range $i, $s := .Samples}}
static void sample{{$i}}(void)
{
	{{range .Setup}}{{.}}
	{{end}}
	printf("{{.Name}}: 0x%lx", {{.Call}});
	{{range .Print}}{{.}}
	{{end}}
	puts("");
}
{{end}}
static void (*const samples[])(void) = { {{range $i, $s := .Samples}}sample{{$i}}, {{end}} };
{{.Extra}}
int main(void)
{
	setvbuf(stdout, NULL, _IONBF, 0);
	if (m_init() != 0) return 1;
	for (unsigned n; scanf("%u", &n) == 1;) {
		if (n < sizeof samples / sizeof samples[0]) samples[n](); else extra(n);
	}
	return m_shutdown();
}
`))

// build compiles the library and a program that has the samples and extra, with the
// compiler's checks.
func build(t *testing.T, samples []*sample, extra string) string {
	t.Helper()
	dir := libraries(t)
	text, err := os.ReadFile("src/ep11_gen.c")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := program.Execute(&b, map[string]any{
		"Prototypes": regexp.MustCompile(`(?m)^CARD_EXPORT .*;$`).FindAllString(string(text), -1), "Samples": samples, "Extra": extra,
	}); err != nil {
		t.Fatal(err)
	}
	return compile(t, dir, "ep11", b.String())
}

// flags have a program and a library checked while they run.
const flags = "-O0 -g -fno-omit-frame-pointer -fsanitize=address,undefined"

// libraries builds them, and returns where they are.
func libraries(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	make := exec.Command("make", "-s", "-f", "cmd/libcard/build.mk", "libcard", "LIBCARD="+dir, "LIBCARD_CFLAGS="+flags)
	make.Dir = "../.."
	if out, err := make.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return dir
}

// compile makes a program over a library in dir.
func compile(t *testing.T, dir, library, text string) string {
	t.Helper()
	source := filepath.Join(dir, "check.c")
	if err := os.WriteFile(source, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	args := append(strings.Fields(flags), "-std=c11", "-D_GNU_SOURCE", "-Isrc", "-I../libp11fs/src", "-o", filepath.Join(dir, "check"), source, "-L"+dir, "-l"+library, "-pthread", "-Wl,-rpath,"+dir)
	if out, err := exec.Command("cc", args...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return filepath.Join(dir, "check")
}

// serve has a server answer for via at path.
func serve(t *testing.T, path string, abi card.ABI, via card.Transport) (stop func()) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- (&card.Server{ABI: abi, Card: via, Log: slog.New(slog.DiscardHandler)}).Serve(ctx, l)
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// liar is of a card that says that it has stored more than the program has room for, which
// that would read.
func liar(t *testing.T, p *running, via *scripted, samples []*sample) {
	t.Helper()
	lie := func(on bool) {
		via.mu.Lock()
		defer via.mu.Unlock()
		via.lies = on
	}
	lie(true)
	defer lie(false)
	const gone = "0x80010003"
	for i, s := range samples {
		stores := slices.ContainsFunc(s.want.Function.Args, func(k card.Kind) bool { return k == card.Output || k == card.Numbers })
		if got := p.do(t, i); s.mode == exact && stores && !strings.HasPrefix(got, s.Name+": "+gone) {
			t.Errorf("of a card that lies: %s", got)
		}
	}
}

// TestFunctions calls each function of the library from C, without room for outputs, with
// too little and with just enough: what arrives is what was given, and what comes back is
// what a direct call gives. Then it has targets of both forms.
func TestFunctions(t *testing.T) {
	var samples []*sample
	for _, f := range card.Functions(card.EP11) {
		for _, m := range []mode{query, short, exact} {
			samples = append(samples, sampleOf(f, m))
		}
	}
	socket := filepath.Join(t.TempDir(), "card")
	via := &scripted{}
	stop := serve(t, socket, card.EP11, via)
	p := start(t, build(t, samples, extra), socket)
	for i, s := range samples {
		if got, want := p.do(t, i), s.printed(); got != want {
			t.Errorf("%s\n%s, directly", got, want)
		}
		via.mu.Lock()
		last := via.last
		via.mu.Unlock()
		if !reflect.DeepEqual(last, s.want) {
			t.Errorf("%s: arrived %+v, given %+v", s.Name, last.Args, s.want.Args)
		}
	}
	liar(t, p, via, samples)
	targets(t, p, via, socket, stop)
	p.end(t)
}
