package icsfwire

import (
	"fmt"

	"golang.org/x/crypto/cryptobyte"

	"p11fs/p11"
)

// A Service is one of the eighteen, and the number of its data.
type Service byte

// The services: CSFPxxx of ICSF.
const (
	DMK Service = 1 + iota // derive several keys
	DVK                    // derive a key
	GAV                    // read attributes
	GKP                    // make a key pair
	GSK                    // make a secret key
	HMG                    // HMAC
	HMV                    // check an HMAC
	OWH                    // hash, and sign or verify
	PKS                    // use a private key
	PKV                    // use a public key
	SAV                    // set attributes
	SKD                    // decrypt
	SKE                    // encrypt
	TRC                    // create or copy an object, or create a token
	TRD                    // destroy one
	TRL                    // list tokens or objects
	UWK                    // unwrap a key
	WPK                    // wrap a key
)

// String is the name that ICSF's books have for the service.
func (s Service) String() string {
	names := "DMKDVKGAVGKPGSKHMGHMVOWHPKSPKVSAVSKDSKETRCTRDTRLUWKWPK"
	if s < DMK || s > WPK {
		return fmt.Sprintf("service %d", byte(s))
	}
	return "CSFP" + names[3*(s-1):3*s]
}

// Data is what a service is given, or gives: one of the types of this package, behind a
// pointer.
type Data interface {
	service() Service
	layout() []field
}

// ServiceOf is the service of data.
func ServiceOf(d Data) Service { return d.service() }

// A field is one element of data. What it points to is read and written; one of the pointers
// is not nil.
type field struct {
	tag        byte
	octets     *[]byte
	number     *int
	truth      *bool
	attributes *p11.Attributes
	group      []field
	// whole says that the field is the data, rather than an element of it.
	whole bool
	// optional fields are left out where there is nothing.
	optional bool
}

func octets(tag byte, p *[]byte) field { return field{tag: tag, octets: p} }
func number(tag byte, p *int) field    { return field{tag: tag, number: p} }
func attributes(tag byte, p *p11.Attributes) field {
	return field{tag: tag, attributes: p}
}

// sizeOf is about how much room fields need.
func sizeOf(list []field) (n int) {
	for _, f := range list {
		switch n += 16; {
		case f.octets != nil:
			n += len(*f.octets)
		case f.attributes != nil:
			for _, a := range *f.attributes {
				n += 32 + len(a.Value)
			}
		}
		n += sizeOf(f.group)
	}
	return n
}

// addData writes data.
func addData(b *cryptobyte.Builder, d Data) {
	list := d.layout()
	if len(list) == 1 && list[0].whole {
		f := list[0]
		f.tag = contextual | byte(d.service())
		if f.attributes != nil {
			f.tag |= constructed
		}
		addFields(b, []field{f})
		return
	}
	b.AddASN1(tagged(contextual|constructed|byte(d.service())), func(b *cryptobyte.Builder) { addFields(b, list) })
}

func addFields(b *cryptobyte.Builder, list []field) {
	for _, f := range list {
		switch {
		case f.octets != nil:
			if *f.octets != nil || !f.optional {
				addBytes(b, f.tag, *f.octets)
			}
		case f.number != nil:
			addNumber(b, f.tag, *f.number)
		case f.truth != nil:
			n := byte(0)
			if *f.truth {
				n = 0xff
			}
			addBytes(b, f.tag, []byte{n})
		case f.attributes != nil:
			b.AddASN1(tagged(f.tag), func(b *cryptobyte.Builder) { addAttributes(b, *f.attributes) })
		default:
			b.AddASN1(tagged(f.tag), func(b *cryptobyte.Builder) { addFields(b, f.group) })
		}
	}
}

// readData reads data that has that tag and body, and keeps nothing of their memory.
func readData(tag byte, body []byte, d Data) error {
	list := d.layout()
	if len(list) == 0 {
		return nil
	}
	if tag&0x1f != byte(d.service()) || tag&contextual == 0 {
		return bad(fmt.Sprintf("there is data with the tag %#x for %s", tag, d.service()))
	}
	if list[0].whole {
		return list[0].read(body)
	}
	return readFields(body, list)
}

// readFields reads fields in any order, by their tags; of those with one tag in theirs. What
// is unknown is passed over.
func readFields(e elements, list []field) error {
	got := make([]bool, len(list))
	for len(e) > 0 {
		tag, body, err := e.next()
		if err != nil {
			return err
		}
		for i, f := range list {
			if f.tag != tag || got[i] {
				continue
			}
			if err := f.read(body); err != nil {
				return err
			}
			got[i] = true
			break
		}
	}
	for i, f := range list {
		if !got[i] && !f.optional {
			return bad(fmt.Sprintf("the element with the tag %#x is missing", f.tag))
		}
	}
	return nil
}

func (f field) read(body []byte) (err error) {
	switch {
	case f.octets != nil:
		*f.octets = append([]byte{}, body...)
	case f.number != nil:
		*f.number, err = numberOf(body)
	case f.truth != nil:
		*f.truth = len(body) == 1 && body[0] != 0
	case f.attributes != nil:
		*f.attributes, err = readAttributes(body)
	default:
		err = readFields(body, f.group)
	}
	return err
}
