package icsfwire

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/crypto/cryptobyte"
)

// HandleSize is the length of a handle: the token's name in 32 characters, eight digits, T or
// S, and three blanks.
const HandleSize = 44

// ruleSize is the length of a rule.
const ruleSize = 8

// maxRules bounds those of a request.
const maxRules = 16

// A Handle names a token or an object, without the blanks that follow: see Print.
type Handle string

// TokenNameSize is the length of a token's name in a handle.
const TokenNameSize = 32

// TokenHandle is that of a token.
func TokenHandle(name string) Handle { return Handle(name) }

// ObjectHandle is that of an object: of a session, or of the token itself.
func ObjectHandle(token string, sequence uint32, session bool) Handle {
	kind := "T"
	if session {
		kind = "S"
	}
	return Handle(fmt.Sprintf("%-*s%08X%s", TokenNameSize, token, sequence, kind))
}

// Token is the name of the token that a handle names, or whose object it names.
func (h Handle) Token() string {
	return strings.TrimRight(string(h[:min(len(h), TokenNameSize)]), " ")
}

// IsObject says whether a handle names an object.
func (h Handle) IsObject() bool { return len(h) > TokenNameSize+ruleSize }

// IsSession says whether a handle names an object of a session.
func (h Handle) IsSession() bool { return h.IsObject() && h[TokenNameSize+ruleSize] == 'S' }

// Print is the handle as it goes over the wire, in HandleSize bytes.
func (h Handle) Print() []byte {
	b := []byte(strings.Repeat(" ", HandleSize))
	copy(b, h)
	return b
}

// ParseHandle reads a handle, which has HandleSize characters of ASCII.
func ParseHandle(b []byte) (Handle, error) {
	if len(b) != HandleSize {
		return "", bad(fmt.Sprintf("a handle has %d bytes", len(b)))
	}
	if !isPrintable(b) {
		return "", bad("a handle is not of printable characters")
	}
	return Handle(strings.TrimRight(string(b), " ")), nil
}

// isPrintable says whether text is of printable ASCII alone.
func isPrintable(b []byte) bool {
	return !slices.ContainsFunc(b, func(c byte) bool { return c < ' ' || c > '~' })
}

// A Request asks for a service.
type Request struct {
	Handle Handle
	Rules  []string
	Data   Data
}

// Print is the value of the extended request. The attributes in it have been checked
// (CheckAttributes).
func (r *Request) Print() ([]byte, error) {
	b := cryptobyte.NewBuilder(make([]byte, 0, 512+sizeOf(r.Data.layout())))
	b.AddASN1(tagged(tagSequence), func(b *cryptobyte.Builder) {
		addNumber(b, tagInteger, 1)
		addBytes(b, tagOctets, nil)
		addBytes(b, tagOctets, r.Handle.Print())
		b.AddASN1(tagged(tagSequence), func(b *cryptobyte.Builder) {
			addNumber(b, tagInteger, len(r.Rules))
			b.AddASN1(tagged(tagOctets), func(b *cryptobyte.Builder) {
				for _, rule := range r.Rules {
					fmt.Fprintf(writer{b}, "%-*s", ruleSize, rule)
				}
			})
		})
		addData(b, r.Data)
	})
	return b.Bytes()
}

// writer lets fmt print into a Builder.
type writer struct{ *cryptobyte.Builder }

func (w writer) Write(p []byte) (int, error) {
	w.AddBytes(p)
	return len(p), nil
}

// ParseRequest reads a request.
func ParseRequest(value []byte) (*Request, error) {
	e := elements(value)
	in, err := e.want(tagSequence)
	if err != nil {
		return nil, err
	}
	e = in
	if version, err := e.number(tagInteger); err != nil || version != 1 {
		return nil, bad("it has no version that there is")
	}
	if _, err := e.want(tagOctets); err != nil {
		return nil, err
	}
	handle, err := e.want(tagOctets)
	if err != nil {
		return nil, err
	}
	r := &Request{}
	if r.Handle, err = ParseHandle(handle); err != nil {
		return nil, err
	}
	if in, err = e.want(tagSequence); err != nil {
		return nil, err
	}
	if r.Rules, err = readRules(in); err != nil {
		return nil, err
	}
	tag, body, err := e.next()
	if err != nil {
		return nil, err
	}
	if r.Data, err = newRequest(Service(tag&0x1f), r.Rules); err != nil {
		return nil, err
	}
	return r, readData(tag, body, r.Data)
}

func readRules(e elements) (rules []string, err error) {
	count, err := e.number(tagInteger)
	if err != nil {
		return nil, err
	}
	text, err := e.want(tagOctets)
	if err != nil {
		return nil, err
	}
	if count < 0 || count > maxRules || len(text) != count*ruleSize {
		return nil, bad(fmt.Sprintf("%d rules have %d bytes", count, len(text)))
	}
	if !isPrintable(text) {
		return nil, bad("a rule is not of printable characters")
	}
	for ; len(text) > 0; text = text[ruleSize:] {
		rules = append(rules, strings.TrimRight(string(text[:ruleSize]), " "))
	}
	return rules, nil
}

// A Response answers a request.
type Response struct {
	Return, Reason int
	Handle         Handle
	tag            byte
	body           []byte
}

// ParseResponse reads a response, but for its data: see Into.
func ParseResponse(value []byte) (*Response, error) {
	e := elements(value)
	in, err := e.want(tagSequence)
	if err != nil {
		return nil, err
	}
	e = in
	r := &Response{}
	if _, err := e.number(tagInteger); err != nil {
		return nil, err
	}
	if r.Return, err = e.number(tagInteger); err != nil {
		return nil, err
	}
	if r.Reason, err = e.number(tagInteger); err != nil {
		return nil, err
	}
	if _, err := e.want(tagOctets); err != nil {
		return nil, err
	}
	handle, err := e.want(tagOctets)
	if err != nil {
		return nil, err
	}
	if len(handle) > 0 { // a refusal may have none
		if r.Handle, err = ParseHandle(handle); err != nil {
			return nil, err
		}
	}
	if len(e) > 0 {
		r.tag, r.body, err = e.next()
	}
	return r, err
}

// Into reads the data of a response to a request of out's service.
func (r *Response) Into(out Data) error { return readData(r.tag, r.body, out) }

// PrintResponse is the value of the extended response, of a server. Where data is nil there is
// none, and service says whose there would be.
func PrintResponse(ret, reason int, h Handle, service Service, data Data) ([]byte, error) {
	b := cryptobyte.NewBuilder(nil)
	b.AddASN1(tagged(tagSequence), func(b *cryptobyte.Builder) {
		addNumber(b, tagInteger, 1)
		addNumber(b, tagInteger, ret)
		addNumber(b, tagInteger, reason)
		addBytes(b, tagOctets, nil)
		addBytes(b, tagOctets, h.Print())
		if data == nil {
			addBytes(b, contextual|constructed|byte(service), nil)
		} else {
			addData(b, data)
		}
	})
	return b.Bytes()
}
