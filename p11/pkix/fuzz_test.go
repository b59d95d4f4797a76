package pkix_test

import (
	"bytes"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"p11fs/p11"
	"p11fs/p11/pkix"
)

// seeds adds every file of testdata, and fails if there is none.
func seeds(f *testing.F, add func(data []byte)) {
	f.Helper()
	files, err := filepath.Glob("testdata/files/*")
	if err != nil || len(files) == 0 {
		f.Fatal("no seeds", err)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		add(data)
	}
}

// FuzzParse looks for panics, for errors without an RV, and for templates that
// cannot be printed and read back.
func FuzzParse(f *testing.F) {
	seeds(f, func(data []byte) {
		f.Add(byte(pkix.Auto), data, "")
		f.Add(byte(pkix.Auto), data, passphrase)
	})
	f.Fuzz(func(t *testing.T, kind byte, data []byte, pass string) {
		before := bytes.Clone(data)
		got, err := pkix.ParseCheaply(pkix.Kind(kind%7), data, options(t, pass))
		if !bytes.Equal(data, before) {
			t.Fatal("Parse changed its input")
		}
		var rv p11.RV
		if (err == nil) != (len(got) > 0) || err != nil && !errors.As(err, &rv) {
			t.Fatalf("%d templates, %v", len(got), err)
		}
		for _, a := range got {
			class, ok := a.Class()
			if class == p11.CKO_SECRET_KEY {
				continue
			}
			if id, _ := a.Get(p11.CKA_ID); !ok || len(id) != 20 {
				t.Fatalf("class %v, id %x", class, id)
			}
			if class == p11.CKO_PRIVATE_KEY {
				continue
			}
			printed, err := pkix.CertificatePEM(a)
			if class == p11.CKO_PUBLIC_KEY {
				printed, err = pkix.PublicPEM(a)
			}
			if err != nil {
				t.Fatal(err)
			}
			again, err := pkix.Parse(pkix.PEM, printed, pkix.Options{})
			if err != nil || len(again) != 1 {
				t.Fatalf("%v from\n%s", err, printed)
			}
			for _, at := range again[0] {
				v, ok := a.Get(at.Type)
				if at.Type != p11.CKA_LABEL && (!ok || !bytes.Equal(v, at.Value)) {
					t.Fatalf("%v: %x was printed as %x", at.Type, v, at.Value)
				}
			}
		}
	})
}

// FuzzBER checks that what becomes DER is DER, is no longer than it has to be, and has
// the same in it.
func FuzzBER(f *testing.F) {
	seeds(f, func(data []byte) {
		if block, _ := pem.Decode(data); block != nil {
			data = block.Bytes
		}
		f.Add(data)
	})
	f.Add([]byte("\x30\x80\x24\x80\x04\x01a\x24\x03\x04\x01b\x00\x00\x23\x08\x03\x02\x00a\x03\x02\x04b\x00\x00"))
	f.Add(bytes.Repeat([]byte("\x30\x80"), 40))
	f.Fuzz(func(t *testing.T, data []byte) {
		before := bytes.Clone(data)
		der, ok := pkix.ToDER(data)
		if !bytes.Equal(data, before) {
			t.Fatal("the input has changed")
		}
		if !ok {
			return
		}
		if again, ok := pkix.ToDER(der); !ok || !bytes.Equal(again, der) {
			t.Fatalf("%x became %x, and that %x", data, der, again)
		}
		if len(der) > len(data)+len(data)/100+100 {
			t.Fatalf("%d bytes became %d", len(data), len(der))
		}
	})
}

// FuzzECDSA checks that a DER signature that converts converts back.
func FuzzECDSA(f *testing.F) {
	f.Add([]byte("\x30\x06\x02\x01\x01\x02\x01\x01"), 64)
	f.Add([]byte("\x30\x08\x02\x02\x00\x80\x02\x02\x00\xff"), 2)
	f.Fuzz(func(t *testing.T, der []byte, size int) {
		n, ok := pkix.DERSignatureLen(der)
		raw, err := pkix.ECDSADERToRaw(der, size)
		if err != nil {
			return
		}
		if !ok || n != len(der) {
			t.Errorf("length %d, %v of %d bytes", n, ok, len(der))
		}
		back, err := pkix.ECDSARawToDER(raw)
		if err != nil || !bytes.Equal(back, der) {
			t.Errorf("%x → %x → %x, %v", der, raw, back, err)
		}
	})
}

// FuzzPrint prints objects with arbitrary values: they come from a store that
// others write.
func FuzzPrint(f *testing.F) {
	for i := range byte(3) {
		seeds(f, func(data []byte) { f.Add(uint64(i), uint64(3*i), data, data) })
	}
	f.Fuzz(func(t *testing.T, class, key uint64, a, b []byte) {
		attrs := p11.Attributes{}.
			With(p11.CKA_CLASS, p11.Ulong(class)).With(p11.CKA_KEY_TYPE, p11.Ulong(key)).
			With(p11.CKA_MODULUS, a).With(p11.CKA_PUBLIC_EXPONENT, b).
			With(p11.CKA_EC_PARAMS, a).With(p11.CKA_EC_POINT, b).
			With(p11.CKA_CERTIFICATE_TYPE, p11.Ulong(p11.CKC_X_509)).With(p11.CKA_VALUE, a).
			With(p11.CKA_LABEL, b).With(p11.CKA_ID, b)
		if line, err := pkix.PublicSSH(attrs, string(b)); err == nil && bytes.Count(line, []byte("\n")) != 1 {
			t.Errorf("%q", line)
		}
		_, _ = pkix.PublicPEM(attrs)
		_, _ = pkix.CertificatePEM(attrs)
		for _, c := range []byte(pkix.URI(p11.TokenInfo{Label: string(a)}, attrs)) {
			if c <= ' ' || c > '~' {
				t.Fatalf("byte %#x in a URI", c)
			}
		}
	})
}
