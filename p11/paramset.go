package p11

// parameterSet is the name of the parameter set of a key type, or "": the number means
// nothing without the type.
func parameterSet(kt KeyType, n uint64) string {
	name := ""
	switch kt {
	case CKK_ML_DSA, CKK_IBM_ML_DSA:
		name = MLDSAParameterSet(n).known()
	case CKK_SLH_DSA:
		name = SLHDSAParameterSet(n).known()
	case CKK_ML_KEM, CKK_IBM_ML_KEM:
		name = MLKEMParameterSet(n).known()
	}
	if name == "" {
		return ""
	}
	return shortName(name, "CKP_", n)
}

// parseParameterSet reads the name of a parameter set of any key type, or a number.
func parseParameterSet(s string) (uint64, error) {
	if n, err := parseNumber(s); err == nil {
		return n, nil
	}
	if v, err := ParseMLDSAParameterSet(s); err == nil {
		return uint64(v), nil
	}
	if v, err := ParseSLHDSAParameterSet(s); err == nil {
		return uint64(v), nil
	}
	if v, err := ParseMLKEMParameterSet(s); err == nil {
		return uint64(v), nil
	}
	return 0, Errorf(CKR_ATTRIBUTE_VALUE_INVALID, "no parameter set %s; write ml-dsa-65, slh-dsa-sha2-128f, ml-kem-768 or another of theirs", quoteWord(s))
}
