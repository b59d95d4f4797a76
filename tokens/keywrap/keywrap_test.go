package keywrap

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"testing"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// RFC 3394 §4.6 and RFC 5649 §6.
func TestRFC(t *testing.T) {
	block := func(key string) cipher.Block {
		b, err := aes.NewCipher(unhex(t, key))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	k := block("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f")
	got, err := Wrap(k, IV, unhex(t, "00112233445566778899aabbccddeeff000102030405060708090a0b0c0d0e0f"))
	if err != nil || fmt.Sprintf("%x", got) != "28c9f404c4b810f4cbccb35cfb87f8263f5786e2d80ed326cbc7f0e71a99f43bfb988b9b7a02dd21" {
		t.Errorf("RFC 3394: %x, %v", got, err)
	}
	k = block("5840df6e29b02af1ab493b705bf16ea1ae8338f4dcc176a8")
	got, err = WrapPadded(k, PaddedIV, unhex(t, "c37b7e6492584340bed12207808941155068f738"))
	if err != nil || fmt.Sprintf("%x", got) != "138bdeaa9b8fa7fc61f97742e72248ee5ae6ae5360d1ae6a5f54f373fa543b6a" {
		t.Errorf("RFC 5649, 20 bytes: %x, %v", got, err)
	}
	got, err = WrapPadded(k, PaddedIV, unhex(t, "466f7250617369"))
	if err != nil || fmt.Sprintf("%x", got) != "afbeb0f07dfbf5419200f2ccb50bb24f" {
		t.Errorf("RFC 5649, 7 bytes: %x, %v", got, err)
	}
}

// A register that opens with the right constant may still hold a length or a
// padding that wrapping never makes.
func TestPadding(t *testing.T) {
	block, err := aes.NewCipher(make([]byte, 16))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		text   int // bytes after the register
		length uint32
		fill   byte
		ok     bool
	}{
		{"whole blocks", 24, 24, 1, true},
		{"seven of padding", 24, 17, 0, true},
		{"eight of padding", 24, 16, 0, false},
		{"longer than the text", 24, 25, 0, false},
		{"absurdly long", 24, 1 << 31, 0, false},
		{"all ones", 24, 1<<32 - 1, 0, false},
		{"empty", 24, 0, 0, false},
		{"padding not zero", 24, 17, 1, false},
		{"one block", 8, 1, 0, true},
		{"one block, empty", 8, 0, 0, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := bytes.Repeat([]byte{test.fill}, 8+test.text)
			binary.BigEndian.PutUint32(r, PaddedIV)
			binary.BigEndian.PutUint32(r[4:], test.length)
			if test.text == 8 {
				block.Encrypt(r, r)
			} else {
				loop(block, r)
			}
			out, err := UnwrapPadded(block, PaddedIV, r)
			if (err == nil) != test.ok || test.ok && len(out) != int(test.length) {
				t.Errorf("%d bytes, %v", len(out), err)
			}
			if _, err := UnwrapPadded(block, PaddedIV+1, r); err == nil {
				t.Error("another constant is accepted")
			}
		})
	}
}
