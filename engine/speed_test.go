package engine_test

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"fmt"
	"log/slog"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"p11fs/engine"
	"p11fs/p11"
	"p11fs/tokens/swtok"
)

// BenchmarkAgainstOpenSSL has messages encrypted in parts, and openssl speed beside it,
// in turns: the figures are medians, of openssl's speed. Both are of processor time, so
// that what else the machine does weighs little. "bare" is Go's own library with nothing
// around it. Run it with -benchtime=1x; it takes three minutes.
func BenchmarkAgainstOpenSSL(b *testing.B) {
	const rounds = 5
	sessions := map[string]*engine.Session{"go": speedSession(b, swtok.GoProvider())}
	if p := swtok.LoadProvider(slog.New(slog.DiscardHandler)); p.Name() != "go" {
		sessions[p.Name()] = speedSession(b, p)
	}
	for _, mode := range []struct{ openssl, mechanism string }{
		{"aes-256-gcm", "aes-gcm,iv=000102030405060708090a0b"},
		{"aes-256-cbc", "aes-cbc,iv=000102030405060708090a0b0c0d0e0f"},
		{"aes-256-ctr", "aes-ctr,bits=128,counter=000102030405060708090a0b0c0d0e0f"},
	} {
		for _, size := range []struct{ message, part int }{{64 << 10, 16 << 10}, {64 << 10, 64 << 10}, {16 << 20, 64 << 10}} {
			b.Run(fmt.Sprintf("%s/%d-in-%d", mode.openssl, size.message, size.part), func(b *testing.B) {
				ratios := make(map[string][]float64)
				for range rounds {
					base := opensslSpeed(b, mode.openssl, size.part)
					ratios["bare"] = append(ratios["bare"], speedOf(size.message, bare(b, mode.openssl, size.message, size.part))/base)
					for name, s := range sessions {
						for use, flag := range map[string]p11.Flags{"": p11.CKF_ENCRYPT, "-decrypt": p11.CKF_DECRYPT} {
							run := inParts(b, s, flag, mode.mechanism, size.message, size.part)
							ratios[name+use] = append(ratios[name+use], speedOf(size.message, run)/base)
						}
					}
				}
				for name, list := range ratios {
					slices.Sort(list)
					b.ReportMetric(list[rounds/2], name)
				}
				b.ReportMetric(0, "ns/op")
			})
		}
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
	m, err := p11.ParseMechanism(mechanism)
	if err != nil {
		b.Fatal(err)
	}
	template, _ := p11.ParseTemplate("label=speed")
	keys, err := s.Find(ctx, template)
	if err != nil || len(keys) != 1 {
		b.Fatal(keys, err)
	}
	tail := make([]byte, 0, 16)
	data, into := make([]byte, part), make([]byte, 0, part+64)
	message := func(flag p11.Flags) {
		if err := s.Init(ctx, flag, m, keys[0]); err != nil {
			b.Fatal(err)
		}
		for n := 0; n < size; n += part {
			if _, err := s.UpdateInto(ctx, flag, into, data, cap(into)); err != nil {
				b.Fatal(err)
			}
		}
	}
	if flag == p11.CKF_DECRYPT && m.Type == p11.CKM_AES_GCM {
		// The tag of what is decrypted: the data as a ciphertext of what it is for.
		tail = gcmTag(b, s, m, keys[0], data, size)
	}
	return func() {
		message(flag)
		if len(tail) > 0 {
			if _, err := s.Update(ctx, flag, tail, engine.NoLimit); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := s.Final(ctx, flag, nil, engine.NoLimit); err != nil {
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

// bare is one message through Go's library.
func bare(b *testing.B, mode string, size, part int) func() {
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		b.Fatal(err)
	}
	iv, data, out := make([]byte, 16), make([]byte, part), make([]byte, part+16)
	each := func(f func()) {
		for n := 0; n < size; n += part {
			f()
		}
	}
	switch mode {
	case "aes-256-gcm": // whole parts: it has no others
		aead, err := cipher.NewGCM(block)
		if err != nil {
			b.Fatal(err)
		}
		return func() { each(func() { aead.Seal(out[:0], iv[:12], data, nil) }) }
	case "aes-256-cbc":
		return func() {
			c := cipher.NewCBCEncrypter(block, iv)
			each(func() { c.CryptBlocks(out, data) })
		}
	}
	return func() {
		c := cipher.NewCTR(block, iv)
		each(func() { c.XORKeyStream(out, data) })
	}
}

// speedOf is how many bytes f does in a second of processor time, of all threads.
func speedOf(size int, f func()) float64 {
	const span = 400 * time.Millisecond
	start, n := processorTime(), 0
	for processorTime()-start < span {
		for range max(1, 1<<20/size) {
			f()
			n++
		}
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

// opensslSpeed is openssl's own figure, in bytes per second.
func opensslSpeed(b *testing.B, mode string, part int) float64 {
	out, err := exec.Command("openssl", "speed", "-mr", "-evp", mode, "-bytes", strconv.Itoa(part), "-seconds", "1").Output()
	if err != nil {
		b.Skip(err)
	}
	for line := range strings.Lines(string(out)) {
		if fields := strings.Split(strings.TrimSpace(line), ":"); fields[0] == "+F" {
			f, err := strconv.ParseFloat(fields[len(fields)-1], 64)
			if err != nil {
				b.Fatal(err)
			}
			return f
		}
	}
	b.Fatalf("openssl speed says %q", out)
	return 0
}
