package icsfwire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/crypto/cryptobyte"
)

// The object identifiers of the extended operation.
const (
	RequestOID  = "1.3.18.0.2.12.83"
	ResponseOID = "1.3.18.0.2.12.84"
)

// ExtensionAttribute is that of the root of a directory which lists what the server can do.
const ExtensionAttribute = "supportedextension"

// An Op is the kind of a message: the tag of its operation.
type Op byte

// The operations (RFC 4511 §4.2 to §4.12).
const (
	BindRequest      Op = 0x60
	BindResponse     Op = 0x61
	UnbindRequest    Op = 0x42
	SearchRequest    Op = 0x63
	SearchEntry      Op = 0x64
	SearchDone       Op = 0x65
	AbandonRequest   Op = 0x50
	ExtendedRequest  Op = 0x77
	ExtendedResponse Op = 0x78
)

// The result codes that are used (RFC 4511 §4.1.9).
const (
	Success               = 0
	OperationsError       = 1
	ProtocolError         = 2
	AuthMethodUnsupported = 7
	UnavailableExtension  = 12
	InvalidCredentials    = 49
	InsufficientAccess    = 50
	Busy                  = 51
	Unavailable           = 52
)

// MaxMessage bounds a message that is read.
const MaxMessage = 4 << 20

// A Message is one message of LDAP: the body is what is in the element of the operation.
type Message struct {
	ID   int
	Op   Op
	Body []byte
}

// ReadMessage reads one message of at most MaxMessage bytes. io.EOF is the end between two.
func ReadMessage(r io.Reader) (*Message, error) {
	var head [6]byte // of the longest form
	if _, err := io.ReadFull(r, head[:2]); err != nil {
		return nil, err
	}
	n := int(head[1])
	if head[0] != tagSequence {
		return nil, bad("a message is no sequence")
	}
	if n >= 0x80 {
		count := n & 0x7f
		if count == 0 || count > 4 {
			return nil, bad("the length of a message is indefinite or too long")
		}
		if _, err := io.ReadFull(r, head[2:2+count]); err != nil {
			return nil, cutOff(err)
		}
		var length [4]byte
		copy(length[4-count:], head[2:2+count])
		n = int(binary.BigEndian.Uint32(length[:]))
	}
	if n > MaxMessage {
		return nil, bad(fmt.Sprintf("a message has %d bytes", n))
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, cutOff(err)
	}
	return parseMessage(b)
}

func cutOff(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func parseMessage(e elements) (*Message, error) {
	m := &Message{}
	var err error
	if m.ID, err = e.number(tagInteger); err != nil {
		return nil, err
	}
	tag, body, err := e.next()
	m.Op, m.Body = Op(tag), body
	return m, err
}

// print is a message whose operation content writes.
func print(id int, op Op, room int, content func(*cryptobyte.Builder)) ([]byte, error) {
	b := cryptobyte.NewBuilder(make([]byte, 0, room+128))
	b.AddASN1(tagged(tagSequence), func(b *cryptobyte.Builder) {
		addNumber(b, tagInteger, id)
		b.AddASN1(tagged(byte(op)), content)
	})
	return b.Bytes()
}

// The forms of a bind's authentication.
const (
	authSimple = contextual
	authSASL   = contextual | constructed | 3
	external   = "EXTERNAL"
)

// Bind asks to be known as dn by its password.
func Bind(id int, dn string, password []byte) ([]byte, error) {
	return bind(id, dn, len(password), func(b *cryptobyte.Builder) { addBytes(b, authSimple, password) })
}

// BindExternal asks to be known by the certificate of the connection (SASL EXTERNAL).
func BindExternal(id int) ([]byte, error) {
	return bind(id, "", 0, func(b *cryptobyte.Builder) {
		b.AddASN1(tagged(authSASL), func(b *cryptobyte.Builder) { addBytes(b, tagOctets, []byte(external)) })
	})
}

func bind(id int, dn string, room int, auth func(*cryptobyte.Builder)) ([]byte, error) {
	return print(id, BindRequest, room+len(dn), func(b *cryptobyte.Builder) {
		addNumber(b, tagInteger, 3)
		addBytes(b, tagOctets, []byte(dn))
		auth(b)
	})
}

// A Credential is what a bind request asks to be known by.
type Credential struct {
	DN       string
	Password []byte // of a simple one
	External bool
}

// ParseBind reads a bind request.
func ParseBind(body []byte) (c Credential, err error) {
	e := elements(body)
	if _, err := e.number(tagInteger); err != nil {
		return c, err
	}
	dn, err := e.want(tagOctets)
	if err != nil {
		return c, err
	}
	c.DN = string(dn)
	tag, auth, err := e.next()
	if err != nil {
		return c, err
	}
	switch tag {
	case authSimple:
		c.Password = auth
	case authSASL:
		e = auth
		mechanism, err := e.want(tagOctets)
		if err != nil {
			return c, err
		}
		c.External = string(mechanism) == external
	}
	return c, nil
}

// Unbind ends a connection.
func Unbind(id int) ([]byte, error) {
	b := cryptobyte.NewBuilder(nil)
	b.AddASN1(tagged(tagSequence), func(b *cryptobyte.Builder) {
		addNumber(b, tagInteger, id)
		addBytes(b, byte(UnbindRequest), nil)
	})
	return b.Bytes()
}

// Search asks for the extensions that the server has.
func Search(id int) ([]byte, error) {
	return print(id, SearchRequest, 0, func(b *cryptobyte.Builder) {
		addBytes(b, tagOctets, nil)
		addNumber(b, tagEnumerated, 0) // the base alone
		addNumber(b, tagEnumerated, 0) // aliases as they are
		addNumber(b, tagInteger, 0)    // no bound of entries and of time
		addNumber(b, tagInteger, 0)
		addBytes(b, tagBoolean, []byte{0})
		addBytes(b, contextual|7, []byte("objectclass"))
		b.AddASN1(tagged(tagSequence), func(b *cryptobyte.Builder) { addBytes(b, tagOctets, []byte(ExtensionAttribute)) })
	})
}

// Extensions reads the extensions in an entry that answers Search.
func Extensions(body []byte) (list []string, err error) {
	e := elements(body)
	if _, err := e.want(tagOctets); err != nil {
		return nil, err
	}
	attrs, err := e.want(tagSequence)
	if err != nil {
		return nil, err
	}
	for e = attrs; len(e) > 0; {
		one, err := e.want(tagSequence)
		if err != nil {
			return nil, err
		}
		in := elements(one)
		name, err := in.want(tagOctets)
		if err != nil {
			return nil, err
		}
		values, err := in.want(tagSet)
		if err != nil {
			return nil, err
		}
		if !strings.EqualFold(string(name), ExtensionAttribute) {
			continue
		}
		for in = values; len(in) > 0; {
			v, err := in.want(tagOctets)
			if err != nil {
				return nil, err
			}
			list = append(list, string(v))
		}
	}
	return list, nil
}

// PrintEntry is the entry that answers Search, of a server that has those extensions.
func PrintEntry(id int, extensions ...string) ([]byte, error) {
	return print(id, SearchEntry, 0, func(b *cryptobyte.Builder) {
		addBytes(b, tagOctets, nil)
		b.AddASN1(tagged(tagSequence), func(b *cryptobyte.Builder) {
			b.AddASN1(tagged(tagSequence), func(b *cryptobyte.Builder) {
				addBytes(b, tagOctets, []byte(ExtensionAttribute))
				b.AddASN1(tagged(tagSet), func(b *cryptobyte.Builder) {
					for _, x := range extensions {
						addBytes(b, tagOctets, []byte(x))
					}
				})
			})
		})
	})
}

// Extended asks for the services' operation, with the value of a Request.
func Extended(id int, value []byte) ([]byte, error) {
	return print(id, ExtendedRequest, len(value), func(b *cryptobyte.Builder) {
		addBytes(b, contextual, []byte(RequestOID))
		addBytes(b, contextual|1, value)
	})
}

// ParseExtended reads an extended request: the operation, and its value.
func ParseExtended(body []byte) (oid string, value []byte, err error) {
	e := elements(body)
	name, err := e.want(contextual)
	if err == nil && len(e) > 0 {
		value, err = e.want(contextual | 1)
	}
	return string(name), value, err
}

// A Result is what a server says of an operation.
type Result struct {
	Code  int
	Text  string
	Value []byte // of an extended response; nil where there is none
}

// maxText bounds what is kept of a server's words.
const maxText = 512

// ParseResult reads a response to a bind, a search or an extended request.
func ParseResult(body []byte) (r Result, err error) {
	e := elements(body)
	if r.Code, err = e.number(tagEnumerated); err != nil {
		return r, err
	}
	if _, err := e.want(tagOctets); err != nil {
		return r, err
	}
	text, err := e.want(tagOctets)
	if err != nil {
		return r, err
	}
	r.Text = strings.Map(printable, string(text[:min(len(text), maxText)]))
	for len(e) > 0 {
		tag, body, err := e.next()
		if err != nil {
			return r, err
		}
		if tag == contextual|11 {
			r.Value = body
		}
	}
	return r, nil
}

// printable lets nothing through that a terminal would do something with.
func printable(c rune) rune {
	if c < ' ' || c > '~' {
		return ' '
	}
	return c
}

// PrintResult is a response of a server. value is that of an extended response, or nil.
func PrintResult(id int, op Op, code int, text string, value []byte) ([]byte, error) {
	return print(id, op, len(value)+len(text), func(b *cryptobyte.Builder) {
		addNumber(b, tagEnumerated, code)
		addBytes(b, tagOctets, nil)
		addBytes(b, tagOctets, []byte(text))
		if value != nil {
			addBytes(b, contextual|10, []byte(ResponseOID))
			addBytes(b, contextual|11, value)
		}
	})
}
