package securekey

import (
	"fmt"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens/store/format"
)

// Reading is f with the objects of stock's tokens read as what they are (Read), and
// written as Written has them.
func Reading(f format.Format) format.Format { return reading{f} }

type reading struct{ format.Format }

// Recognize is format.Format.
func (r reading) Recognize(file []byte) (format.Format, error) {
	f, err := r.Format.Recognize(file)
	if err != nil {
		return nil, err
	}
	return reading{f}, nil
}

// Objects is format.Format.
func (r reading) Objects(master *secret.Bytes) (format.Objects, error) {
	o, err := r.Format.Objects(master)
	if err != nil {
		return nil, err
	}
	return objects{o}, nil
}

type objects struct{ format.Objects }

// Open is format.Objects.
func (o objects) Open(n format.Name, file []byte) (private bool, attrs p11.Attributes, err error) {
	private, attrs, err = o.Objects.Open(n, file)
	if err != nil || attrs == nil {
		return private, attrs, err
	}
	if err := checkBlobs(attrs); err != nil {
		attrs.Wipe()
		return private, nil, err
	}
	return private, Read(attrs), nil
}

// checkBlobs refuses what no card has made.
func checkBlobs(attrs p11.Attributes) error {
	for _, t := range Blobs() {
		if v, _ := attrs.Get(t); len(v) > MaxBlob {
			return fmt.Errorf("%w: %s has %d bytes, and no card's key more than %d", format.ErrDamaged, t.Short(), len(v), MaxBlob)
		}
	}
	return nil
}

// Seal is format.Objects.
func (o objects) Seal(n format.Name, attrs p11.Attributes, previous []byte) ([]byte, error) {
	return o.Objects.Seal(n, Written(attrs), previous)
}
