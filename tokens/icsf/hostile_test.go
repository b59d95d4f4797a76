package icsf

import (
	"net"
	"slices"
	"testing"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens/icsf/icsfconn"
	"p11fs/tokens/icsf/icsfwire"
)

// hostile answers one connection as a server does that lists handles in a circle, and gives
// each object these attributes.
func hostile(t *testing.T, circle []icsfwire.Handle, attrs p11.Attributes) *objects {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	noError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		for err == nil {
			var m *icsfwire.Message
			if m, err = icsfwire.ReadMessage(c); err != nil {
				return
			}
			var answer []byte
			switch m.Op {
			case icsfwire.BindRequest:
				answer, err = icsfwire.PrintResult(m.ID, icsfwire.BindResponse, icsfwire.Success, "", nil)
			case icsfwire.SearchRequest:
				var done []byte
				if answer, err = icsfwire.PrintEntry(m.ID, icsfwire.RequestOID); err == nil {
					done, err = icsfwire.PrintResult(m.ID, icsfwire.SearchDone, icsfwire.Success, "", nil)
				}
				answer = append(answer, done...)
			case icsfwire.ExtendedRequest:
				answer, err = circling(m, circle, attrs)
			default:
				return
			}
			if err == nil {
				_, err = c.Write(answer)
			}
		}
	}()
	s := &objects{name: "T", conn: icsfconn.New(icsfconn.Config{
		URI: "ldap://" + l.Addr().String(), DN: "cn=a", Password: func() (*secret.Bytes, error) { return secret.New([]byte("secret")) },
	})}
	t.Cleanup(s.conn.Close)
	return s
}

func circling(m *icsfwire.Message, circle []icsfwire.Handle, attrs p11.Attributes) ([]byte, error) {
	_, value, err := icsfwire.ParseExtended(m.Body)
	if err != nil {
		return nil, err
	}
	r, err := icsfwire.ParseRequest(value)
	if err != nil {
		return nil, err
	}
	var data icsfwire.Data = &icsfwire.AttributeList{Attributes: attrs}
	service := icsfwire.ServiceOf(r.Data)
	if service == icsfwire.TRL {
		next := (slices.Index(circle, r.Handle) + 1) % len(circle)
		data = &icsfwire.ObjectList{Handles: circle[next].Print(), Length: icsfwire.HandleSize}
	}
	if value, err = icsfwire.PrintResponse(0, 0, r.Handle, service, data); err != nil {
		return nil, err
	}
	return icsfwire.PrintResult(m.ID, icsfwire.ExtendedResponse, icsfwire.Success, "", value)
}

// TestEndlessList: the list of a server that has no end has one here, of objects of the
// token and of sessions.
func TestEndlessList(t *testing.T) {
	t.Parallel()
	for _, session := range []bool{false, true} {
		var circle []icsfwire.Handle
		for n := range uint32(3) {
			circle = append(circle, icsfwire.ObjectHandle("T", n, session))
		}
		s := hostile(t, circle, nil)
		list, more, err := s.list(t.Context(), 3)
		if more || err != nil {
			t.Errorf("there is more, %v", err)
		}
		if _, more, err := s.list(t.Context(), 2); !more || err != nil {
			t.Errorf("of three, two are all, %v", err)
		}
		if want := 3; err != nil || !session && len(list) != want || session && len(list) != 0 {
			t.Errorf("%v, %v", list, err)
		}
	}
}

// TestManyAttributes: an object has no more attributes than there was room for.
func TestManyAttributes(t *testing.T) {
	t.Parallel()
	h := icsfwire.ObjectHandle("T", 1, false)
	for n, good := range map[int]bool{100: true, 2 * room: false} {
		s := hostile(t, []icsfwire.Handle{h}, p11.Attributes{{Type: p11.CKA_LABEL, Value: make([]byte, n)}})
		_, err := s.get(t.Context(), h)
		if (err == nil) != good {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}
