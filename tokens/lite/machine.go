package lite

import (
	"bytes"
	"crypto"
	"os"
	"runtime"
	"slices"

	"golang.org/x/sys/cpu"

	"p11fs/p11"
)

// A machine is what a CPU of IBM Z does by itself, and its cards.
type machine struct {
	aes, sha1, sha256, sha512, sha3, ecdsa bool
	rsa                                    bool // by cards
}

// kdsa is the facility of the instruction that signs with elliptic curves, the
// message-security-assist extension 9 (z/Architecture Principles of Operation, "Facility
// Indications").
const kdsa = "155"

// thisMachine is what this CPU does: nothing on others than s390x.
func thisMachine() machine {
	if runtime.GOARCH != "s390x" {
		return machine{}
	}
	info, _ := os.ReadFile("/proc/cpuinfo") // without it nothing is known of ECDSA
	c := cpu.S390X
	return machine{aes: c.HasAES, sha1: c.HasSHA1, sha256: c.HasSHA256, sha512: c.HasSHA512, sha3: c.HasSHA3, ecdsa: hasFacility(info, kdsa)}
}

// hasFacility looks for a number in the line of facilities of /proc/cpuinfo.
func hasFacility(cpuinfo []byte, number string) bool {
	for line := range bytes.Lines(cpuinfo) {
		if list, ok := bytes.CutPrefix(line, []byte("facilities")); ok {
			return slices.ContainsFunc(bytes.Fields(list), func(f []byte) bool { return string(f) == number })
		}
	}
	return false
}

// does says whether the machine does the work of a mechanism in hardware.
func (m machine) does(info p11.MechanismInfo) bool {
	if info.Flags&(p11.CKF_GENERATE|p11.CKF_GENERATE_KEY_PAIR) != 0 {
		return false
	}
	facts, _ := p11.MechanismFacts(info.Type)
	switch of := func(kt p11.KeyType) bool { return slices.Contains(facts.KeyTypes, kt) }; {
	case of(p11.CKK_RSA):
		return m.rsa && info.Flags&(p11.CKF_SIGN|p11.CKF_DECRYPT) != 0
	case of(p11.CKK_EC):
		return m.ecdsa && info.Flags&p11.CKF_SIGN != 0
	case of(p11.CKK_AES), of(p11.CKK_AES_XTS):
		return m.aes && info.Flags&p11.CKF_DERIVE == 0
	}
	for _, h := range p11.Hashes() {
		if info.Type == h.Type || info.Type == h.HMAC || info.Type == h.HMACGeneral {
			return m.hashes(h.Go)
		}
	}
	return false
}

func (m machine) hashes(h crypto.Hash) bool {
	switch h {
	case crypto.SHA1:
		return m.sha1
	case crypto.SHA224, crypto.SHA256:
		return m.sha256
	case crypto.SHA384, crypto.SHA512, crypto.SHA512_224, crypto.SHA512_256:
		return m.sha512
	case crypto.SHA3_224, crypto.SHA3_256, crypto.SHA3_384, crypto.SHA3_512:
		return m.sha3
	}
	return false
}
