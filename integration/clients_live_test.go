package integration

import (
	"strings"
	"testing"
)

// TestThreeDoors lets PKCS#11 programs through both modules, the mount and the
// stock library work on one token at once: a key that one of them makes, signs
// with, changes or destroys is at once so for the others.
func TestThreeDoors(t *testing.T) {
	t.Parallel()
	needTools(t, "pkcs11-tool", "openssl")
	h := startLive(t)
	pin := readManifest(t).UserPIN
	h.ok("echo " + pin + " > $T/login && echo data > data")
	h.ok("export P11FS_SOCKET=/run/p11fs/rpc.sock P11_KIT_SERVER_ADDRESS=unix:path=/run/p11fs/rpc.sock")
	h.ok("tool() { m=$1; shift; pkcs11-tool --module $m --login --pin " + pin + " \"$@\"; }")
	// signed checks that a door's signature by the key with that id is good.
	signed := func(t *testing.T, lib, id string) {
		t.Helper()
		h.ok("rm -f sig && tool " + lib + " --sign --mechanism SHA1-RSA-PKCS --id " + id + " -i data -o sig")
		h.ok("openssl dgst -sha1 -verify key.pem -signature sig data")
	}
	absent := func(t *testing.T, lib, label string) {
		t.Helper()
		if got := h.ok("tool " + lib + " --list-objects 2>&1"); strings.Contains(got, label) {
			t.Errorf("%s still lists %s:\n%s", lib, label, got)
		}
	}
	for i, m := range modules() {
		t.Run(m.name, func(t *testing.T) {
			lib, id := m.path(t), string(rune('a'+i))
			t.Run("made through the module", func(t *testing.T) {
				h.ok("tool " + lib + " --keypairgen --key-type rsa:2048 --label door --id 5" + id)
				h.ok("cat $O/door.pub/public.pem > key.pem && cat data > $O/door.key/sign && cat $O/door.key/sign > sig")
				h.ok("openssl dgst -sha256 -verify key.pem -signature sig data")
				signed(t, h.module, "5"+id)
				signed(t, lib, "5"+id)
				h.ok("tool " + lib + " --delete-object --type privkey --id 5" + id + " && [ ! -e $O/door.key ]")
				h.ok("tool " + lib + " --delete-object --type pubkey --id 5" + id + " && [ ! -e $O/door.pub ]")
				absent(t, h.module, "door")
			})
			t.Run("made in the mount", func(t *testing.T) {
				h.ok("echo 'rsa:2048 label=hatch id=0x6" + id + "' > $T/generate && cat $O/hatch.pub/public.pem > key.pem")
				signed(t, lib, "6"+id)
				h.ok("mv $O/hatch.key $O/moved.key && tool " + lib + " --list-objects | grep -q 'label: *moved'")
				h.ok("rmdir $O/moved.key $O/hatch.pub")
				absent(t, lib, "moved")
				absent(t, lib, "hatch")
			})
			t.Run("made by stock", func(t *testing.T) {
				h.ok("tool " + h.module + " --keypairgen --key-type rsa:2048 --label stockroom --id 7" + id)
				h.ok("cat $O/stockroom.pub/public.pem > key.pem")
				signed(t, lib, "7"+id)
				h.ok("tool " + h.module + " --delete-object --type privkey --id 7" + id)
				h.ok("tool " + h.module + " --delete-object --type pubkey --id 7" + id)
				absent(t, lib, "stockroom")
			})
		})
	}
	h.stop()
}
