package pkix_test

import (
	"bytes"
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"p11fs/p11"
	"p11fs/p11/pkix"
)

// traditional reads a file of openssl dsaparam, dhparam or ecparam.
func traditional(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata/traditional", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// holds says what a file holds.
func holds(t *testing.T, data []byte) (list []string) {
	t.Helper()
	objects, err := pkix.Parse(pkix.Auto, data, pkix.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		class, _ := o.Class()
		kt, _ := o.KeyType()
		list = append(list, class.Short()+" "+kt.Short())
	}
	return list
}

// TestTraditionalGroups takes OpenSSL's own forms of DSA keys and of domain parameters.
func TestTraditionalGroups(t *testing.T) {
	dsa, dsaParameters, dh := traditional(t, "dsa.pem"), traditional(t, "dsaparam.pem"), traditional(t, "dhparam.pem")
	pair := []string{"private-key dsa", "public-key dsa"}
	key, group := pem.Decode(dsa[bytes.Index(dsa, []byte("-----BEGIN DSA PRIVATE")):])
	if key == nil || len(group) != 0 {
		t.Fatal("the file has changed")
	}
	for name, test := range map[string]struct {
		data []byte
		want []string
	}{
		"key behind its group": {dsa, pair},
		"key in DER":           {key.Bytes, pair},
		"DSA group":            {dsaParameters, []string{"domain-parameters dsa"}},
		"DH group":             {dh, []string{"domain-parameters dh"}},
		"both groups, twice":   {slices.Concat(dh, dsaParameters, dh), []string{"domain-parameters dh", "domain-parameters dsa"}},
		"key and DH group":     {slices.Concat(dh, dsa), pair}, // as servers have them
	} {
		if got := holds(t, test.data); !slices.Equal(got, test.want) {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
	objects, err := pkix.Parse(pkix.Auto, dsa, pkix.Options{})
	if err != nil {
		t.Fatal(err)
	}
	g, err := pkix.GroupOf(p11.CKK_DSA, objects[0])
	if err != nil || g.P.BitLen() != 1024 {
		t.Errorf("%v, %v", g.P, err)
	}
	y, _ := objects[1].Get(p11.CKA_VALUE)
	at := bytes.Index(key.Bytes, y)
	if at < 0 {
		t.Fatal("the public value is not in the file")
	}
	for name, bad := range map[string]func([]byte) []byte{
		"another public value": func(b []byte) []byte { b[at+5] ^= 1; return b },
		"cut off":              func(b []byte) []byte { return b[:len(b)-1] },
		"another version":      func(b []byte) []byte { b[bytes.Index(b, []byte{2, 1, 0})+2] = 1; return b },
		"more behind it":       func(b []byte) []byte { return append(b, 0) },
	} {
		block := pem.EncodeToMemory(&pem.Block{Type: "DSA PRIVATE KEY", Bytes: bad(bytes.Clone(key.Bytes))})
		if _, err := pkix.Parse(pkix.Auto, block, pkix.Options{}); p11.RVOf(err) != p11.CKR_DATA_INVALID {
			t.Errorf("%s: %v", name, err)
		}
	}
	empty := pem.EncodeToMemory(&pem.Block{Type: "DH PARAMETERS", Bytes: []byte{0x30, 0}})
	if _, err := pkix.Parse(pkix.Auto, empty, pkix.Options{}); p11.RVOf(err) != p11.CKR_DATA_INVALID {
		t.Errorf("no numbers: %v", err)
	}
}

// TestExplicitCurves knows curves by their numbers, and by all of them.
func TestExplicitCurves(t *testing.T) {
	for _, name := range []string{"brainpoolP256r1", "secp256k1"} {
		data := traditional(t, name+".explicit.pem")
		objects, err := pkix.Parse(pkix.Auto, data, pkix.Options{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		want, _ := p11.CurveNamed(name)
		if params, _ := objects[0].Get(p11.CKA_EC_PARAMS); !bytes.Equal(params, want.Params()) {
			t.Errorf("%s: %x", name, params)
		}
		block, _ := pem.Decode(data)
		// Each number once with another bit: of the curve, and of its base.
		spki := block.Bytes
		for at := bytes.Index(spki, []byte{6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 1, 1}) + 11; at < len(spki)-120; at += 16 {
			other := bytes.Clone(spki)
			other[at] ^= 4
			_, err := pkix.Parse(pkix.Auto, pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: other}), pkix.Options{})
			if err == nil {
				t.Errorf("%s: taken with another byte %d", name, at)
			}
		}
	}
}
