package softcca

import (
	"bytes"
	"testing"

	"p11fs/p11"
	"p11fs/tokens/card"
	"p11fs/tokens/card/cca"
)

// goodCalls has arguments of each verb with an output, in their order: those that go in.
func goodCalls(t *testing.T, d testDomain) map[string][][]byte {
	t.Helper()
	bytesOf, ctx := must[[]byte](t), t.Context()
	key := make(map[string][]byte)
	for _, s := range samples(t, d) {
		key[s.name] = s.token
	}
	text, chain := bytes.Repeat([]byte("sixteen bytes ok"), 4), make([]byte, chainSize)
	curve := must[p11.Curve](t)(cca.CurveOf(0, 256))
	pair := bytesOf(d.CSNDPKB(ctx, rules("ECC-PAIR"), cca.ECValues{Curve: curve}.Bytes()))
	hmac := bytesOf(d.CSNBKTB2(ctx, rules("INTERNAL", "HMAC", "MAC", "GENERATE")))
	ec := must[cca.PKA](t)(cca.ParsePKA(key["ec"]))
	_, w, err := d.openPKA(key["ec"])
	if err != nil {
		t.Fatal(err)
	}
	whole := bytesOf(d.CSNDPKB(ctx, rules("ECC-PAIR"), cca.ECValues{Curve: ec.Curve, Scalar: w.key, Point: ec.Point}.Bytes()))
	sealed := bytesOf(d.CSNDPKE(ctx, rules("PKCS-1.2"), []byte("some text"), key["rsa"]))
	return map[string][][]byte{
		"CSUACFQ":  {rules("STATAES")},
		"CSNBRNG":  {rules("RANDOM")},
		"CSNBKGN":  {rules("OP"), rules("KEYLN8"), rules("DATA"), nil},
		"CSNBKTB":  {rules("DATA"), rules("INTERNAL", "AES", "NO-KEY", "KEYLN24")},
		"CSNBENC":  {key["des3"], text, text[:8], rules("CBC")},
		"CSNBDEC":  {key["des3"], text, text[:8], rules("CBC")},
		"CSNBSAE":  {rules("AES", "KEYIDENT"), key["aes"], text[:16], text, nil},
		"CSNBSAD":  {rules("AES", "KEYIDENT"), key["aes"], nil, text[:16], text, nil},
		"CSNDPKB":  {rules("ECC-PAIR"), cca.ECValues{Curve: curve}.Bytes()},
		"CSNDPKG":  {rules("MASTER"), pair},
		"CSNDPKI":  {nil, whole},
		"CSNDPKE":  {rules("PKCS-1.2"), []byte("x"), key["rsa"]},
		"CSNDPKD":  {rules("PKCS-1.2"), sealed, key["rsa"]},
		"CSNDPKX":  {nil, key["rsa"]},
		"CSNDDSG":  {rules("PKCS-1.1"), key["rsa"], []byte("what is signed")},
		"CSNBOWH":  {rules("SHA-256", "ONLY"), text, chain},
		"CSNBHMG":  {rules("HMAC", "SHA-256", "ONLY"), key["hmac"], text, chain},
		"CSNBCKM":  {rules("AES"), text[:16]},
		"CSNBKTB2": {rules("INTERNAL", "HMAC", "MAC", "GENERATE")},
		"CSNBKGN2": {rules("HMAC", "OP"), rules("TOKEN"), rules(""), hmac},
		"CSNBKPI2": {rules("HMAC", "FIRST", "MIN1PART"), text[:32], hmac},
		"CSNBKTC":  {rules("RTCMK", "AES"), key["aes"]},
		"CSNDKTC":  {rules("RTCMK"), key["rsa"]},
		"CSNBKTC2": {rules("RTCMK", "HMAC"), key["hmac"]},
		"CSNDSYX":  {rules("AES", "PKCS-1.2"), key["aes"], key["rsa"]},
		"CSNDSYI":  {rules("AES", "PKCS-1.2"), bytesOf(d.CSNDSYX(ctx, rules("AES", "PKCS-1.2"), key["aes"], key["rsa"])), key["rsa"]},
		"CSNDEDH":  {rules("DERIV02", "KEY-AES", "SHA-256"), key["ec"], key["ec"], nil, bytesOf(d.CSNBKTB(ctx, rules("DATA"), rules("INTERNAL", "AES", "NO-KEY", "KEYLN32")))},
	}
}

// TestRoom gives each verb no room for what comes out, too little, and just enough: what does
// not fit is none, and is not cut.
func TestRoom(t *testing.T) {
	d := newDomain(t)
	good := goodCalls(t, d)
	for _, f := range card.Functions(card.CCA) {
		in := good[f.Name]
		call := func(room uint64) (c *card.Call, out *card.Arg) {
			c = &card.Call{Function: f, Args: make([]card.Arg, len(f.Args))}
			next := 0
			for i, k := range f.Args {
				switch a := &c.Args[i]; k {
				case card.Bytes, card.InOut:
					a.Bytes, a.Room = in[next], uint64(len(in[next]))
					next++
				case card.Number:
					a.Number = 256 // bits
				case card.Output:
					switch {
					case f.Name == "CSNBSAE" && i == 2: // there is no tag
					case out == nil:
						a.Room, out = room, a
					default:
						a.Room = 4096
					}
				}
			}
			if err := d.Call(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			return c, out
		}
		if in == nil {
			continue // without an output of a length of its own
		}
		c, out := call(4096)
		if c.Return != 0 || out.Length == 0 {
			t.Errorf("%s: %x, %d bytes", f.Name, c.Return, out.Length)
			continue
		}
		most := out.Length // of ECDSA and RSA the same each time
		for _, room := range []uint64{0, 1, most - 1} {
			if c, out := call(room); c.Return != cca.ErrBuffer.Value() || out.Out != nil || out.Length <= room {
				t.Errorf("%s with room for %d of %d bytes: %x, %d", f.Name, room, most, c.Return, out.Length)
			}
		}
		if c, out := call(most); c.Return != 0 || uint64(len(out.Out)) != most {
			t.Errorf("%s with room for %d bytes: %x, %d", f.Name, most, c.Return, len(out.Out))
		}
	}
	if len(good) != 27 {
		t.Errorf("%d verbs", len(good))
	}
}
