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

// TestThreeDoorsObjects does the same with what is no key pair: secret keys,
// certificates and data. Each door makes, shows, uses and destroys them in its
// own way, and what one of them made the two others have at once.
func TestThreeDoorsObjects(t *testing.T) {
	t.Parallel()
	needTools(t, "pkcs11-tool", "openssl")
	h := startLive(t)
	pin := readManifest(t).UserPIN
	h.ok("echo " + pin + " > $T/login && head -c 16 /dev/zero > block && echo 'a note' > note")
	h.ok("openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -subj /CN=door -days 30 2> openssl.log && openssl x509 -in cert.pem -outform DER -out cert.der")
	h.ok("export P11FS_SOCKET=/run/p11fs/rpc.sock P11_KIT_SERVER_ADDRESS=unix:path=/run/p11fs/rpc.sock")
	h.ok("tool() { m=$1; shift; pkcs11-tool --module $m --login --pin " + pin + " \"$@\"; }")
	doors := []objectDoor{mountDoor(), moduleDoor("stock", h.module)}
	for _, m := range modules() {
		doors = append(doors, moduleDoor(m.name, m.path(t)))
	}
	for i, maker := range doors {
		t.Run("made through "+maker.name, func(t *testing.T) {
			label, id := "thing"+string(rune('a'+i)), "8"+string(rune('a'+i))
			names := strings.NewReplacer("LABEL", label, "ID", id)
			run := func(line string) string { return h.ok(names.Replace(line)) }
			run(maker.make)
			secret := ""
			for _, d := range doors {
				run("rm -f got secret")
				run(d.encrypt)
				if got := run("od -An -tx1 secret"); secret == "" {
					secret = got
				} else if got != secret {
					t.Errorf("%s: the key encrypts to %s, through %s to %s", d.name, got, doors[0].name, secret)
				}
				run(d.certificate + " && cmp got cert.der")
				run(d.data + " && cmp got note")
			}
			run(maker.destroy)
			for _, d := range doors {
				if got := run(d.list); strings.Contains(got, label) {
					t.Errorf("%s still lists %s:\n%s", d.name, label, got)
				}
			}
		})
	}
	h.stop()
}

// An objectDoor is the lines by which a door makes, uses, reads and destroys a
// secret key, a certificate and a data object, all called LABEL.
type objectDoor struct {
	name                                            string
	make, encrypt, certificate, data, destroy, list string
}

func mountDoor() objectDoor {
	return objectDoor{
		name:        "the mount",
		make:        "echo 'aes:128 label=LABEL id=0xID' > $T/generate && cp cert.pem $T/certs/LABEL.pem && cp note $T/data/LABEL",
		encrypt:     "cat block > $O/LABEL.sec/encrypt:aes-ecb && cat $O/LABEL.sec/encrypt:aes-ecb > secret",
		certificate: "openssl x509 -in $T/certs/LABEL.pem -outform DER -out got",
		data:        "cat $T/data/LABEL > got",
		destroy:     "rmdir $O/LABEL.sec && rm $T/certs/LABEL.pem $T/data/LABEL",
		list:        "ls $O $T/data $T/certs",
	}
}

func moduleDoor(name, lib string) objectDoor {
	tool := "tool " + lib + " "
	return objectDoor{
		name: name,
		make: tool + "--keygen --key-type AES:16 --label LABEL --id ID && " +
			tool + "--write-object cert.der --type cert --label LABEL --id ID && " +
			tool + "--write-object note --type data --label LABEL --private",
		encrypt:     tool + "--encrypt --mechanism AES-ECB --id ID -i block -o secret",
		certificate: tool + "--read-object --type cert --label LABEL -o got",
		data:        tool + "--read-object --type data --label LABEL -o got",
		destroy: tool + "--delete-object --type secrkey --id ID && " +
			tool + "--delete-object --type cert --label LABEL && " +
			tool + "--delete-object --type data --label LABEL",
		list: tool + "--list-objects 2>&1",
	}
}
