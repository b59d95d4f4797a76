package integration

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// copiesIn counts the places in a process's memory where any of the forms stands.
func copiesIn(t *testing.T, pid int, forms ...[]byte) int {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	n := 0
	for line := range strings.Lines(string(maps)) {
		var from, to int64
		if _, err := fmt.Sscanf(line, "%x-%x rw", &from, &to); err != nil || to-from > 256<<20 {
			continue // what the race detector keeps is longer, and no copy
		}
		b := make([]byte, to-from)
		if _, err := mem.ReadAt(b, from); err != nil {
			continue // a page that cannot be read has nothing
		}
		for _, f := range forms {
			n += bytes.Count(b, f)
		}
	}
	return n
}

// TestCopiesAfterLogout counts what a login leaves of secrets in the daemon's memory.
func TestCopiesAfterLogout(t *testing.T) {
	t.Parallel()
	needRoot(t)
	// Without the race detector, whose own memory would be searched too.
	d := startDaemon(t, daemonConfig{binary: plainBinary(t)})
	term := d.terminal()
	d.initToken(term)
	dir := strings.TrimSpace(term.ok("pwd"))
	needTools(t, "pkcs11-tool")
	term.ok("export P11FS_SOCKET=" + filepath.Join(d.dir, "p11fs", "rpc.sock"))
	tool := "pkcs11-tool --module " + ownModule(t) + " --login --pin " + userPIN
	prime := func() []byte { // writes a key to import, and returns a part of a prime
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
		if err := os.WriteFile(filepath.Join(dir, "key.pem"), text, 0o600); err != nil {
			t.Fatal(err)
		}
		return key.Primes[0].Bytes()[32:64]
	}
	var left [][3]int
	for round := range 3 {
		text := make([]byte, 24)
		if _, err := rand.Read(text); err != nil {
			t.Fatal(err)
		}
		marker := hex.EncodeToString(text)
		if err := os.WriteFile(filepath.Join(dir, "text"), []byte(marker), 0o600); err != nil {
			t.Fatal(err)
		}
		part := prime()
		reversed := slices.Clone(part)
		slices.Reverse(reversed)
		term.ok("echo " + userPIN + " > $T/login")
		term.ok(fmt.Sprintf("cp text $T/data/secret-%d && cat $T/data/secret-%d && echo $(cat text) >> $T/data/secret-%d", round, round, round))
		term.ok(fmt.Sprintf("cat key.pem > $T/import:pem,label=k%d && cat $T/import:pem,label=k%d", round, round))
		term.ok(fmt.Sprintf("ls -l $O $T/data; cat $O/*/info > /dev/null; grep -r nothing $O/secret-%d.dat; echo data > $O/k%d.key/sign && cat $O/k%d.key/sign > sig", round, round, round))
		term.ok("echo > $T/logout")
		term.ok(tool + " --write-object text --type data --private --label module && " + tool + " --read-object --type data --label module && " + tool + " --delete-object --type data --label module")
		texts, primes, words := copiesIn(t, d.pid(), []byte(marker)), copiesIn(t, d.pid(), part), copiesIn(t, d.pid(), reversed)
		t.Logf("round %d: %d times the text, %d times the prime, %d times in words", round, texts, primes, words)
		left = append(left, [3]int{texts, primes, words})
	}
	// What is left of most rounds are the numbers of math/big and crypto/rsa, which wipe
	// nothing; one round may leave what the collector has moved.
	for i, most := range [3]int{1, 1, 6} {
		slices.SortFunc(left, func(a, b [3]int) int { return a[i] - b[i] })
		if n := left[len(left)/2][i]; n > most {
			t.Errorf("after a logout there are %d copies, and may be %d: %v (text, prime, prime in words)", n, most, left)
		}
	}
}
