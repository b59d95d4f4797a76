package p11

import "strconv"

// unavailableWord stands for CK_UNAVAILABLE_INFORMATION.
const unavailableWord = "unavailable"

// formatUlong prints the value of a CK_ULONG attribute by its name.
func formatUlong(kind Kind, v uint64) string {
	if v == CK_UNAVAILABLE_INFORMATION {
		return unavailableWord
	}
	switch kind {
	case KindMechanism:
		return MechanismType(v).Short()
	case KindClass:
		return ObjectClass(v).Short()
	case KindKeyType:
		return KeyType(v).Short()
	case KindCertificateType:
		return CertificateType(v).Short()
	case KindHardwareFeature:
		return HardwareFeatureType(v).Short()
	case KindCertificateCategory:
		return CertificateCategory(v).Short()
	case KindSecurityDomain:
		return SecurityDomain(v).Short()
	case KindProfile:
		return ProfileID(v).Short()
	case KindTrust:
		return Trust(v).Short()
	case KindOTPFormat:
		return OTPFormat(v).Short()
	case KindOTPRequirement:
		return OTPRequirement(v).Short()
	case KindValidationType:
		return ValidationType(v).Short()
	case KindValidationAuthority:
		return ValidationAuthority(v).Short()
	}
	return strconv.FormatUint(v, 10)
}

// parseUlong reads what formatUlong prints.
func parseUlong(kind Kind, s string) (uint64, error) {
	if s == unavailableWord {
		return CK_UNAVAILABLE_INFORMATION, nil
	}
	switch kind {
	case KindMechanism:
		v, err := ParseMechanismType(s)
		return uint64(v), err
	case KindClass:
		v, err := ParseObjectClass(s)
		return uint64(v), err
	case KindKeyType:
		v, err := ParseKeyType(s)
		return uint64(v), err
	case KindCertificateType:
		v, err := ParseCertificateType(s)
		return uint64(v), err
	case KindHardwareFeature:
		v, err := ParseHardwareFeatureType(s)
		return uint64(v), err
	case KindCertificateCategory:
		v, err := ParseCertificateCategory(s)
		return uint64(v), err
	case KindSecurityDomain:
		v, err := ParseSecurityDomain(s)
		return uint64(v), err
	case KindProfile:
		v, err := ParseProfileID(s)
		return uint64(v), err
	case KindTrust:
		v, err := ParseTrust(s)
		return uint64(v), err
	case KindOTPFormat:
		v, err := ParseOTPFormat(s)
		return uint64(v), err
	case KindOTPRequirement:
		v, err := ParseOTPRequirement(s)
		return uint64(v), err
	case KindValidationType:
		v, err := ParseValidationType(s)
		return uint64(v), err
	case KindValidationAuthority:
		v, err := ParseValidationAuthority(s)
		return uint64(v), err
	}
	return parseNumber(s)
}

// parseNumber reads a number in decimal, or in hexadecimal with 0x.
func parseNumber(s string) (uint64, error) {
	digits, base := s, 10
	if hex, ok := cutHexPrefix(s); ok {
		digits, base = hex, 16
	}
	v, err := strconv.ParseUint(digits, base, 64)
	if err != nil {
		return 0, Errorf(CKR_ATTRIBUTE_VALUE_INVALID, "wants a number, not %s", quoteWord(s))
	}
	return v, nil
}
