package pkix

import (
	"bytes"
	"encoding/pem"
	"errors"
	"os/exec"
	"testing"

	"p11fs/p11"
)

// The groups with names are those that openssl(1) has by the names.
func TestNamedGroups(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("no openssl")
	}
	for name, g := range knownGroups() {
		their := name
		if n, ok := bytes.CutPrefix([]byte(name), []byte("modp")); ok {
			their = "modp_" + string(n)
		}
		out, err := exec.CommandContext(t.Context(), openssl, "genpkey", "-algorithm", "DH", "-pkeyopt", "group:"+their, "-outform", "DER").Output()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		a, err := DecodePrivateKey(out)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if own, err := GroupOf(p11.CKK_DH, a); err != nil || !own.Equal(g) {
			t.Errorf("%s is another group: %v", name, err)
		}
	}
}

// Keys that openssl(1) makes are read, and written as they were.
func TestGroupKeys(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("no openssl")
	}
	run := func(in []byte, args ...string) []byte {
		c := exec.CommandContext(t.Context(), openssl, args...)
		c.Stdin = bytes.NewReader(in)
		out, err := c.Output()
		if err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		return out
	}
	dsa := run(run(nil, "genpkey", "-genparam", "-algorithm", "DSA", "-pkeyopt", "pbits:1024", "-pkeyopt", "qbits:160"), "genpkey", "-paramfile", "/dev/stdin")
	dh := run(nil, "genpkey", "-algorithm", "DH", "-pkeyopt", "group:ffdhe2048")
	for name, key := range map[string][]byte{"dsa": dsa, "dh": dh} {
		t.Run(name, func(t *testing.T) {
			list, err := Parse(Auto, key, Options{})
			if err != nil || len(list) != 2 {
				t.Fatalf("%d objects, %v", len(list), err)
			}
			for _, a := range list {
				if err := Complete(&a); err != nil {
					t.Fatal(err)
				}
				public, err := PublicPEM(a)
				if err != nil {
					t.Fatal(err)
				}
				if want := run(key, "pkey", "-pubout"); !bytes.Equal(public, want) {
					t.Errorf("the public key is\n%s, not\n%s", public, want)
				}
				if class, _ := a.Class(); class != p11.CKO_PRIVATE_KEY {
					continue
				}
				der, err := EncodePrivateKey(a)
				block, _ := pem.Decode(key)
				if err != nil || name == "dsa" && !bytes.Equal(der, block.Bytes) {
					t.Errorf("written %x, %v", der, err)
				}
				if again := run(der, "pkey", "-pubout"); !bytes.Equal(again, public) {
					t.Error("openssl reads another key")
				}
			}
		})
	}
}

func TestBadGroups(t *testing.T) {
	g, _ := GroupNamed("modp1536")
	whole := groupKey(g, []byte{5})
	whole.SetUlong(p11.CKA_CLASS, uint64(p11.CKO_PUBLIC_KEY))
	whole.SetUlong(p11.CKA_KEY_TYPE, uint64(p11.CKK_DH))
	less := g.P.Bytes()
	less[len(less)-1]--
	even := bytes.Clone(less)
	composite := g.P.Bytes()
	composite[len(composite)-1] -= 2
	long := bytes.Repeat([]byte{0xff}, MaxDHBits/8+1)
	for name, change := range map[string]struct {
		t     p11.AttributeType
		value []byte
	}{
		"tiny": {p11.CKA_PRIME, []byte{23}}, "none": {p11.CKA_PRIME, nil}, "even": {p11.CKA_PRIME, even},
		"composite": {p11.CKA_PRIME, composite}, "long": {p11.CKA_PRIME, long},
		"base 1": {p11.CKA_BASE, []byte{1}}, "base -1": {p11.CKA_BASE, less}, "base above": {p11.CKA_BASE, long},
		"value 1": {p11.CKA_VALUE, []byte{1}}, "value -1": {p11.CKA_VALUE, less}, "value 0": {p11.CKA_VALUE, nil}, "value above": {p11.CKA_VALUE, long},
	} {
		for _, class := range []p11.ObjectClass{p11.CKO_PUBLIC_KEY, p11.CKO_PRIVATE_KEY} {
			a := whole.With(change.t, change.value).With(p11.CKA_CLASS, p11.Ulong(class))
			if class == p11.CKO_PRIVATE_KEY && name == "value 1" {
				continue // which is one of a private key
			}
			if err := Complete(&a); !errors.Is(err, p11.CKR_ATTRIBUTE_VALUE_INVALID) {
				t.Errorf("%s, %s: %v", class.Short(), name, err)
			}
		}
	}
	if err := Complete(&whole); err != nil {
		t.Error(err)
	}
}
