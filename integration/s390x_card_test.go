package integration

import (
	"context"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"p11fs/tokens/card"
	"p11fs/tokens/card/soft"
	"p11fs/tokens/swtok"
)

// The distribution links its EP11 token with functions that are nowhere. None of them is
// called; what is preloaded has their names.
const ep11Stubs = `unsigned long dsa_sign(void) { return 0x54; }
unsigned long dsa_verify(void) { return 0x54; }
unsigned long ckm_dsa_key_pair_gen(void) { return 0x54; }
unsigned long ckm_dh_pkcs_key_pair_gen(void) { return 0x54; }
unsigned long dh_pkcs_derive(void) { return 0x54; }
`

const ep11Config = `version opencryptoki-3.8
slot 0
{
stdll = libpkcs11_ep11.so
confname = ep11tok.conf
}
`

// cardFolder is where the machine has the socket and the libraries.
const cardFolder = "/run/card"

// startCard has a software card answer in dir.
func startCard(t *testing.T, dir string) *soft.Set {
	t.Helper()
	place := workDir(t, "card")
	if err := soft.MakeSet(place, "ep11", []card.APQN{{Adapter: 0, Domain: 1}}, []string{soft.WK}); err != nil {
		t.Fatal(err)
	}
	set, err := soft.OpenSet(place)
	if err != nil {
		t.Fatal(err)
	}
	via := soft.NewEP11(set, swtok.GoProvider(), slog.New(slog.DiscardHandler))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "socket"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- (&card.Server{ABI: card.EP11, Card: via, Log: slog.New(slog.DiscardHandler)}).Serve(ctx, l)
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := via.Close(); err != nil {
			t.Error(err)
		}
	})
	return set
}

// crossCompiled builds libep11.so, and what the stock token lacks, for s390x.
func crossCompiled(t *testing.T, dir string) {
	t.Helper()
	const cc = "s390x-linux-gnu-gcc"
	needTools(t, cc)
	stubs := filepath.Join(dir, "stubs.c")
	if err := os.WriteFile(stubs, []byte(ep11Stubs), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"make", "-s", "-C", "..", "-f", "cmd/libcard/build.mk", "libcard", "LIBCARD=" + dir, "CC=" + cc},
		{cc, "-shared", "-fPIC", "-o", filepath.Join(dir, "stubs.so"), stubs},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
}

// TestS390XCard has stock's EP11 token of s390x work over libep11.so and a software card
// on this machine, whose byte order is another: the stock token judges what we make of the
// interface, and openssl what comes out.
func TestS390XCard(t *testing.T) {
	t.Parallel()
	root := os.Getenv(s390xEnv)
	if _, err := os.Stat(filepath.Join(root, "qemu")); root == "" || err != nil {
		t.Skip("needs stock s390x programs: make test-s390x fetches them")
	}
	dir := workDir(t, "libraries")
	crossCompiled(t, dir)
	set := startCard(t, dir)
	conf := filepath.Join(dir, "ep11tok.conf")
	if err := os.WriteFile(conf, []byte("APQN_WHITELIST\n0 1\nEND\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	tokens := workDir(t, "tokens")
	if err := os.MkdirAll(filepath.Join(tokens, "ep11tok", "TOK_OBJ"), 0o770); err != nil { // which the package makes
		t.Fatal(err)
	}
	h := s390xHost{startChroot(t, chrootConfig{
		root: root, tokens: tokens, conf: ep11Config, daemon: "/qemu -0 pkcsslotd", socket: "/run/pkcsslotd.socket",
		run:     "/qemu -E LD_PRELOAD=" + cardFolder + "/stubs.so -E LD_LIBRARY_PATH=" + cardFolder + " -E P11FS_CARD=" + cardFolder + "/socket",
		library: "/usr/lib/s390x-linux-gnu/opencryptoki/libopencryptoki.so.0",
		more: "mount --bind /etc/group $R/etc/group\nmkdir -p $R" + cardFolder + "\nmount --bind " + dir + " $R" + cardFolder +
			"\n: >> $R/etc/opencryptoki/ep11tok.conf\nmount --bind " + conf + " $R/etc/opencryptoki/ep11tok.conf\n",
	})}
	h.startSlotd()
	h.initToken("0")
	tool := "tool --slot 0 --login --pin " + userPIN + " "
	h.makeObjects(tool)
	h.lists(tool, "RSA 2048 bits", "their-aes", "their-note", "their-public-note")
	h.ok(tool + "--read-object --type pubkey --id 01 -o /tmp/pub.der && openssl pkey -pubin -inform DER -in $R/tmp/pub.der -out $R/tmp/pub.pem")
	h.signs(tool, "01", "$R/tmp/pub.pem")
	h.ok(tool + "--sign --mechanism SHA256-RSA-PKCS --id 01 -i /tmp/note -o /tmp/sig")
	h.ok("openssl dgst -sha256 -verify $R/tmp/pub.pem -signature $R/tmp/sig $R/tmp/note")
	h.ok(tool + "--verify --mechanism SHA256-RSA-PKCS --id 01 -i /tmp/note --signature-file /tmp/sig")
	h.ok("openssl pkeyutl -encrypt -pubin -inkey $R/tmp/pub.pem -in $R/tmp/msg -out $R/tmp/sealed && " + tool + "--decrypt --mechanism RSA-PKCS --id 01 -i /tmp/sealed -o /tmp/opened && cmp $R/tmp/msg $R/tmp/opened")

	h.ok(tool + "--keypairgen --key-type EC:prime256v1 --label ec --id 03 --usage-sign --usage-derive")
	h.ok("openssl dgst -sha256 -binary -out $R/tmp/digest $R/tmp/note && " + tool + "--sign --mechanism ECDSA --id 03 -i /tmp/digest -o /tmp/ecsig && " + tool + "--verify --mechanism ECDSA --id 03 -i /tmp/digest --signature-file /tmp/ecsig")

	h.ok(tool + "--hash --mechanism SHA256 -i /tmp/note -o /tmp/hash && cmp $R/tmp/hash $R/tmp/digest")
	iv := "000102030405060708090a0b0c0d0e0f"
	h.ok("openssl rand 32 > $R/tmp/key && " + tool + "--write-object /tmp/key --type secrkey --key-type AES:32 --id 04 --label imported --usage-decrypt")
	h.ok("head -c 64 /dev/urandom > $R/tmp/plain; " + tool + "--encrypt --mechanism AES-CBC-PAD --iv " + iv + " --id 04 -i /tmp/plain -o /tmp/cipher && " +
		"openssl enc -d -aes-256-cbc -K $(od -An -v -tx1 $R/tmp/key | tr -d ' \\n') -iv " + iv + " -in $R/tmp/cipher | cmp - $R/tmp/plain")
	h.ok(tool + "--decrypt --mechanism AES-CBC-PAD --iv " + iv + " --id 04 -i /tmp/cipher -o /tmp/again && cmp $R/tmp/again $R/tmp/plain")

	if err := set.Change(nil, soft.WK, soft.ChangeNew); err != nil {
		t.Fatal(err)
	}
	for _, change := range []string{soft.ChangeCommit, soft.ChangeActivate} {
		if err := set.Change(nil, soft.WK, change); err != nil {
			t.Fatal(err)
		}
	}
	h.ok("! " + tool + "--sign --mechanism SHA256-RSA-PKCS --id 01 -i /tmp/note -o /tmp/sig 2> $R/tmp/why; grep -i 80010001 $R/tmp/why || { cat $R/tmp/why; false; }")
	h.endSlotd()
	h.close()
}
