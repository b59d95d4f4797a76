package swtok

import (
	"bytes"
	"testing"

	"p11fs/p11"
	"p11fs/tokens/tokentest"
)

// A known answer of a cipher or MAC.
type known struct {
	source        string
	m             p11.Mechanism
	kt            p11.KeyType
	key, in, want string
}

func iv(t *testing.T, s string) p11.IV { return tokentest.Hex(t, s) }

func TestModeVectors(t *testing.T) {
	const (
		// NIST SP 800-38A, appendix F.
		key128, iv128 = "2b7e151628aed2a6abf7158809cf4f3c", "000102030405060708090a0b0c0d0e0f"
		four          = "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
		// NIST SP 800-67 and SP 800-38B, appendix D.
		key3  = "8aa83bf8cbda10620bc1bf19fbb6cd58bc313d4a371ca8b5"
		des64 = "0123456789abcdef"
		now   = "4e6f77206973207468652074696d6520666f7220616c6c20" // FIPS 81: "Now is the time for all "
	)
	for _, v := range []known{
		{"SP 800-38A F.4.1", p11.Mechanism{Type: p11.CKM_AES_OFB, Param: iv(t, iv128)}, p11.CKK_AES, key128, four,
			"3b3fd92eb72dad20333449f8e83cfb4a7789508d16918f03f53c52dac54ed825"},
		{"SP 800-38A F.3.13", p11.Mechanism{Type: p11.CKM_AES_CFB128, Param: iv(t, iv128)}, p11.CKK_AES, key128, four,
			"3b3fd92eb72dad20333449f8e83cfb4ac8a64537a0b3a93fcde3cdad9f1ce58b"},
		{"SP 800-38A F.3.7", p11.Mechanism{Type: p11.CKM_AES_CFB8, Param: iv(t, iv128)}, p11.CKK_AES, key128, "6bc1bee22e409f96e93d7e117393172aae2d",
			"3b79424c9c0dd436bace9e0ed4586a4f32b9"},
		{"SP 800-38A F.3.13, the first segment, which is under the same block", p11.Mechanism{Type: p11.CKM_AES_CFB64, Param: iv(t, iv128)}, p11.CKK_AES, key128, four[:16],
			"3b3fd92eb72dad20"},
		{"SP 800-38A F.3.1", p11.Mechanism{Type: p11.CKM_AES_CFB1, Param: iv(t, iv128)}, p11.CKK_AES, key128, "6bc1", "68b3"},
		{"RFC 3962 B, last blocks as CS1", p11.Mechanism{Type: p11.CKM_AES_CTS, Param: iv(t, "00000000000000000000000000000000")}, p11.CKK_AES,
			"636869636b656e207465726979616b69", "4920776f756c64206c696b652074686520", "97c6353568f2bf8cb4d8a580362da7ff7f"},
		{"IEEE 1619 B, vector 2", p11.Mechanism{Type: p11.CKM_AES_XTS, Param: iv(t, "33333333330000000000000000000000")}, p11.CKK_AES_XTS,
			"1111111111111111111111111111111122222222222222222222222222222222", "4444444444444444444444444444444444444444444444444444444444444444",
			"c454185e6a16936e39334038acef838bfb186fff7480adc4289382ecd6d394f0"},
		{"IEEE 1619 B, vector 15", p11.Mechanism{Type: p11.CKM_AES_XTS, Param: iv(t, "9a785634120000000000000000000000")}, p11.CKK_AES_XTS,
			"fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0bfbebdbcbbbab9b8b7b6b5b4b3b2b1b0", "000102030405060708090a0b0c0d0e0f10",
			"6c1625db4671522d3d7599601de7ca09ed"},
		{"FIPS 81, ECB", p11.Mechanism{Type: p11.CKM_DES_ECB}, p11.CKK_DES, des64, now, "3fa40e8a984d48156a271787ab8883f9893d51ec4b563b53"},
		{"FIPS 81, CBC", p11.Mechanism{Type: p11.CKM_DES_CBC, Param: iv(t, "1234567890abcdef")}, p11.CKK_DES, des64, now,
			"e5c7cdde872bf27c43e934008c389c0f683788499a7c05f6"},
		{"FIPS 81, CFB", p11.Mechanism{Type: p11.CKM_DES_CFB64, Param: iv(t, "1234567890abcdef")}, p11.CKK_DES, des64, now,
			"f3096249c7f46e51a69e839b1a92f78403467133898ea622"},
		{"FIPS 81, CFB of 8 bits", p11.Mechanism{Type: p11.CKM_DES_CFB8, Param: iv(t, "1234567890abcdef")}, p11.CKK_DES, des64, now[:20],
			"f31fda07011462ee187f"},
		{"SP 800-38B D.4", p11.Mechanism{Type: p11.CKM_DES3_ECB}, p11.CKK_DES3, key3, "0000000000000000", "c8cc74e98a7329a2"},
	} {
		t.Run(v.source, func(t *testing.T) {
			eachProvider(t, func(t *testing.T, c *Crypto) {
				if lacks(c, v.m.Type) {
					return
				}
				key := tokentest.Secret(t, v.kt, tokentest.Hex(t, v.key))
				got, err := encryptAll(c, v.m, key, tokentest.Hex(t, v.in))
				if want := tokentest.Hex(t, v.want); err != nil || !bytes.Equal(got, want) {
					t.Errorf("%x, %v, want %x", got, err, want)
				}
				back, err := decryptAll(c, v.m, key, got)
				if err != nil || !bytes.Equal(back, tokentest.Hex(t, v.in)) {
					t.Errorf("decrypts to %x, %v", back, err)
				}
			})
		})
	}
	for _, v := range []known{
		{"SP 800-38B D.4, 20 bytes", p11.Mechanism{Type: p11.CKM_DES3_CMAC}, p11.CKK_DES3, key3, "6bc1bee22e409f96e93d7e117393172aae2d8a57", "743ddbe0ce2dc2ed"},
		{"SP 800-38B D.5, two keys", p11.Mechanism{Type: p11.CKM_DES3_CMAC}, p11.CKK_DES2, "4cf15134a2850dd58a3d10ba80570d38", "6bc1bee22e409f96", "4ff2ab813c53ce83"},
		// ECB of the first block, xor the second, and so on: SP 800-38A F.2.1's last block.
		{"CBC of SP 800-38A F.2.1", p11.Mechanism{Type: p11.CKM_AES_MAC_GENERAL, Param: p11.MACLength(8)}, p11.CKK_AES, key128, "6bc1bee22e409f96e93d7e117393172a", "3ad77bb40d7a3660"},
		{"FIPS 113", p11.Mechanism{Type: p11.CKM_DES3_MAC}, p11.CKK_DES3, des64 + des64 + des64, "37363534333231204e6f77206973207468652074696d6520666f7220", "f1d30f68"},
	} {
		t.Run(v.source, func(t *testing.T) {
			eachProvider(t, func(t *testing.T, c *Crypto) {
				if lacks(c, v.m.Type) {
					return
				}
				got, err := signAll(c, v.m, tokentest.Secret(t, v.kt, tokentest.Hex(t, v.key)), tokentest.Hex(t, v.in))
				if want := tokentest.Hex(t, v.want); err != nil || !bytes.Equal(got, want) {
					t.Errorf("%x, %v, want %x", got, err, want)
				}
			})
		})
	}
}
