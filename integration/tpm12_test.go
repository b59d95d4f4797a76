package integration

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"p11fs/tokens/tpm/tpmtest"
)

// tpm12Testdata is the token directory of stock's tpm token, the state of its TPM and
// that of tcsd, and says what is in them.
const tpm12Testdata = "../tokens/tpm/tpm12/testdata/"

// tpm12Config is the configuration of the stock daemon for a TPM 1.2. The file that it
// names is ours.
const tpm12Config = `version opencryptoki-3.8
slot 0
{
stdll = libpkcs11_tpm.so
confname = /run/tpm.conf
}
`

// A tpm12Host is a liveHost with a TPM 1.2 in software and with tcsd, through which the
// stock library reaches it. device is where p11fs has the same TPM at the same time.
type tpm12Host struct {
	*liveHost
	soft   *tpmtest.TPM
	device string
	made   tpm12Manifest
	ours   *client // of our module, if there is one
}

// A tpm12Manifest says what is in tpm12Testdata.
type tpm12Manifest struct {
	SOPIN      string `json:"so_pin"`
	UserPIN    string `json:"user_pin"`
	Signatures map[string]string
}

// newTPM12 boots a tpm12Host with the TPM of tpm12Testdata, which has an owner, and with
// the token that stock made on it, or with none.
func newTPM12(t testing.TB, made bool) *tpm12Host {
	t.Helper()
	needStock(t)
	needTools(t, "swtpm", "tcsd", "ss", "openssl")
	h := &tpm12Host{}
	text, err := os.ReadFile(tpm12Testdata + "manifest.json")
	if err == nil {
		err = json.Unmarshal(text, &h.made)
	}
	archive := tpm12Testdata + "tpm12.tar.gz"
	state, rerr := os.ReadFile(archive)
	if err != nil || rerr != nil {
		t.Fatal(err, rerr)
	}
	dir, root := workDir(t, "tpm12"), workDir(t, "tokens")
	if out, err := exec.Command("tar", "-xzf", archive, "-C", dir).CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	h.soft = tpmtest.Start12(t, state)
	h.device = h.soft.Share(t)
	h.liveHost = newLive(t, root, "tpm", tpm12Config, "--net")
	if made {
		err = os.Rename(filepath.Join(dir, "tpm"), filepath.Join(root, "tpm"))
	} else {
		err = os.MkdirAll(filepath.Join(root, "tpm", "TOK_OBJ"), 0o770)
	}
	if err != nil {
		t.Fatal(err)
	}
	h.ok("chgrp -R pkcs11 /var/lib/opencryptoki && chmod 770 /var/lib/opencryptoki/tpm /var/lib/opencryptoki/tpm/TOK_OBJ")
	h.ok("D=/var/lib/opencryptoki/tpm; X=" + quote(dir))
	// The secret of the storage root key is 20 zeros.
	h.ok("export OCK_SRK_MODE=TSS_SECRET_MODE_SHA1 OCK_SRK_SECRET=" + strings.Repeat("0", 40))
	h.ok("ip link set lo up && mount -t tmpfs -o mode=700 tmpfs /var/lib/tpm && cp $X/system.data /var/lib/tpm && chown -R tss:tss /var/lib/tpm")
	// tcsd wants this owner and this mode.
	h.ok("printf 'port = 30003\nsystem_ps_file = /var/lib/tpm/system.data\n' > /run/tcsd.conf && chown root:tss /run/tcsd.conf && chmod 640 /run/tcsd.conf")
	h.ok("TCSD_UN_SOCKET_DEVICE_PATH=" + quote(h.device) + " tcsd -e -f -c /run/tcsd.conf > /run/tcsd.log 2>&1 & tcsd=$!")
	h.ok("for i in $(seq 500); do ss -ltn | grep -q :30003 && break; sleep 0.02; done; ss -ltn | grep :30003 || { cat /run/tcsd.log >&2; false; }")
	return h
}

// slotd starts stock's slot daemon.
func (h *tpm12Host) slotd() {
	h.t.Helper()
	h.ok("pkcsslotd -f & slotd=$!")
	h.ok("for i in $(seq 500); do [ -S /run/pkcsslotd.socket ] && break; sleep 0.01; done; [ -S /run/pkcsslotd.socket ]")
}

// end ends what newTPM12 and slotd began.
func (h *tpm12Host) end() {
	h.t.Helper()
	h.ok("kill $tcsd $slotd; wait $slotd $tcsd; true")
	h.close()
}

// tool runs pkcs11-tool with the stock library.
func (h *tpm12Host) tool(args string) string {
	h.t.Helper()
	return h.ok("pkcs11-tool --module " + h.module + " " + args)
}

// signs has a client sign by keys of tpm12Testdata, with the signatures that are in the
// manifest.
func (h *tpm12Host) signs(c *client, keys ...string) {
	h.t.Helper()
	for _, key := range keys {
		c.want("sign "+key+" hello", "ok "+h.made.Signatures[key])
	}
}

// The harness itself: stock alone, through tcsd, makes a token and its keys.
func TestTPM12Stock(t *testing.T) {
	t.Parallel()
	h := newTPM12(t, false)
	h.slotd()
	h.tool("--init-token --slot-index 0 --so-pin 87654321 --label fresh")
	c := h.client(0)
	for _, line := range []string{"login 87654321 0", "setpin 87654321 76543210", "logout", "login 12345678", "setpin 12345678 13572468", "logout"} {
		c.want(line, "ok")
	}
	c.want("info", "ok fresh flags=0x44d")
	c.end()
	login := "--login --pin 13572468 "
	h.tool(login + "--keypairgen --key-type rsa:2048 --label made --id 01")
	h.ok("openssl genrsa -traditional -out own.pem 2048 && openssl rsa -in own.pem -pubout -out own.pub")
	h.tool(login + "--write-object own.pem --type privkey --label own --id 02 --usage-sign")
	h.tool("--read-object --type pubkey --label made -o made.der")
	h.ok("openssl rsa -pubin -inform DER -in made.der -out made.pub && printf hello > msg")
	for id, key := range map[string]string{"01": "made", "02": "own"} { // it does not look for labels
		h.tool(login + "--sign --mechanism SHA1-RSA-PKCS --id " + id + " -i msg -o sig")
		h.ok("openssl dgst -sha1 -verify " + key + ".pub -signature sig msg")
	}
	if out := h.tool(login + "--list-objects"); strings.Count(out, "label:      made\n") != 2 || strings.Count(out, "label:      own\n") != 1 {
		t.Errorf("stock lists\n%s", out)
	}
	if out := h.ok("pkcsconf -t"); !strings.Contains(out, "TPM v1.1 Token") || !strings.Contains(out, "fresh") {
		t.Errorf("pkcsconf -t says\n%s", out)
	}
	h.end()
}

// The harness itself: the fixture's signatures come out the same.
func TestTPM12StockReadsItsOwnToken(t *testing.T) {
	t.Parallel()
	h := newTPM12(t, true)
	h.slotd()
	c := h.client(0)
	c.want("sign gen-nologin hello", "ok "+h.made.Signatures["gen-nologin"])
	c.want("login "+h.made.UserPIN, "ok")
	h.signs(c, "gen-priv", "gen-pub", "ext-priv")
	c.end()
	h.end()
}
