package integration

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
)

// serves starts our daemon in the place of pkcsslotd. It has the TPM while tcsd has it,
// which a hub makes possible: a chip's device would be that of one of them.
func (h *tpm12Host) serves() {
	h.t.Helper()
	h.ok("echo device = unix:" + quote(h.device) + " > /run/tpm.conf")
	h.serve()
}

// verified has a client sign by a key, whose public half is in a file.
func (h *tpm12Host) verified(c *client, key, file string) {
	h.t.Helper()
	answer := c.do("sign " + key + " hello")
	if answer == "0x6" && c != h.ours {
		// Once, with stock alone too: tcsd has unloaded the leaf key for a program that
		// has ended, for those that go on as well.
		answer = c.do("sign " + key + " hello")
	}
	signature, ok := strings.CutPrefix(answer, "ok ")
	if !ok {
		h.t.Errorf("signing by %s: %s", key, signature)
		return
	}
	h.ok("printf hello > msg && python3 -c 'import sys; sys.stdout.buffer.write(bytes.fromhex(sys.argv[1]))' " + signature + " > sig")
	h.ok("openssl dgst -sha1 -verify " + file + " -signature sig msg")
}

// TestTPM12Live has our daemon and two stock processes, which stay, work with one token of
// a TPM 1.2: each change is seen by the others at once, and all sign by all keys.
func TestTPM12Live(t *testing.T) {
	t.Parallel()
	h := newTPM12(t, true)
	h.serves()
	pin, so := h.made.UserPIN, h.made.SOPIN
	h.ok("echo " + pin + " > $T/login; ls $O")
	h.ours = h.ownClient(2)
	a, b, ours := h.client(0), h.client(1), h.ours
	all := []*client{a, b, ours}
	for _, c := range all {
		c.want("login "+pin, "ok")
	}
	same := func(t *testing.T) {
		t.Helper()
		want := a.do("list")
		b.want("list", want)
		ours.want("list", want)
	}
	// signs has all sign by a key that one of them has made.
	signs := func(t *testing.T, key string) {
		t.Helper()
		same(t)
		for _, c := range all {
			h.verified(c, key, key+".pub")
		}
		h.ok("openssl pkey -pubin -in " + key + ".pub > pem && cat $O/" + key + ".pub/public.pem | openssl pkey -pubin | cmp - pem")
	}
	tool := "pkcs11-tool --module " + h.module + " --login --pin " + pin + " "

	t.Run("as stock made it", func(t *testing.T) {
		same(t)
		ours.want("hidden", "ok 0")
		for _, c := range all {
			h.signs(c, "gen-priv", "gen-pub", "ext-priv")
		}
	})
	t.Run("made by ours", func(t *testing.T) {
		h.ok("echo 'rsa:2048 label=ours id=0x71' > $T/generate && cat $T/generate && cat $O/ours.pub/public.pem > ours.pub")
		signs(t, "ours")
	})
	t.Run("made by stock", func(t *testing.T) {
		h.ok(tool + "--keypairgen --key-type rsa:2048 --label theirs --id 72 && cat $O/theirs.pub/public.pem > theirs.pub")
		signs(t, "theirs")
	})
	t.Run("imported by ours", func(t *testing.T) {
		h.ok("openssl genrsa -traditional -out own.pem 2048 && openssl rsa -in own.pem -pubout -out brought.pub && cat own.pem > $T/import:pem,label=brought")
		signs(t, "brought")
	})
	t.Run("imported by stock", func(t *testing.T) {
		h.ok("openssl genrsa -traditional -out own.pem 2048 && openssl rsa -in own.pem -pubout -out carried.pub")
		h.ok(tool + "--write-object own.pem --type privkey --label carried --id 74 --usage-sign && " + tool + "--write-object carried.pub --type pubkey --label carried --id 74")
		// Ours before stock, which wraps it at its first use.
		h.verified(ours, "carried", "carried.pub")
		signs(t, "carried")
	})
	t.Run("objects", func(t *testing.T) {
		a.want("create theirs-private two 1", "ok")
		h.ok("echo three > $T/data/note")
		b.want("relabel theirs-private both", "ok")
		same(t)
		h.want("cat $O/both.dat/value", "two")
		b.want("value note", "ok three")
	})
	t.Run("destroyed", func(t *testing.T) {
		h.ok("rmdir $O/carried.key && rmdir $O/carried.pub && rm $T/data/note")
		a.want("destroy ours", "ok")
		a.want("destroy ours", "ok") // its other half
		same(t)
		for _, c := range all {
			for _, key := range []string{"ours", "carried"} {
				c.want("sign "+key+" hello", "no key "+key)
			}
		}
	})
	h.soft.Forgive(t, h.device)
	t.Run("PIN by ours", func(t *testing.T) {
		h.ok("echo '" + pin + " by-ours' > $T/pin")
		b.want("logout", "ok")
		b.want("login "+pin, "0xa0")
		b.want("login by-ours", "ok")
		pin = "by-ours"
		h.signs(b, "gen-priv")
		for _, key := range []string{"theirs", "brought"} {
			h.verified(b, key, key+".pub")
		}
	})
	h.soft.Forgive(t, h.device)
	t.Run("PIN by stock", func(t *testing.T) {
		b.want("setpin "+pin+" by-stock", "ok")
		ours.want("logout", "ok")
		ours.want("login "+pin, "0xa0")
		ours.want("login by-stock", "ok")
		pin = "by-stock"
		h.signs(ours, "gen-priv", "gen-pub", "ext-priv")
		h.verified(ours, "brought", "brought.pub")
	})
	for _, c := range all {
		c.want("logout", "ok")
	}
	// A login with the PIN before ended when one with the new one came.
	h.want("cat $T/login", "public\n")
	h.soft.Forgive(t, h.device)
	t.Run("the SO's PIN", func(t *testing.T) {
		h.ok("printf '%s\n' " + so + " so-by-us | setsid -w " + quote(binary()) + " pin --mount $P --so")
		a.want("login "+so+" 0", "0xa0")
		a.want("login so-by-us 0", "ok")
		a.want("setpin so-by-us so-stock", "ok")
		a.want("logout", "ok")
		ours.want("login so-stock 0", "ok")
		ours.want("logout", "ok")
		so = "so-stock"
	})
	h.soft.Forgive(t, h.device)
	t.Run("locked", func(t *testing.T) {
		a.want("login wrong-1", "0xa0")
		ours.want("login wrong-2", "0xa0")
		h.fails("sh -c '/bin/echo wrong-3 > $T/login'", syscall.EKEYREJECTED)
		for _, c := range all {
			c.want("login "+pin, "0xa4")
		}
		h.ok("echo so:" + so + " > $T/login && echo init-pin " + pin + " > $T/ctl && echo > $T/logout")
		for _, c := range all {
			c.want("login "+pin, "ok")
		}
		h.ok("echo " + pin + " > $T/login")
	})
	for _, c := range all {
		c.end()
	}
	h.stopDaemon()
	t.Run("stock afterwards", func(t *testing.T) {
		h.slotd()
		c := h.client(0)
		c.want("login "+pin, "ok")
		h.signs(c, "gen-priv", "gen-pub", "ext-priv")
		for _, key := range []string{"theirs", "brought"} {
			h.verified(c, key, key+".pub")
		}
		c.want("list", "ok "+strings.Join(strings.Fields("aes-generated aes-private aes-public both brought brought data-private data-public "+
			"ext-priv ext-pub gen-nologin gen-nologin gen-priv gen-priv gen-pub gen-pub theirs theirs"), " "))
		c.end()
	})
	h.end()
}

// TestTPM12Faults holds our token against what stock's tpm token gets wrong.
func TestTPM12Faults(t *testing.T) {
	t.Parallel()
	h := newTPM12(t, true)
	h.serves()
	h.ours = h.ownClient(1)
	stock, ours := h.client(0), h.ours
	pin := h.made.UserPIN
	for _, c := range []*client{stock, ours} {
		c.want("login "+pin, "ok")
	}
	h.signs(stock, "ext-priv")
	signature := func(key string) string { return h.made.Signatures[key] }
	for _, c := range []struct{ name, line, stock, ours string }{
		{"an imported public key verifies", "verify ext-pub hello " + signature("ext-priv"), "0xc0", "ok"},
		{"a key of a session without login signs in the user's", "sign gen-nologin hello", "0x6", "ok " + signature("gen-nologin")},
		{"the token's own keys are not found", "hidden", "ok 8", "ok 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			stock.want(c.line, c.stock)
			ours.want(c.line, c.ours)
		})
	}
	t.Run("an imported public key encrypts for its private key", func(t *testing.T) {
		for c, want := range map[*client]string{stock: "0x6", ours: "ok hello"} {
			c.want("decrypt ext-priv "+strings.TrimPrefix(c.do("encrypt ext-pub hello"), "ok "), want)
		}
	})
	t.Run("what is listed after another login", func(t *testing.T) {
		first := ours.do("list")
		for c, again := range map[*client]bool{stock: true, ours: false} {
			c.want("logout", "ok")
			c.do("list")
			c.want("login "+pin, "ok")
			if got := c.do("list"); (got != first) != again {
				t.Errorf("once more %v, want %v: %s", !again, again, got)
			}
		}
	})
	t.Run("the lengths of PINs", func(t *testing.T) {
		for module, want := range map[string]string{h.module: "4/8", ownModule(t): "6/127"} {
			if got := h.ok(fmt.Sprintf("pkcs11-tool --module %s --list-token-slots | sed -n 's,.*pin min/max *: *,,p'", module)); got != want+"\n" {
				t.Errorf("%s: %s, want %s", module, got, want)
			}
		}
	})
	t.Run("a PIN that stock sets and does not take", func(t *testing.T) {
		const long = "ninechars"
		stock.want("setpin "+pin+" "+long, "ok")
		stock.want("logout", "ok")
		stock.want("login "+long, "0xa0")
		ours.want("logout", "ok")
		ours.want("login "+long, "ok")
		ours.want("setpin "+long+" "+pin, "ok")
		stock.want("login "+pin, "ok")
	})
	for _, c := range []*client{stock, ours} {
		c.end()
	}
	h.stopDaemon()
	h.end()
}
