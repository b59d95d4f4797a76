package engine_test

import (
	"context"
	"crypto/cipher"
	"fmt"
	"log/slog"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"p11fs/engine"
	"p11fs/p11"
	"p11fs/tokens/swtok"
)

// BenchmarkAgainstOpenSSL has messages encrypted in parts, and openssl speed beside it, in
// turns: its table has the shares that the fastest rounds of both make. All is of processor
// time, so that what else the machine does weighs little. "bare" is a provider's library with
// nothing around it, that of Go with messages as long as a part where it has no parts. Run
// it with -benchtime=1x; it takes two minutes.
//
// What the shares can be, on a machine whose libcrypto 3.0 does 4.4 GB/s under GCM, 1.0 under
// CBC and 8.2 under CTR:
//
//   - Each message of ours has its own C_...Init and end, which openssl speed has not: key
//     and policy are looked at, and a context begins. That is 1.5 to 2 µs, beside 8 µs of
//     64 KiB under CTR, 15 under GCM and 64 under CBC, and beside nothing of 16 MiB.
//   - Where a buffer is, how it is aligned, whether the output is in its place, and what
//     C_...Init costs in libcrypto itself make two parts in a hundred.
//   - A ciphertext under GCM is kept until its tag is there, since nothing is decrypted
//     before: it is copied once, and of 16 MiB nothing is in the caches any more.
//   - Go's CBC encrypts on amd64 a block at a time in memory: 0.7 of libcrypto, which keeps
//     the chain in a register. Its CTR does 0.8. Both are the standard library's, and there
//     is no module with faster ones but those that call libcrypto, as the other provider does.
func BenchmarkAgainstOpenSSL(b *testing.B) {
	providers := []swtok.Provider{swtok.GoProvider()}
	if p := swtok.LoadProvider(slog.New(slog.DiscardHandler)); p.Name() != "go" {
		providers = append(providers, p)
	}
	const part = 64 << 10
	for _, mode := range []struct{ openssl, mechanism string }{
		{"aes-256-gcm", "aes-gcm,iv=000102030405060708090a0b"},
		{"aes-256-cbc", "aes-cbc,iv=000102030405060708090a0b0c0d0e0f"},
		{"aes-256-ctr", "aes-ctr,bits=128,counter=000102030405060708090a0b0c0d0e0f"},
	} {
		b.Run(mode.openssl, func(b *testing.B) {
			table := newShares(b, "of openssl speed: encrypt", "decrypt", "bare", "of bare: encrypt")
			for _, size := range []int{part, 16 << 20} {
				var rows []*row
				for _, p := range providers {
					s := speedSession(b, p)
					rows = append(rows, &row{
						name: fmt.Sprintf("%d KiB, %s", size>>10, p.Name()), size: size,
						encrypt: inParts(b, s, p11.CKF_ENCRYPT, mode.mechanism, size, part),
						decrypt: inParts(b, s, p11.CKF_DECRYPT, mode.mechanism, size, part),
						bare:    bare(b, p, mode.openssl, size, part),
					})
				}
				table.compare(rows, func() float64 { // bytes a second
					return opensslSpeed(b, "-evp", mode.openssl, "-bytes", strconv.Itoa(part))
				})
			}
		})
	}
	b.Run("signatures", func(b *testing.B) {
		table := newShares(b, "of openssl speed: sign")
		for _, key := range []struct{ openssl, generate, sign string }{
			{"rsa2048", "rsa-pkcs-key-pair-gen", "rsa-pkcs"},
			{"ecdsap256", "ec-key-pair-gen", "ecdsa"},
		} {
			var rows []*row
			for _, p := range providers {
				rows = append(rows, &row{name: key.openssl + ", " + p.Name(), size: 1, encrypt: signing(b, speedSession(b, p), key.generate, key.sign)})
			}
			table.compare(rows, func() float64 { return opensslSpeed(b, key.openssl) }) // signatures a second
		}
	})
}

// A row is what a provider does, of so many bytes, or signatures.
type row struct {
	name                   string
	size                   int
	encrypt, decrypt, bare func()
	speeds                 [3]float64 // the best of each
}

// shares are a table of rows.
type shares struct {
	b *testing.B
	t *tabwriter.Writer
}

func newShares(b *testing.B, columns ...string) shares {
	t := tabwriter.NewWriter(b.Output(), 0, 0, 2, ' ', 0)
	b.Cleanup(func() { _ = t.Flush() })
	fmt.Fprintln(t, "\t"+strings.Join(columns, "\t"))
	b.ReportMetric(0, "ns/op")
	return shares{b, t}
}

// compare has the rows by turns with openssl.
func (s shares) compare(rows []*row, base func() float64) {
	const rounds = 5
	openssl := 0.0
	for range rounds {
		openssl = max(openssl, base())
		for _, r := range rows {
			for i, f := range []func(){r.encrypt, r.decrypt, r.bare} {
				if f != nil {
					r.speeds[i] = max(r.speeds[i], speedOf(r.size, f))
				}
			}
		}
	}
	for _, r := range rows {
		fmt.Fprint(s.t, r.name)
		for _, speed := range r.speeds {
			if speed > 0 {
				fmt.Fprintf(s.t, "\t%.2f", speed/openssl)
			}
		}
		if r.bare != nil {
			fmt.Fprintf(s.t, "\t%.2f", r.speeds[0]/r.speeds[2])
		}
		fmt.Fprintln(s.t)
	}
}

// speedSession is a session of a user, whose one key is for AES.
func speedSession(b *testing.B, p swtok.Provider) *engine.Session {
	check := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	ctx, s := context.Background(), newSession(b, p)
	template, err := p11.ParseTemplate("class=secret-key key-type=aes token=false private=false encrypt=true decrypt=true label=speed value=0x" + strings.Repeat("5a", 32))
	check(err)
	_, err = s.CreateObject(ctx, template)
	check(err)
	return s
}

// inParts is one message through a session.
func inParts(b *testing.B, s *engine.Session, flag p11.Flags, mechanism string, size, part int) func() {
	ctx := context.Background()
	m, key := speedKey(b, s, mechanism)
	tail := make([]byte, 0, 16)
	data, into, rest := make([]byte, part), make([]byte, 0, part+64), []byte(nil)
	if flag == p11.CKF_DECRYPT && m.Type == p11.CKM_AES_GCM {
		// The tag of what is decrypted: the data as a ciphertext of what it is for.
		tail = gcmTag(b, s, m, key, data, size)
		rest = make([]byte, 0, size)
	}
	return func() {
		if err := s.Init(ctx, flag, m, key); err != nil {
			b.Fatal(err)
		}
		for n := 0; n < size; n += part {
			yield(n)
			if _, err := s.UpdateInto(ctx, flag, into, data, cap(into)); err != nil {
				b.Fatal(err)
			}
		}
		if len(tail) > 0 {
			if _, err := s.Update(ctx, flag, tail, engine.NoLimit); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := s.FinalInto(ctx, flag, func(int) []byte { return rest }, engine.NoLimit); err != nil {
			b.Fatal(err)
		}
	}
}

// speedKey is the session's key, and the mechanism.
func speedKey(b *testing.B, s *engine.Session, mechanism string) (p11.Mechanism, p11.ObjectHandle) {
	m, err := p11.ParseMechanism(mechanism)
	if err != nil {
		b.Fatal(err)
	}
	template, _ := p11.ParseTemplate("label=speed")
	keys, err := s.Find(context.Background(), template)
	if err != nil || len(keys) != 1 {
		b.Fatal(keys, err)
	}
	return m, keys[0]
}

// signing is a signature with a new key.
func signing(b *testing.B, s *engine.Session, generate, sign string) func() {
	ctx := context.Background()
	template := func(text string) p11.Attributes {
		t, err := p11.ParseTemplate("token=false private=false " + text)
		if err != nil {
			b.Fatal(err)
		}
		return t
	}
	public := template("verify=true modulus-bits=2048")
	if generate == "ec-key-pair-gen" {
		public = template("verify=true ec-params=p-256")
	}
	g, _ := p11.ParseMechanism(generate)
	_, key, err := s.GenerateKeyPair(ctx, g, public, template("sign=true"))
	if err != nil {
		b.Fatal(err)
	}
	m, _ := p11.ParseMechanism(sign)
	digest := make([]byte, 32)
	return func() {
		if err := s.Init(ctx, p11.CKF_SIGN, m, key); err != nil {
			b.Fatal(err)
		}
		if _, err := s.Do(ctx, p11.CKF_SIGN, digest, nil, engine.NoLimit); err != nil {
			b.Fatal(err)
		}
	}
}

// gcmTag is the tag of a ciphertext that repeats data.
func gcmTag(b *testing.B, s *engine.Session, m p11.Mechanism, key p11.ObjectHandle, data []byte, size int) []byte {
	ctx := context.Background()
	stream := p11.Mechanism{Type: p11.CKM_AES_CTR, Param: &p11.CTRParams{CounterBits: 32}}
	counter := stream.Param.(*p11.CTRParams).Counter[:]
	copy(counter, m.Param.(*p11.GCMParams).IV)
	counter[15] = 2
	var out []byte
	for _, step := range []p11.Mechanism{stream, m} {
		if err := s.Init(ctx, p11.CKF_ENCRYPT, step, key); err != nil {
			b.Fatal(err)
		}
		in := out
		if out == nil {
			in = slices.Repeat(data, size/len(data))
		}
		var err error
		if out, err = s.Do(ctx, p11.CKF_ENCRYPT, in, nil, engine.NoLimit); err != nil {
			b.Fatal(err)
		}
	}
	return out[size:]
}

// bare is one message through a provider's library.
func bare(b *testing.B, p swtok.Provider, mode string, size, part int) func() {
	check := func(err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	c, err := p.NewBlockCipher(p11.CKK_AES, make([]byte, 32))
	check(err)
	iv, data, out := make([]byte, 16), make([]byte, part), make([]byte, part+16)
	each := func(f func()) {
		for n := 0; n < size; n += part {
			yield(n)
			f()
		}
	}
	switch {
	case mode == "aes-256-gcm" && p.Name() == "go": // whole parts: it has no others
		aead, err := cipher.NewGCM(c.Block())
		check(err)
		return func() { each(func() { aead.Seal(out[:0], iv[:12], data, nil) }) }
	case mode == "aes-256-gcm":
		return func() {
			g, err := c.GCM(iv[:12], nil, true)
			check(err)
			defer g.Close()
			each(func() { check(g.Crypt(out, data)) })
			check(g.Tag(out[:16]))
		}
	case mode == "aes-256-cbc":
		return func() {
			m := c.CBCEncrypter(iv)
			each(func() { m.CryptBlocks(out, data) })
		}
	}
	return func() {
		m, err := c.Mode("CTR", iv, true, swtok.ModeOptions{})
		check(err)
		defer m.Close()
		each(func() { check(m.(interface{ Crypt(dst, part []byte) error }).Crypt(out, data)) })
	}
}

// yield lets others run after each MiB of a message, of which there are n bytes, as a daemon
// does that waits for the next part. A goroutine that does not for 10 ms, and is in a library
// then, has Go's monitor take its processor away, and look after that each few microseconds
// for milliseconds to come, which costs 6 % of the time.
func yield(n int) {
	if n > 0 && n%(1<<20) == 0 {
		runtime.Gosched()
	}
}

// speedOf is how many bytes f does in a second of processor time, of all threads.
func speedOf(size int, f func()) float64 {
	const span = 400 * time.Millisecond
	start, n := processorTime(), 0
	for processorTime()-start < span {
		for range max(1, min(64, 1<<20/size)) {
			f()
			n++
		}
		runtime.Gosched()
	}
	return float64(n*size) / (processorTime() - start).Seconds()
}

func processorTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// opensslSpeed is openssl's own figure, a second.
func opensslSpeed(b *testing.B, args ...string) float64 {
	out, err := exec.Command("openssl", append([]string{"speed", "-mr", "-seconds", "1"}, args...)...).Output()
	if err != nil {
		b.Skip(err)
	}
	for line := range strings.Lines(string(out)) {
		if fields := strings.Split(strings.TrimSpace(line), ":"); strings.HasPrefix(fields[0], "+F") {
			f, err := strconv.ParseFloat(fields[3], 64)
			if err != nil {
				b.Fatal(err)
			}
			return f
		}
	}
	b.Fatalf("openssl speed says %q", out)
	return 0
}
