package integration

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"p11fs/p11"
	"p11fs/tokens/store/format"
	"p11fs/tokens/swtok"
)

// plant puts public objects of 16 MiB into a token directory, with their lines, as who may
// write it can. The files have no blocks but their first.
func plant(t *testing.T, dir string, f format.Format, first, n int) {
	t.Helper()
	codec, err := f.Objects(nil)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := os.OpenFile(filepath.Join(dir, "TOK_OBJ/OBJ.IDX"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer lines.Close()
	var attrs p11.Attributes
	attrs.SetUlong(p11.CKA_CLASS, uint64(p11.CKO_DATA))
	attrs.SetBool(p11.CKA_TOKEN, true)
	attrs.SetBool(p11.CKA_PRIVATE, false)
	attrs.Set(p11.CKA_LABEL, []byte("planted"))
	attrs.Set(p11.CKA_VALUE, make([]byte, format.MaxObjectFile-4096))
	const any = "PLANTED0" // the name in the file, which it has once
	name, ok := format.ParseName(any)
	b, err := codec.Seal(name, attrs, nil)
	if !ok || err != nil {
		t.Fatal(err)
	}
	head := bytes.TrimRight(b, "\x00")
	for i := first; i < first+n; i++ {
		name := fmt.Sprintf("PL%06d", i)
		file := filepath.Join(dir, "TOK_OBJ", name)
		if err = os.WriteFile(file, bytes.Replace(head, []byte(any), []byte(name), 1), 0o600); err == nil {
			err = os.Truncate(file, int64(len(b)))
		}
		if err == nil {
			_, err = fmt.Fprintln(lines, name)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestPlantedFiles: a thousand objects of 16 MiB in the token's directory, before the daemon
// starts and beside it, do not take the machine's memory, nor a key from who has logged in.
func TestPlantedFiles(t *testing.T) {
	t.Parallel()
	needTools(t, "openssl")
	facts, _ := format.KindOf(swtok.Kind)
	facts312, _ := format.KindOf312(swtok.Kind)
	for name, f := range map[string]format.Format{"3.8": format.V38(facts, rand.Reader), "3.12": format.V312(facts312, rand.Reader, format.Iterations)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// Without the race detector, whose shadow memory would be measured too.
			d, term := ready(t, daemonConfig{binary: plainBinary(t), modern: name == "3.12"})
			term.ok("echo 'ec:p256 label=mine' > $T/generate && cat $T/generate && cat $O/mine.pub/public.pem > " + filepath.Join(d.dir, "mine.pem"))
			use := "echo text > msg && cat msg > $O/mine.key/sign && cat $O/mine.key/sign > sig && openssl dgst -sha256 -verify " + filepath.Join(d.dir, "mine.pem") + " -signature sig msg"
			dir := filepath.Join(d.tokenRoot(), swtok.Kind)
			check := func(when string, planted int) {
				t.Helper()
				term.ok(use)
				most, now := d.memory("VmHWM"), d.memory("VmRSS")
				t.Logf("%s: %d MiB, and %d MiB at most", when, now, most)
				if most >= 512 {
					t.Errorf("%s: the daemon has had %d MiB", when, most)
				}
				loaded := strings.Fields(term.ok("ls $O | grep -c planted; true"))[0]
				status := term.ok("cat $P/status")
				var n, left int
				_, _ = fmt.Sscan(loaded, &n)
				if _, after, ok := strings.Cut(status, "TOK_OBJ: "); ok {
					_, _ = fmt.Sscan(after, &left)
				}
				if n == 0 || n+left != planted {
					t.Errorf("%s: %d objects are there, and %d are told to have no room, of %d\n%s", when, n, left, planted, status)
				}
			}
			const each = 500
			plant(t, dir, f, 0, each)
			check("beside the daemon", each)
			d.stop()
			plant(t, dir, f, each, each)
			d.start()
			term = d.terminal()
			term.ok("echo " + userPIN + " > $T/login")
			check("before it starts", 2*each)
			if files, err := filepath.Glob(filepath.Join(dir, "TOK_OBJ/PL*")); err != nil || len(files) != 2*each {
				t.Errorf("%d files are left of %d (%v)", len(files), 2*each, err)
			}
		})
	}
}
