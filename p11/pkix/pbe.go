package pkix

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"hash"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
	"golang.org/x/crypto/pbkdf2"
	"golang.org/x/crypto/scrypt"

	"p11fs/p11"
	"p11fs/secret"
)

// Algorithms of password-based encryption (RFC 8018 §A, RFC 7292 §C, RFC 7914 §7).
const (
	oidMD5DES      = "1.2.840.113549.1.5.3"
	oidSHA1DES     = "1.2.840.113549.1.5.10"
	oidPBKDF2      = "1.2.840.113549.1.5.12"
	oidPBES2       = "1.2.840.113549.1.5.13"
	oidPBMAC1      = "1.2.840.113549.1.5.14"
	oidHMACSHA256  = "1.2.840.113549.2.9"
	oidP12TripleDS = "1.2.840.113549.1.12.1.3"
	oidP12DoubleDS = "1.2.840.113549.1.12.1.4"
	oidP12RC2128   = "1.2.840.113549.1.12.1.5"
	oidP12RC240    = "1.2.840.113549.1.12.1.6"
	oidScrypt      = "1.3.6.1.4.1.11591.4.11"

	oidTripleDESCBC = "1.2.840.113549.3.7"
	oidAES          = "2.16.840.1.101.3.4.1"
	oidAES128CBC    = "2.16.840.1.101.3.4.1.2"
	oidAES192CBC    = "2.16.840.1.101.3.4.1.22"
	oidAES256CBC    = "2.16.840.1.101.3.4.1.42"
)

// pkcs8Encrypted reads an EncryptedPrivateKeyInfo (RFC 5958 §3).
func (p *parser) pkcs8Encrypted(der []byte, label string) error {
	plain, err := p.openPKCS8(der)
	if err != nil {
		return err
	}
	defer secret.Wipe(plain)
	return p.pkcs8(plain, label)
}

// openPKCS8 returns the PrivateKeyInfo, to be wiped by the caller.
func (p *parser) openPKCS8(der []byte) ([]byte, error) {
	var s, data cryptobyte.String
	in := cryptobyte.String(der)
	if !in.ReadASN1(&s, cbasn1.SEQUENCE) || !in.Empty() {
		return nil, invalid(formPKCS8Encrypted)
	}
	alg, ok := readAlgorithm(&s)
	if !ok || !s.ReadASN1(&data, cbasn1.OCTET_STRING) || !s.Empty() {
		return nil, invalid(formPKCS8Encrypted)
	}
	plain, err := p.decrypt(alg, data)
	// One wrong pass phrase in 256 leaves padding that looks right.
	if err == nil && sniff(plain) != formPKCS8 {
		secret.Wipe(plain)
		return nil, p.wrongPassphrase()
	}
	return plain, err
}

// decrypt opens data with the pass phrase. The result is the caller's to wipe.
func (p *parser) decrypt(alg algorithm, data []byte) (plain []byte, err error) {
	p.pass.Use(func(pass []byte) {
		var key []byte
		var dec cipher.BlockMode
		if alg.oid == oidPBES2 {
			key, dec, err = p.pbes2(alg.params, pass)
		} else {
			key, dec, err = p.pbes1(alg, pass)
		}
		defer secret.Wipe(key)
		if err == nil {
			plain, err = p.unpad(dec, data)
		}
	})
	return plain, err
}

// unpad decrypts data and takes the padding of RFC 8018 §6.1.1 off.
func (p *parser) unpad(dec cipher.BlockMode, data []byte) ([]byte, error) {
	size := dec.BlockSize()
	if len(data) == 0 || len(data)%size != 0 {
		return nil, p11.Errorf(p11.CKR_DATA_INVALID, "encrypted data whose length is not whole blocks")
	}
	plain := make([]byte, len(data))
	dec.CryptBlocks(plain, data)
	n := int(plain[len(plain)-1])
	good := n >= 1 && n <= size
	for i := 0; good && i < n; i++ {
		good = plain[len(plain)-1-i] == byte(n)
	}
	if !good {
		secret.Wipe(plain)
		return nil, p.wrongPassphrase()
	}
	return plain[:len(plain)-n], nil
}

// spend takes rounds of hashing from what this file may cost.
func (p *parser) spend(rounds, times int) error {
	if rounds < 1 {
		return p11.Errorf(p11.CKR_DATA_INVALID, "key derivation with %d iterations", rounds)
	}
	if rounds > p.work || rounds*times > p.work {
		return p11.Errorf(p11.CKR_DATA_LEN_RANGE, "key derivation of more than %d iterations in all", maxWork)
	}
	p.work -= rounds * times
	return nil
}

// readSaltRounds reads the salt and iteration count that begin all parameters.
func readSaltRounds(s *cryptobyte.String) (salt []byte, rounds int, err error) {
	if !s.ReadASN1Bytes(&salt, cbasn1.OCTET_STRING) || len(salt) > maxSalt {
		return nil, 0, p11.Errorf(p11.CKR_DATA_INVALID, "key derivation without a usable salt")
	}
	if !s.ReadASN1Integer(&rounds) {
		return nil, 0, p11.Errorf(p11.CKR_DATA_INVALID, "key derivation without a usable iteration count")
	}
	return salt, rounds, nil
}

// pbes2 reads PBES2-params (RFC 8018 §A.4).
func (p *parser) pbes2(params, pass []byte) (key []byte, dec cipher.BlockMode, err error) {
	var s cryptobyte.String
	in := cryptobyte.String(params)
	if !in.ReadASN1(&s, cbasn1.SEQUENCE) {
		return nil, nil, invalid(formPKCS8Encrypted)
	}
	kdf, ok1 := readAlgorithm(&s)
	enc, ok2 := readAlgorithm(&s)
	if !ok1 || !ok2 || !s.Empty() {
		return nil, nil, invalid(formPKCS8Encrypted)
	}
	var size int
	block := aes.NewCipher
	switch enc.oid {
	case oidAES128CBC:
		size = 16
	case oidAES192CBC:
		size = 24
	case oidAES256CBC:
		size = 32
	case oidTripleDESCBC:
		size, block = 24, des.NewTripleDESCipher
	default:
		return nil, nil, p11.Errorf(p11.CKR_DATA_INVALID, "encryption with cipher %s is not supported: AES-CBC and 3DES-CBC are", clip(enc.oid))
	}
	switch kdf.oid {
	case oidPBKDF2:
		key, err = p.pbkdf2(kdf.params, pass, size)
	case oidScrypt:
		key, err = p.scrypt(kdf.params, pass, size)
	default:
		err = p11.Errorf(p11.CKR_DATA_INVALID, "key derivation %s is not supported: PBKDF2 and scrypt are", clip(kdf.oid))
	}
	if err != nil {
		return nil, nil, err
	}
	iv := cryptobyte.String(enc.params)
	var ivBytes []byte
	c, err := block(key)
	if err != nil || !iv.ReadASN1Bytes(&ivBytes, cbasn1.OCTET_STRING) || len(ivBytes) != c.BlockSize() {
		return key, nil, p11.Errorf(p11.CKR_DATA_INVALID, "encrypted data with an unusable initialisation vector")
	}
	return key, cipher.NewCBCDecrypter(c, ivBytes), nil
}

// pbkdf2 reads PBKDF2-params (RFC 8018 §A.2) and derives size bytes.
func (p *parser) pbkdf2(params, pass []byte, size int) ([]byte, error) {
	var s cryptobyte.String
	in := cryptobyte.String(params)
	if !in.ReadASN1(&s, cbasn1.SEQUENCE) {
		return nil, p11.Errorf(p11.CKR_DATA_INVALID, "PBKDF2 without parameters")
	}
	salt, rounds, err := readSaltRounds(&s)
	if err != nil {
		return nil, err
	}
	if s.PeekASN1Tag(cbasn1.INTEGER) {
		var length int
		if !s.ReadASN1Integer(&length) || length != size {
			return nil, p11.Errorf(p11.CKR_DATA_INVALID, "PBKDF2 with a key length that does not fit the cipher")
		}
	}
	prf := hmacOf("1.2.840.113549.2.7")
	if !s.Empty() {
		alg, ok := readAlgorithm(&s)
		if prf = hmacOf(alg.oid); !ok || prf == nil {
			return nil, p11.Errorf(p11.CKR_DATA_INVALID, "PBKDF2 with function %s is not supported: HMAC with SHA-1 and SHA-2 are", clip(alg.oid))
		}
	}
	if err := p.spend(rounds, (size+prf().Size()-1)/prf().Size()); err != nil {
		return nil, err
	}
	return pbkdf2.Key(pass, salt, rounds, size, prf), nil
}

// hmacOf returns the hash of an HMAC algorithm (RFC 8018 §B.1), nil if unknown.
func hmacOf(oid string) func() hash.Hash {
	switch oid {
	case "1.2.840.113549.2.7":
		return sha1.New
	case "1.2.840.113549.2.8":
		return sha256.New224
	case oidHMACSHA256:
		return sha256.New
	case "1.2.840.113549.2.10":
		return sha512.New384
	case "1.2.840.113549.2.11":
		return sha512.New
	case "1.2.840.113549.2.12":
		return sha512.New512_224
	case "1.2.840.113549.2.13":
		return sha512.New512_256
	}
	return nil
}

// scrypt reads scrypt-params (RFC 7914 §7.1) and derives size bytes.
func (p *parser) scrypt(params, pass []byte, size int) ([]byte, error) {
	var s cryptobyte.String
	var salt []byte
	var n, r, par int
	in := cryptobyte.String(params)
	if !in.ReadASN1(&s, cbasn1.SEQUENCE) || !s.ReadASN1Bytes(&salt, cbasn1.OCTET_STRING) || len(salt) > maxSalt ||
		!s.ReadASN1Integer(&n) || !s.ReadASN1Integer(&r) || !s.ReadASN1Integer(&par) {
		return nil, p11.Errorf(p11.CKR_DATA_INVALID, "scrypt with damaged parameters")
	}
	if n < 2 || n&(n-1) != 0 || r < 1 || par < 1 {
		return nil, p11.Errorf(p11.CKR_DATA_INVALID, "scrypt with impossible parameters")
	}
	if n > maxScryptWork || r > maxScryptWork/n || par > maxScryptWork/(n*r) || n*r > maxScryptMem/128 {
		return nil, p11.Errorf(p11.CKR_DATA_LEN_RANGE, "scrypt that asks for too much work or memory")
	}
	// One unit of N·r·p is about as much work as two rounds of a hash.
	if err := p.spend(n*r*par, 1); err != nil {
		return nil, err
	}
	key, err := scrypt.Key(pass, salt, n, r, par, size)
	if err != nil {
		return nil, p11.Errorf(p11.CKR_DATA_INVALID, "%v", err)
	}
	return key, nil
}

// pbes1 serves the schemes that derive the IV from the pass phrase too: those of
// RFC 8018 §6.1 and of RFC 7292 §C.
func (p *parser) pbes1(alg algorithm, pass []byte) (key []byte, dec cipher.BlockMode, err error) {
	var s cryptobyte.String
	in := cryptobyte.String(alg.params)
	switch alg.oid {
	case oidMD5DES, oidSHA1DES, oidP12TripleDS, oidP12DoubleDS, oidP12RC2128, oidP12RC240:
	default:
		return nil, nil, p11.Errorf(p11.CKR_DATA_INVALID, "encryption scheme %s is not supported", clip(alg.oid))
	}
	if !in.ReadASN1(&s, cbasn1.SEQUENCE) {
		return nil, nil, invalid(formPKCS8Encrypted)
	}
	salt, rounds, err := readSaltRounds(&s)
	if err != nil {
		return nil, nil, err
	}
	if alg.oid == oidMD5DES || alg.oid == oidSHA1DES {
		if err := p.spend(rounds, 1); err != nil {
			return nil, nil, err
		}
		h := md5.New
		if alg.oid == oidSHA1DES {
			h = sha1.New
		}
		key = pbkdf1(h, pass, salt, rounds)
		c, err := des.NewCipher(key[:8])
		if err != nil {
			return key, nil, p11.Errorf(p11.CKR_GENERAL_ERROR, "%v", err)
		}
		return key, cipher.NewCBCDecrypter(c, key[8:16]), nil
	}
	if err := p.spend(rounds, 3); err != nil { // two hashes of key, one of IV
		return nil, nil, err
	}
	bmp := p.bmpString(pass)
	defer secret.Wipe(bmp)
	derive := func(id byte, n int) []byte { return pkcs12KDF(sha1.New, id, bmp, salt, rounds, n) }
	var c cipher.Block
	switch alg.oid {
	case oidP12TripleDS:
		key = derive(kdfKey, 24)
		c, err = des.NewTripleDESCipher(key)
	case oidP12DoubleDS:
		key = derive(kdfKey, 16)
		key = append(key, key[:8]...)
		c, err = des.NewTripleDESCipher(key)
	case oidP12RC2128:
		key = derive(kdfKey, 16)
		c = newRC2(key)
	default:
		key = derive(kdfKey, 5)
		c = newRC2(key)
	}
	if err != nil {
		return key, nil, p11.Errorf(p11.CKR_GENERAL_ERROR, "%v", err)
	}
	return key, cipher.NewCBCDecrypter(c, derive(kdfIV, c.BlockSize())), nil
}

// pbkdf1 returns the 16 bytes of RFC 8018 §5.1 that make a DES key and an IV.
func pbkdf1(h func() hash.Hash, pass, salt []byte, rounds int) []byte {
	d := h()
	d.Write(pass)
	d.Write(salt)
	t := d.Sum(nil)
	for range rounds - 1 {
		d.Reset()
		d.Write(t)
		t = d.Sum(t[:0])
	}
	return t[:16]
}

// pbmac1 computes the MAC of RFC 9579 over data.
func (p *parser) pbmac1(params, pass, data []byte) ([]byte, error) {
	var s cryptobyte.String
	in := cryptobyte.String(params)
	if !in.ReadASN1(&s, cbasn1.SEQUENCE) {
		return nil, invalid(formPKCS12)
	}
	kdf, ok1 := readAlgorithm(&s)
	mac, ok2 := readAlgorithm(&s)
	h := hmacOf(mac.oid)
	if !ok1 || !ok2 || kdf.oid != oidPBKDF2 || h == nil {
		return nil, p11.Errorf(p11.CKR_DATA_INVALID, "a PKCS#12 file whose integrity algorithm is not supported")
	}
	// The key's length is the writer's choice and must be written down.
	size, ok := pbkdf2Length(kdf.params)
	if !ok || size < 16 || size > 64 {
		return nil, p11.Errorf(p11.CKR_DATA_INVALID, "a PKCS#12 file whose integrity key has no usable length")
	}
	key, err := p.pbkdf2(kdf.params, pass, size)
	if err != nil {
		return nil, err
	}
	defer secret.Wipe(key)
	m := hmac.New(h, key)
	m.Write(data)
	return m.Sum(nil), nil
}

// pbkdf2Length reads the optional key length of PBKDF2-params.
func pbkdf2Length(params []byte) (n int, ok bool) {
	var s cryptobyte.String
	in := cryptobyte.String(params)
	ok = in.ReadASN1(&s, cbasn1.SEQUENCE) && s.SkipASN1(cbasn1.OCTET_STRING) &&
		s.SkipASN1(cbasn1.INTEGER) && s.ReadASN1Integer(&n)
	return n, ok
}
