package integration

import (
	"regexp"
	"strings"
	"testing"
)

// A sameRun is a list of command lines that run one after the other over a token,
// once with stock's pkcsslotd and once with p11fs in its place.
type sameRun struct {
	name  string
	token bool // the one stock made; else none yet
	lines []string
}

// A line that begins with "! " fails, so that the others are known to do something.
// In the lines, $M is the stock library, $tool pkcs11-tool with it, and $user that
// with a login.
func sameRuns() []sameRun {
	return []sameRun{
		{"token in use", true, []string{
			"pkcsconf -i", "pkcsconf -t", "pkcsconf -s", "pkcsconf -l", "pkcsconf -m -c 0", "pkcsconf -m", "! pkcsconf -h", "pkcsconf -t -c 0",
			"! pkcsconf -t -c 7", "! pkcsconf -s -c 7",
			"pkcsconf -p -c 0 -U 12345678 -n 11223344", "! pkcsconf -p -c 0 -U 99999999 -n 11223344", "pkcsconf -p -c 0 -U 11223344 -n 2",
			"pkcsconf -P -c 0 -S 76543210 -n 76543211", "! pkcsconf -P -c 0 -S 99999999 -n 76543212", "pkcsconf -u -c 0 -S 76543211 -n 55667788",
			"pkcsconf -t", "$tool --show-info", "$tool --list-slots", "$tool --list-token-slots", "$tool --list-mechanisms",
			"$tool --list-objects", "! $tool --login --pin wrong --list-objects", "$user --list-objects",
			"! $user --change-pin --new-pin 12345678", "$user --change-pin --new-pin 66778899", "$tool --login --pin 66778899 --change-pin --new-pin 55667788",
			"$user --keypairgen --key-type rsa:1024 --label pair --id 01", "! $user --keypairgen --key-type EC:prime256v1 --label ec --id 02",
			"$user --keygen --key-type AES:32 --label aes --id 03", "$user --list-objects | grep -v VALUE",
			"printf 'a message' > msg; $user --sign --mechanism SHA1-RSA-PKCS --id 01 --input-file msg --output-file sig",
			"$user --verify --mechanism SHA1-RSA-PKCS --id 01 --input-file msg --signature-file sig",
			"! $user --sign --mechanism SHA256-RSA-PKCS --id 01 --input-file msg --output-file sig2",
			"$tool --read-object --type pubkey --id 01 --output-file pub.der; openssl rsa -pubin -inform DER -in pub.der -out pub.pem; openssl dgst -sha1 -verify pub.pem -signature sig msg",
			"printf data > note; $user --write-object note --type data --label note", "$user --write-object note --type data --label secret-note --private",
			"$tool --read-object --type data --label note", "! $tool --read-object --type data --label secret-note", "$user --read-object --type data --label secret-note",
			"$user --delete-object --type data --label note", "! $user --delete-object --type data --label note", "$tool --delete-object --type secrkey --id 03", "! $user --delete-object --type secrkey --id 03",
			"$tool --generate-random 16 | wc -c", "$user --generate-random 16 --seed note | wc -c",
			"$user --hash --mechanism SHA256 --input-file msg | od -An -tx1", "$user --test", "$user --list-objects --type privkey",
			"p11tool --provider $M --list-tokens", "p11tool --provider $M --list-token-urls", "p11tool --provider $M --list-mechanisms pkcs11:model=IBM%20SoftTok",
			"p11tool --provider $M --list-all pkcs11:model=IBM%20SoftTok", "GNUTLS_PIN=55667788 p11tool --provider $M --login --list-all pkcs11:model=IBM%20SoftTok",
			"GNUTLS_PIN=55667788 p11tool --provider $M --login --list-privkeys pkcs11:model=IBM%20SoftTok", "GNUTLS_PIN=55667788 p11tool --provider $M --login --test-sign 'pkcs11:model=IBM%20SoftTok;object=tool-rsa'",
			"PKCS11_MODULE_PATH=$M openssl dgst -sha256 -engine pkcs11 -keyform engine -sign 'pkcs11:object=tool-rsa;type=private;pin-value=55667788' -out sig3 msg; od -An -tx1 sig3",
			"! for i in 1 2 3 4; do $tool --login --pin 9999 --list-objects; done", "pkcsconf -t", "pkcsconf -u -c 0 -S 76543211 -n 55667788", "pkcsconf -t", "$user --list-objects --type data",
			"! printf 'new label\\n' | pkcsconf -I -c 0 -S 11111111", "printf 'new label\\n' | pkcsconf -I -c 0 -S 76543211", "pkcsconf -t", "$tool --list-objects", "! $user --list-objects",
			"! for i in 1 2 3 4; do pkcsconf -P -c 0 -S 11111111 -n 22222222; done", "pkcsconf -t", "! printf 'new label\\n' | pkcsconf -I -c 0 -S 76543211",
		}},
		{"new token", false, []string{
			"pkcsconf -t", "! pkcsconf -u -c 0 -S 11111111 -n 12345678", "! $user --list-objects",
			"printf 'my token\\n' | pkcsconf -I -c 0 -S 87654321", "pkcsconf -t", "$tool --list-objects",
			"pkcsconf -u -c 0 -S 87654321 -n 12341234", "pkcsconf -P -c 0 -S 87654321 -n 76543210", "pkcsconf -p -c 0 -U 12341234 -n 11223344", "pkcsconf -t",
			"$tool --login --pin 11223344 --keypairgen --key-type rsa:1024 --label pair --id 01", "$tool --login --pin 11223344 --list-objects | grep -v VALUE",
			"$tool --init-token --slot-index 0 --so-pin 76543210 --label other", "$tool --list-objects", "pkcsconf -t",
			"! $tool --login --login-type so --so-pin 76543210 --init-pin --pin 12345678", "pkcsconf -t",
		}},
	}
}

// TestStockSame runs the same lines with the stock daemon and with p11fs: output,
// complaints and exit status are the same.
func TestStockSame(t *testing.T) {
	t.Parallel()
	needTools(t, "p11tool", "openssl")
	for _, run := range sameRuns() {
		t.Run(run.name, func(t *testing.T) {
			root := func() string {
				dir := workDir(t, "tokens")
				if run.token {
					unpackToken(t, dir)
				}
				return dir
			}
			stock, ours := startStock(t, root()), startLiveOver(t, root())
			for _, h := range []*terminal{stock.terminal, ours.terminal} {
				h.ok("cd " + workDir(t, "same") + " && M=" + stock.module + " && tool=\"pkcs11-tool --module $M\" && user=\"$tool --login --pin 55667788\"")
			}
			for _, line := range run.lines {
				line, fails := strings.CutPrefix(line, "! ")
				wait := stock.start(line)
				got := ours.run(line)
				want := wait()
				if (want.status != 0) != fails {
					t.Errorf("%s\nends with status %d, which this test does not expect of pkcsslotd\n%s%s", line, want.status, want.out, want.err)
				}
				if got.status != want.status || steady(got.out) != steady(want.out) || steady(got.err) != steady(want.err) {
					t.Errorf("%s\nwith pkcsslotd: status %d\n%s%s\nwith p11fs: status %d\n%s%s", line, want.status, want.out, want.err, got.status, got.out, got.err)
				}
			}
			ours.stop()
			stock.stop()
		})
	}
}

// steady is output without what differs between two runs: the time, the values of
// new keys, and the serial numbers of new tokens, which with stock are all the same.
func steady(out string) string {
	for _, changing := range []string{`Time: [0-9:]+`, `(?:Serial Number|Serial|serial num) *: *[0-9A-F]+ *`, `serial=[0-9A-F]+`, `EC_POINT: +[0-9a-f]+`, `id=[^;\n]*`, `0x[0-9a-f]{12,}`, `(?m)^[0-9A-F]+:error`} {
		out = regexp.MustCompile(changing).ReplaceAllString(out, "…")
	}
	return strings.TrimSpace(out)
}
