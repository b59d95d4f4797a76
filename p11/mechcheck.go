package p11

// Validate says whether the parameter is of the mechanism's type, complete and
// within the standard's ranges. It wraps CKR_MECHANISM_PARAM_INVALID. A
// mechanism that is not known passes, and so does a RawParam for one that takes
// parameters: whoever uses it must take it apart.
func (m Mechanism) Validate() error { return m.check(false) }

// check is Validate; partial lets an iv and public be absent.
func (m Mechanism) check(partial bool) error {
	f, ok := MechanismFacts(m.Type)
	if !ok || f.Param == ParamRaw {
		switch m.Param.(type) {
		case nil, RawParam:
			return nil
		}
		return paramError(m.Type, "wants its parameter as bytes")
	}
	if raw, ok := m.Param.(RawParam); ok {
		switch {
		case f.Param == ParamNone && len(raw) > 0:
			return paramError(m.Type, "takes no parameter")
		case f.Param == ParamPublic && len(raw) == 0 && !partial:
			return paramError(m.Type, "public= is empty: the other side's public value")
		}
		return nil
	}
	switch f.Param {
	case ParamNone:
		if m.Param == nil {
			return nil
		}
		return paramError(m.Type, "takes no parameter")
	case ParamIV, ParamOptionalIV:
		return m.checkIV(f, partial || f.Param == ParamOptionalIV)
	case ParamIVData:
		if p, ok := m.Param.(*CBCDataParams); ok {
			return checkBlocks(m.Type, f, p)
		}
	case ParamData:
		if _, ok := m.Param.(*StringDataParams); ok {
			return nil
		}
	case ParamMAC:
		if n, ok := m.Param.(MACLength); ok {
			return checkMAC(m.Type, f, n)
		}
	case ParamPSS:
		if p, ok := m.Param.(*PSSParams); ok {
			return checkPSS(m.Type, f, p)
		}
	case ParamOAEP:
		if p, ok := m.Param.(*OAEPParams); ok {
			return checkOAEP(m.Type, p)
		}
	case ParamGCM:
		if p, ok := m.Param.(*GCMParams); ok {
			return checkGCM(m.Type, p, partial)
		}
	case ParamCTR:
		if p, ok := m.Param.(*CTRParams); ok {
			if p.CounterBits < 1 || p.CounterBits > 128 {
				return paramError(m.Type, "bits= is 1 to 128, not %d", p.CounterBits)
			}
			return nil
		}
	case ParamECDH1:
		if p, ok := m.Param.(*ECDH1Params); ok {
			return checkECDH1(m.Type, p, partial)
		}
	case ParamRSAAESKeyWrap:
		if p, ok := m.Param.(*RSAAESKeyWrapParams); ok && p.OAEP != nil {
			switch p.AESKeyBits {
			case 128, 192, 256:
				return checkOAEP(m.Type, p.OAEP)
			}
			return paramError(m.Type, "bits= is 128, 192 or 256, not %d", p.AESKeyBits)
		}
	case ParamPublic:
		if m.Param == nil && partial {
			return nil
		}
	}
	if m.Param == nil {
		return paramError(m.Type, "a parameter is missing; it takes %s", paramWords(m.Type))
	}
	return paramError(m.Type, "the parameter is of another mechanism's type")
}

// checkIV checks the length of an initialisation vector: the cipher's block, or
// for key wrapping the size of the check value.
func (m Mechanism) checkIV(f Facts, optional bool) error {
	iv, ok := m.Param.(IV)
	switch {
	case m.Param == nil && optional:
		return nil
	case m.Param == nil:
		return paramError(m.Type, "iv= is missing")
	case !ok:
		return paramError(m.Type, "the parameter is of another mechanism's type")
	}
	want := 0
	switch m.Type {
	case CKM_AES_KEY_WRAP, CKM_AES_KEY_WRAP_PAD, CKM_AES_KEY_WRAP_PKCS7:
		want = 8
	case CKM_AES_KEY_WRAP_KWP:
		want = 4
	case CKM_AES_GMAC:
		if len(iv) == 0 {
			return paramError(m.Type, "iv= is empty")
		}
	default:
		want = blockSize(f)
	}
	if want > 0 && len(iv) != want {
		return paramError(m.Type, "iv= has %d bytes, not %d", want, len(iv))
	}
	return nil
}

// blockSize returns the block length of a mechanism's cipher, 0 if it is not
// known.
func blockSize(f Facts) int {
	if len(f.KeyTypes) == 0 {
		return 0
	}
	switch f.KeyTypes[0] {
	case CKK_AES, CKK_AES_XTS, CKK_CAMELLIA, CKK_ARIA, CKK_SEED, CKK_TWOFISH:
		return 16
	case CKK_DES, CKK_DES2, CKK_DES3, CKK_BLOWFISH, CKK_IDEA, CKK_CAST, CKK_CAST3, CKK_CAST128, CKK_CDMF:
		return 8
	}
	return 0
}

func checkBlocks(t MechanismType, f Facts, p *CBCDataParams) error {
	n := blockSize(f)
	switch {
	case len(p.IV) != n:
		return paramError(t, "iv= has %d bytes, not %d", n, len(p.IV))
	case len(p.Data) == 0 || len(p.Data)%n != 0:
		return paramError(t, "data= has a multiple of %d bytes, not %d", n, len(p.Data))
	}
	return nil
}

func checkMAC(t MechanismType, f Facts, n MACLength) error {
	most := HashSize(f.Hash)
	if most == 0 {
		most = uint64(blockSize(f))
	}
	if n < 1 || most > 0 && uint64(n) > most {
		return paramError(t, "mac= is 1 to %d bytes, not %d", most, n)
	}
	return nil
}

func checkPSS(t MechanismType, f Facts, p *PSSParams) error {
	switch {
	case HashSize(p.Hash) == 0:
		return paramError(t, "hash= is no digest: %s", p.Hash.Short())
	case f.Hash != 0 && p.Hash != f.Hash:
		return paramError(t, "hash= is %s by the mechanism's name, not %s", f.Hash.Short(), p.Hash.Short())
	case p.MGF.HashOf() == 0:
		return paramError(t, "mgf= is not known: %s", p.MGF.Short())
	case p.SaltLen > 1<<16:
		return paramError(t, "salt= is too long: %d bytes", p.SaltLen)
	}
	return nil
}

func checkOAEP(t MechanismType, p *OAEPParams) error {
	switch {
	case HashSize(p.Hash) == 0:
		return paramError(t, "hash= is no digest: %s", p.Hash.Short())
	case p.MGF.HashOf() == 0:
		return paramError(t, "mgf= is not known: %s", p.MGF.Short())
	}
	return nil
}

// checkGCM follows PKCS#11 v3.1 §6.13.3 and NIST SP 800-38D §5.2.1.2.
func checkGCM(t MechanismType, p *GCMParams, partial bool) error {
	switch p.TagBits {
	case 32, 64, 96, 104, 112, 120, 128:
	default:
		return paramError(t, "tag= is 128, 120, 112, 104, 96, 64 or 32 bits, not %d", p.TagBits)
	}
	switch {
	case len(p.IV) == 0 && !partial:
		return paramError(t, "iv= is missing")
	case len(p.IV) > 256:
		return paramError(t, "iv= has at most 256 bytes, not %d", len(p.IV))
	}
	return nil
}

func checkECDH1(t MechanismType, p *ECDH1Params, partial bool) error {
	switch {
	case p.KDF.known() == "":
		return paramError(t, "kdf= is not known: %s", p.KDF.Short())
	case p.KDF == CKD_NULL && len(p.SharedData) > 0:
		return paramError(t, "shared= needs a kdf=")
	case len(p.PublicData) == 0 && !partial:
		return paramError(t, "public= is missing: the other side's point")
	}
	return nil
}
