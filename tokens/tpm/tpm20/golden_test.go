package tpm20

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"math/big"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"p11fs/tokens/tpm/tpmtest"
)

// The state of a swtpm 0.7.1, and what was made with it by go-tpm and checked with
// tpm2-tools 5.4: golden.json says what of.
var (
	//go:embed testdata/swtpm-state.tar.gz
	goldenState []byte
	//go:embed testdata/golden.json
	goldenJSON []byte
)

type hexBytes []byte

func (h *hexBytes) UnmarshalJSON(b []byte) (err error) {
	*h, err = hex.DecodeString(strings.Trim(string(b), `"`))
	return err
}

type goldenKey struct {
	Name            string
	Public, Private hexBytes
	Auth            hexBytes
	Modulus         hexBytes
	Prime           hexBytes
	Exponent        hexBytes `json:"private_exponent"`
	RSASSA          hexBytes `json:"rsassa_sha256_of_hello"`
	HMAC            hexBytes `json:"hmac_of_Hi_There"`
	X, Y            hexBytes
	PIN             string
	Salt            hexBytes
	NVIndex         hexBytes `json:"nv_index"`
	NVName          hexBytes `json:"nv_name"`
	Policy          hexBytes
}

type goldenFile struct {
	Keys      []goldenKey
	MasterKey hexBytes `json:"master_key"`
	SRK       struct{ Name hexBytes }
}

// blob is the key without the sizes in front of its halves.
func (k goldenKey) blob() Blob { return Blob{k.Public[2:], k.Private[2:]} }

// TestGolden loads, signs with and unseals what was made long ago, on a TPM with that
// state.
func TestGolden(t *testing.T) {
	t.Parallel()
	var g goldenFile
	noError(t, json.Unmarshal(goldenJSON, &g))
	c := chip(t, tpmtest.Start(t, goldenState))
	parent := must[Parent](t)(c.FindParent(t.Context()))
	if parent.Handle != 0x81000001 || !bytes.Equal(parent.Name, g.SRK.Name) || parent.Template != P256 {
		t.Fatalf("the storage key is %+v", parent)
	}
	if len(g.Keys) != 8 {
		t.Errorf("there are %d keys and seals, want 8", len(g.Keys))
	}
	for _, k := range g.Keys {
		check := k.checkSeal
		switch {
		case strings.HasPrefix(k.Name, "rsa"):
			check = k.checkRSA
		case strings.HasPrefix(k.Name, "p-"):
			check = k.checkEC
		case k.HMAC != nil:
			check = k.checkHMAC
		}
		for _, p := range []Parent{parent, {Template: P256, Name: parent.Name}} {
			check(t, &Key{c, p, k.blob(), hide(t, k.Auth)}, g.MasterKey)
		}
	}
}

func (k goldenKey) checkRSA(t *testing.T, key *Key, _ []byte) {
	digest := sha256.Sum256([]byte("hello"))
	sig := must[[]byte](t)(key.SignPKCS1(t.Context(), crypto.SHA256, digest[:]))
	n, _, _, err := PublicOf(k.blob())
	noError(t, err)
	public := &rsa.PublicKey{N: new(big.Int).SetBytes(k.Modulus), E: 65537}
	if err := rsa.VerifyPKCS1v15(public, crypto.SHA256, digest[:], sig); err != nil || n.Cmp(public.N) != 0 {
		t.Errorf("%s: %v", k.Name, err)
	}
	if k.RSASSA != nil && !bytes.Equal(sig, k.RSASSA) {
		t.Errorf("%s signs %x", k.Name, sig)
	}
	if k.Exponent != nil {
		want := new(big.Int).Exp(new(big.Int).SetBytes(sig), new(big.Int).SetBytes(k.Exponent), n).FillBytes(make([]byte, 256))
		if got := must[[]byte](t)(key.Raw(t.Context(), sig)); !bytes.Equal(got, want) {
			t.Errorf("%s: raw is %x", k.Name, got)
		}
	}
}

func (k goldenKey) checkEC(t *testing.T, key *Key, _ []byte) {
	digest := sha256.Sum256([]byte("hello"))
	_, curve, point, err := PublicOf(k.blob())
	noError(t, err)
	if !bytes.Equal(point[1:], append(append([]byte(nil), k.X...), k.Y...)) {
		t.Errorf("%s: its point is %x", k.Name, point)
	}
	r, s, err := key.SignECDSA(t.Context(), curve, digest[:])
	noError(t, err)
	public := must[*ecdsa.PublicKey](t)(ecdsa.ParseUncompressedPublicKey(curve.Elliptic, point))
	if !ecdsa.Verify(public, digest[:], r, s) {
		t.Errorf("%s: the signature does not fit", k.Name)
	}
}

func (k goldenKey) checkHMAC(t *testing.T, key *Key, _ []byte) {
	mac := must[[]byte](t)(use(t.Context(), key, false, func(w *worker, key tpm2.AuthHandle) ([]byte, error) {
		r, err := tpm2.Hmac{Handle: key, Buffer: tpm2.TPM2BMaxBuffer{Buffer: []byte("Hi There")}, HashAlg: tpm2.TPMAlgSHA256}.Execute(w)
		if err != nil {
			return nil, err
		}
		return r.OutHMAC.Buffer, nil
	}))
	if !bytes.Equal(mac, k.HMAC) {
		t.Errorf("%s: %x", k.Name, mac)
	}
}

// goldenCost is what the PINs of the fixture cost.
const goldenCost = 15

func (k goldenKey) checkSeal(t *testing.T, key *Key, masterKey []byte) {
	pin := stretched(t, k.PIN, k.Salt, goldenCost)
	if !bytes.Equal(show(pin.seal), k.Auth) {
		t.Errorf("%s: the PIN is stretched to another authorisation", k.Name)
	}
	seal := Seal{Blob: k.blob()}
	if k.NVIndex != nil {
		seal.Index = uint32(new(big.Int).SetBytes(k.NVIndex).Uint64())
		name, err := indexName(seal.Index)
		noError(t, err)
		if policy := must[[]byte](t)(policyOf(seal.Index)); !bytes.Equal(policy, k.Policy) || !bytes.Equal(name.Buffer, k.NVName) {
			t.Errorf("%s: policy %x, name %x", k.Name, policy, name.Buffer)
		}
	}
	mk, err := key.Chip.Unseal(t.Context(), key.Parent, pin, seal)
	noError(t, err)
	if !bytes.Equal(show(mk), masterKey) {
		t.Errorf("%s holds another key", k.Name)
	}
	noError(t, mk.Close())
}
