package rpc

import (
	"bytes"
	"encoding/binary"

	"p11fs/mountd/rpc/wire"
	"p11fs/p11"
)

// A difference is a row of docs/rpc.md, "Where p11-kit's own server differs".
type difference struct {
	first, last wire.Protocol // in which it is
	// is says whether the replies differ in this way.
	is func(s step, ours, stock reply) bool
	// anywhere says that steps need not name it: is alone tells.
	anywhere bool
}

func (d difference) in(p wire.Protocol) bool { return d.first <= p && p <= d.last }

// stockDifferences are all differences that there may be. Each must show itself
// in every protocol that it is said to be in.
func stockDifferences() map[string]difference {
	closes := func(_ step, ours, stock reply) bool { return stock.closed && !ours.closed }
	answers := func(ours, stock p11.RV) func(step, reply, reply) bool {
		return func(_ step, a, b reply) bool { return !b.closed && a.rv == ours && b.rv == stock }
	}
	return map[string]difference{
		// What its clients take for CKR_BUFFER_TOO_SMALL.
		"empty results": {wire.V0, wire.V0, emptyResult, true},
		"no objects":    {wire.V1, wire.V2, emptyResult, false},
		// Objects, attributes, slots.
		"mechanisms":         {wire.V0, wire.V2, hiddenMechanisms, false},
		"mechanisms counted": {wire.V0, wire.V2, countedMechanisms, false},
		"templates unread":   {wire.V0, wire.V0, unreadTemplate, false},
		"no templates":       {wire.V0, wire.V0, answers(p11.CKR_OK, p11.CKR_DEVICE_ERROR), false},
		"short values":       {wire.V0, wire.V0, answers(p11.CKR_ATTRIBUTE_VALUE_INVALID, p11.CKR_DEVICE_ERROR), false},
		"rooms misread":      {wire.V1, wire.V1, misreadRooms, false},
		"parameters":         {wire.V1, wire.V2, answers(p11.CKR_MECHANISM_PARAM_INVALID, p11.CKR_DEVICE_ERROR), false},
		// Pointers.
		"NULL misread": {wire.V0, wire.V0, func(_ step, a, b reply) bool { return !b.closed && !same(a, b) }, false},
		"huge room":    {wire.V0, wire.V2, func(_ step, _, b reply) bool { return b.rv == p11.CKR_DEVICE_MEMORY }, false},
		// What p11-kit puts around every module.
		"string":            {wire.V0, wire.V2, answers(p11.CKR_OK, p11.CKR_ARGUMENTS_BAD), false},
		"sessions of slots": {wire.V0, wire.V2, answers(p11.CKR_SLOT_ID_INVALID, p11.CKR_OK), false},
		"aborts":            {wire.V0, wire.V2, closes, false},
		// Requests that are wrong.
		"closes":     {wire.V0, wire.V2, closes, false},
		"bytes left": {wire.V0, wire.V2, answers(p11.CKR_DEVICE_ERROR, p11.CKR_OK), false},
	}
}

// resultOf is the presence byte of `ay` or `au`, and the length behind it.
func resultOf(s step, r reply) (presence byte, length uint32, rest []byte, ok bool) {
	sig, _ := wire.Signatures(s.call)
	n := 8 + len(sig.Response) // call and signature
	if r.closed || r.rv != p11.CKR_OK || (sig.Response != "ay" && sig.Response != "au") || len(r.body) < n+5 {
		return 0, 0, nil, false
	}
	return r.body[n], binary.BigEndian.Uint32(r.body[n+1:]), r.body[n+5:], true
}

// emptyResult: no result, where the client only asked, comes as a length of 0
// without a result.
func emptyResult(s step, ours, stock reply) bool {
	a, n, _, ok := resultOf(s, ours)
	b, m, _, also := resultOf(s, stock)
	asked := len(s.args) > 0 && s.args[len(s.args)-1] == room(0)
	return ok && also && asked && a == 1 && n == 0 && b == 0 && m == 0
}

// hiddenMechanisms: the list has mechanisms that the clients do not pass.
func hiddenMechanisms(s step, ours, stock reply) bool {
	a, n, left, ok := resultOf(s, ours)
	b, m, right, also := resultOf(s, stock)
	if !ok || !also || n >= m {
		return false
	}
	if a == 0 || b == 0 {
		return true // only the number, of one or of both
	}
	for ; len(right) >= 8; right = right[8:] {
		if bytes.HasPrefix(left, right[:8]) {
			left = left[8:]
		}
	}
	return len(left) == 0
}

// countedMechanisms: a question for the length of CKA_ALLOWED_MECHANISMS, the
// first of the attributes, is answered with a count of elements that do not
// follow.
func countedMechanisms(_ step, ours, stock reply) bool {
	const at = 8 + len("aAu") + 4 + 4 + 1 + 4 // behind call, signature, number of attributes, type, validity, length
	if len(ours.body) != len(stock.body) || len(ours.body) < at+4 {
		return false
	}
	return binary.BigEndian.Uint32(ours.body[at:]) == 0 && binary.BigEndian.Uint32(stock.body[at:]) != 0 &&
		bytes.Equal(ours.body[:at], stock.body[:at]) && bytes.Equal(ours.body[at+4:], stock.body[at+4:])
}

// misreadRooms: the count of 0 behind a template without room is taken for the
// next attribute, so that the reply has a wrong one.
func misreadRooms(_ step, ours, stock reply) bool {
	return ours.rv == p11.CKR_OK && stock.rv == p11.CKR_OK && !stock.closed && !bytes.Equal(ours.body, stock.body)
}

// unreadTemplate: an attribute that the client cannot read the reply of.
func unreadTemplate(_ step, ours, stock reply) bool {
	return ours.rv == p11.CKR_ATTRIBUTE_TYPE_INVALID && stock.rv == p11.CKR_OK && !stock.closed
}
