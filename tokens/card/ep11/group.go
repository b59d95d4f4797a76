package ep11

import (
	"bytes"

	"p11fs/p11"
)

// groupTypes are the numbers of a group of Diffie-Hellman or DSA, in the order in which
// CKA_IBM_STRUCT_PARAMS has them.
func groupTypes(kt p11.KeyType) []p11.AttributeType {
	switch kt {
	case p11.CKK_DH:
		return []p11.AttributeType{p11.CKA_PRIME, p11.CKA_BASE}
	case p11.CKK_DSA:
		return []p11.AttributeType{p11.CKA_PRIME, p11.CKA_SUBPRIME, p11.CKA_BASE}
	}
	return nil
}

// PutGroup has the group of a key go to a card as cards take it: its numbers one behind the
// other, each as long as the prime, in CKA_IBM_STRUCT_PARAMS. A key without a group stays as
// it is.
func PutGroup(kt p11.KeyType, of p11.Attributes, template *p11.Attributes) {
	prime, _ := of.Get(p11.CKA_PRIME)
	size := len(bytes.TrimLeft(prime, "\x00"))
	var all []byte
	for _, t := range groupTypes(kt) {
		n, _ := of.Get(t)
		if n = bytes.TrimLeft(n, "\x00"); len(n) == 0 || len(n) > size {
			return
		}
		all = append(append(all, make([]byte, size-len(n))...), n...)
	}
	if len(all) > 0 {
		template.Set(p11.CKA_IBM_STRUCT_PARAMS, all)
	}
}

// GroupOf takes the group of a key out of a template. It is empty where there is none.
func GroupOf(kt p11.KeyType, template p11.Attributes) (group p11.Attributes) {
	types := groupTypes(kt)
	all, _ := template.Get(p11.CKA_IBM_STRUCT_PARAMS)
	if len(types) == 0 || len(all)%len(types) != 0 {
		return nil
	}
	for i, size := 0, len(all)/len(types); i < len(types) && size > 0; i++ {
		group.Set(types[i], bytes.Clone(bytes.TrimLeft(all[i*size:(i+1)*size], "\x00")))
	}
	return group
}
