package tpmtest

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/binary"
	"net"
	"testing"
)

// Forgive has a TPM 1.2 forget the wrong secrets that it was given, through a socket of
// Share (TPM_ResetLockValue): after four of them it takes the right ones no more for a
// while. The secret of its owner is 20 zeros.
func (s *TPM) Forgive(t testing.TB, socket string) {
	t.Helper()
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ask := func(tag byte, of ...[]byte) []byte {
		body := bytes.Join(of, nil)
		_, err := c.Write(append(binary.BigEndian.AppendUint32([]byte{0, tag}, uint32(6+len(body))), body...))
		var answer []byte
		if err == nil {
			answer, err = frame(c)
		}
		if err != nil || !bytes.Equal(answer[6:10], make([]byte, 4)) {
			t.Fatalf("the TPM's owner: %x, %v", answer, err)
		}
		return answer[10:]
	}
	session := ask(0xc1, []byte{0, 0, 0, 0x0a}) // TPM_OIAP: a handle and a nonce
	name, odd := []byte{0, 0, 0, 0x40}, make([]byte, sha1.Size)
	digest := sha1.Sum(name)
	mac := hmac.New(sha1.New, make([]byte, sha1.Size))
	mac.Write(bytes.Join([][]byte{digest[:], session[4:], odd, {0}}, nil))
	ask(0xc2, name, session[:4], odd, []byte{0}, mac.Sum(nil))
}
