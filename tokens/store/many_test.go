package store

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"p11fs/p11"
	"p11fs/tokens/store/format"
)

// ecKey is the attributes of a key of EC, as a token makes one.
func ecKey(b *testing.B, i int, private bool) p11.Attributes {
	point := make([]byte, 67)
	_, _ = rand.Read(point)
	text := "class=public-key key-type=ec token=true private=false modifiable=true copyable=true destroyable=true local=true derive=true verify=true verify-recover=false encrypt=false wrap=false trusted=false subject=\"\" start-date=\"\" end-date=\"\" key-gen-mechanism=0x1040 ec-params=0x06082a8648ce3d030107"
	if private {
		text = "class=private-key key-type=ec token=true private=true modifiable=true copyable=true destroyable=true local=true derive=true sign=true sign-recover=false decrypt=false unwrap=false sensitive=true always-sensitive=true extractable=false never-extractable=true always-authenticate=false wrap-with-trusted=false subject=\"\" start-date=\"\" end-date=\"\" key-gen-mechanism=0x1040 ec-params=0x06082a8648ce3d030107"
	}
	a, err := p11.ParseTemplate(text)
	if err != nil {
		b.Fatal(err)
	}
	a.Set(p11.CKA_LABEL, fmt.Appendf(nil, "object %d", i))
	a.Set(p11.CKA_ID, fmt.Appendf(nil, "id%d", i))
	a.Set(p11.CKA_UNIQUE_ID, fmt.Appendf(nil, "%032x", i))
	a.Set(p11.CKA_EC_POINT, point)
	if private {
		a.Set(p11.CKA_VALUE, point[:32])
	}
	return a
}

// writeMany gives the token in a closed store's directory n keys, half of them private, without
// waiting for the disk.
func writeMany(b *testing.B, s *Store, n int) {
	b.Helper()
	codec, err := s.objectFiles()
	if err != nil {
		b.Fatal(err)
	}
	f, data := s.snapshot()
	names, data, err := f.NewNames(data, n, func(format.Name) (bool, error) { return false, nil })
	if err != nil || len(names) != n {
		b.Fatalf("%d names: %v", len(names), err)
	}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := g; i < n; i += 4 {
				file, err := codec.Seal(names[i], ecKey(b, i, i%2 == 0), nil)
				if err == nil {
					err = os.WriteFile(filepath.Join(s.cfg.Dir, objectsDir, names[i].String()), file, 0o600)
				}
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if err := s.Close(); err != nil {
		b.Error(err)
	}
	writeFile(b, format.EditIndex(nil, nil, names...), s.cfg.Dir, objectsDir, indexFile)
	writeFile(b, f.PrintFile(data), s.cfg.Dir, dataFile)
}

// BenchmarkMany opens and logs in to a token of very many keys. P11FS_TEST_MANY says how many.
func BenchmarkMany(b *testing.B) {
	n, _ := strconv.Atoi(os.Getenv("P11FS_TEST_MANY"))
	if n == 0 {
		b.Skip("P11FS_TEST_MANY says how many objects")
	}
	cfg := config(b, filepath.Join(b.TempDir(), "token"))
	cfg.Create, cfg.Room = true, -1
	s := initialised(b, cfg)
	login(b, s, p11.CKU_USER, testUser)
	writeMany(b, s, n)
	for b.Loop() {
		begun, used := time.Now(), usedTime()
		step := func(what string) {
			b.ReportMetric(time.Since(begun).Seconds(), what+"-s")
			b.ReportMetric((usedTime() - used).Seconds(), what+"-cpu-s")
			begun, used = time.Now(), usedTime()
		}
		s := openStore(b, cfg)
		step("open")
		l := login(b, s, p11.CKU_USER, testUser)
		step("login")
		all, err := s.Find(b.Context(), nil, true)
		if err != nil || len(all) != n {
			b.Fatalf("%d objects: %v", len(all), err)
		}
		step("find-all")
		for i := range 1000 {
			found, err := s.Find(b.Context(), p11.Attributes{{Type: p11.CKA_LABEL, Value: fmt.Appendf(nil, "object %d", i*n/1000)}}, true)
			if err != nil || len(found) != 1 {
				b.Fatalf("%d objects: %v", len(found), err)
			}
		}
		step("find-1000")
		b.ReportMetric(resident(), "rss-MiB")
		debug.FreeOSMemory()
		begun, used = time.Now(), usedTime()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		b.ReportMetric(float64(m.HeapAlloc)/(1<<20), "heap-MiB")
		b.ReportMetric(resident(), "rss-after-MiB")
		_ = l.Close()
		step("logout")
		_ = s.Close()
		step("close")
	}
}

func usedTime() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func resident() float64 {
	b, _ := os.ReadFile("/proc/self/statm")
	pages, _ := strconv.Atoi(strings.Fields(string(b))[1])
	return float64(pages*os.Getpagesize()) / (1 << 20)
}
