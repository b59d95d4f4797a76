package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestInvented adds a parameter, a type, a hash, a curve and mechanisms that nobody
// knows to table.txt, and nothing to any code but what a custom parameter needs. What
// is generated then reads, prints and checks them, and what the module in C sends
// is what the daemon reads.
func TestInvented(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	run := func(in, program string, args ...string) string {
		t.Helper()
		c := exec.Command(program, args...)
		c.Dir = in
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %v: %v\n%s", program, args, err, out)
		}
		return string(out)
	}
	text := inventedTable(t)
	// The go command keeps results of tests: it must see what this one depends on.
	for _, pattern := range []string{"../src/*.[ch]", "../../../p11/gen/*.go", "../../../p11/gen/templates/*"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			read(t, name)
		}
	}

	// The module in C.
	files, err := generate(text)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if folder(name) == "src" {
			write(name, text)
		}
	}
	sources := []string{"mechanism_gen.c", absolute(t, "testdata/invented.c")}
	for _, name := range []string{"mechanism.c", "kbkdf.c", "attributes.c", "value.c", "buffer.c"} {
		sources = append(sources, absolute(t, "../src/"+name))
	}
	for _, name := range []string{"mechanism.h", "call.h", "conn.h", "search.h", "buffer.h", "session.h", "pkcs11.h"} {
		write(name, read(t, "../src/"+name)) // beside the generated ones, and not those in src
	}
	run(dir, "cc", append([]string{"-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-iquote", dir, "-o", "invented"}, sources...)...)
	sent := write("sent", run(dir, filepath.Join(dir, "invented")))

	// The daemon in Go, with the generated files instead of those of package p11.
	write("table.txt", text)
	run(".", "go", "build", "-o", filepath.Join(dir, "gen"), "p11fs/p11/gen")
	run(dir, filepath.Join(dir, "gen"))
	replace := map[string]string{
		absolute(t, "../../../p11/special.go"):                   write("special.go", read(t, "testdata/special.txt")),
		absolute(t, "../../../p11/invented_test.go"):             write("p11_test.go", read(t, "testdata/p11_test.txt")),
		absolute(t, "../../../mountd/rpc/wire/invented_test.go"): write("wire_test.go", read(t, "testdata/wire_test.txt")),
	}
	made, err := filepath.Glob(filepath.Join(dir, "*_gen.go"))
	if err != nil || len(made) == 0 {
		t.Fatalf("files %v, %v", made, err)
	}
	for _, path := range made {
		replace[absolute(t, "../../../p11/"+filepath.Base(path))] = path
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("P11FS_INVENTED", sent)
	out := run(".", "go", "test", "-count=1", "-v", "-run", "^TestInvented$", "-overlay", write("overlay.json", string(overlay)), "p11fs/p11", "p11fs/mountd/rpc/wire")
	if n := strings.Count(out, "--- PASS: TestInvented"); n != 2 {
		t.Errorf("%d tests ran:\n%s", n, out)
	}
}

// inventedTable is table.txt with testdata/invented.txt in it, and names for it.
func inventedTable(t *testing.T) string {
	t.Helper()
	text := read(t, "../../../p11/table.txt")
	for _, add := range []struct{ before, line string }{
		{"\nhashes\n", read(t, "testdata/invented.txt")},
		{"\ncurves\n", "\ninvented-hash 32 go=SHA256 mgf=invented kdf=invented"},
		{"\ntype MechanismType", "\ninvented1 1.2.3.4 9 key=ec aka=inv1"},
		{"\nCKM_VENDOR_DEFINED ", "\nCKM_INVENTED 0x7ff00001 fn=encrypt,decrypt key=aes param=Invented" +
			"\nCKM_INVENTED_SPECIAL 0x7ff00002 fn=encrypt,decrypt key=aes param=Special?" +
			"\nCKM_INVENTED_HASH 0x7ff00003 fn=digest" +
			"\nCKM_INVENTED_HASH_HMAC 0x7ff00004 fn=sign,verify key=generic-secret hash=invented-hash"},
		{"\ntype UserType ", "\ntype InventedMode CKI_ invented mode \"CK_INVENTED_MODE\"\nCKI_SLOW 0x0\nCKI_FAST 0x7"},
		{"\nCKG_VENDOR_DEFINED ", "\nCKG_INVENTED 0x7ff00005"},
		{"\n- p11fs-* ", "\n- invented* \"of a test\""},
		{"\nCKD_VENDOR_DEFINED ", "\nCKD_INVENTED 0x7ff00006"},
	} {
		if strings.Count(text, add.before) != 1 {
			t.Fatalf("table.txt does not have %q once", add.before)
		}
		text = strings.Replace(text, add.before, add.line+add.before, 1)
	}
	return text
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func absolute(t *testing.T, path string) string {
	t.Helper()
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return path
}
