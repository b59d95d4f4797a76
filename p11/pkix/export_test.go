package pkix

import "p11fs/p11"

// ParseCheaply is Parse for the fuzzer: what takes long in key derivation is
// refused, so that it spends its time on parsing.
func ParseCheaply(kind Kind, data []byte, opt Options) ([]p11.Attributes, error) {
	return parse(kind, data, opt, 3000)
}

// ToDER is toDER.
func ToDER(data []byte) ([]byte, bool) { return toDER(data) }
