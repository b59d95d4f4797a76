package wire

import (
	"p11fs/p11"
)

// ParamLayout is the layout of t's parameter in our own protocol, by the name
// that the C module has for it; ok is false for a mechanism that takes no
// parameter.
func ParamLayout(t p11.MechanismType) (name string, ok bool) {
	l, ok := layoutOf(t)
	return [...]string{
		layoutRaw: "RAW", layoutPSS: "PSS", layoutOAEP: "OAEP", layoutGCM: "GCM", layoutCTR: "CTR", layoutECDH1: "ECDH1",
		layoutUlong: "ULONG", layoutRSAAESWrap: "RSA_AES_WRAP", layoutString: "STRING", layoutCBCData: "CBC_DATA",
	}[l], ok
}

// AttributeForms are the attributes whose value is not a byte array on the
// wire, with the name that the C module has for its encoding.
func AttributeForms() map[p11.AttributeType]string {
	names := [...]string{formByte: "BYTE", formUlong: "ULONG", formDate: "DATE", formMechanisms: "MECHANISMS", formTemplate: "TEMPLATE"}
	forms := map[p11.AttributeType]string{}
	for _, t := range append(p11.AllAttributeTypes(), 0x200, 0x201) {
		if f := formOf(t); f != formBytes {
			forms[t] = names[f]
		}
	}
	return forms
}
