package wire

import "p11fs/p11"

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
