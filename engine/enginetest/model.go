package enginetest

import (
	"slices"
	"strings"

	"p11fs/p11"
)

// A model is what the standard says that a session is after the calls so far. Lines
// are calls: the name of the function and what it is called with, for the door to know.
// Beside the session under test another one is open, read-write, which makes the keys.
type model struct {
	exists, rw bool
	login      string         // none, user or so
	ops        map[string]*op // by slot
	find       bool
	private    bool // there is the private session key
	temp       bool // there is the public one that goes away
}

// An op is an active operation.
type op struct {
	parts     int  // of the data that went in, each the same
	presented bool // the verification got its signature first
	private   bool // its key
	temp      bool // likewise
	gone      bool // that was destroyed: no more begins with it
	begun     bool // in a process of messages: one that is in parts
}

// A kind is one of the operations: its functions, and the slot that it takes.
type kind struct {
	name, slot string
	flag       p11.Flags
	init       string
	one        string
	update     string // empty where there are no parts
	final      string
	presented  bool
}

// kinds are all of them.
func kinds() []kind {
	of := func(name string, flag p11.Flags) kind {
		return kind{name: name, slot: name, flag: flag, init: "C_" + name + "Init", one: "C_" + name}
	}
	inParts := func(k kind) kind {
		k.update, k.final = k.one+"Update", k.one+"Final"
		return k
	}
	presented := inParts(of("VerifySignature", p11.CKF_VERIFY))
	presented.slot, presented.presented = "Verify", true
	return []kind{
		inParts(of("Encrypt", p11.CKF_ENCRYPT)), inParts(of("Decrypt", p11.CKF_DECRYPT)), inParts(of("Digest", p11.CKF_DIGEST)),
		inParts(of("Sign", p11.CKF_SIGN)), inParts(of("Verify", p11.CKF_VERIFY)), presented,
		of("SignRecover", p11.CKF_SIGN_RECOVER), of("VerifyRecover", p11.CKF_VERIFY_RECOVER),
	}
}

// A process is one of messages: its functions.
type process struct{ name, init, one, begin, next, final string }

func processes() (list []process) {
	for _, name := range []string{"Encrypt", "Decrypt", "Sign", "Verify"} {
		one := "C_" + name + "Message"
		list = append(list, process{"Message" + name, "C_Message" + name + "Init", one, one + "Begin", one + "Next", "C_Message" + name + "Final"})
	}
	return list
}

// A dual is a dual-function operation: what it drives.
type dual struct{ call, one, other string }

func duals() []dual {
	return []dual{
		{"C_DigestEncryptUpdate", "Digest", "Encrypt"}, {"C_DecryptDigestUpdate", "Decrypt", "Digest"},
		{"C_SignEncryptUpdate", "Sign", "Encrypt"}, {"C_DecryptVerifyUpdate", "Decrypt", "Verify"},
	}
}

func newModel() *model { return &model{login: none, ops: map[string]*op{}} }

const (
	none = "none"
	user = "user"
	so   = "so"
)

var ok = []p11.RV{p11.CKR_OK} //nolint:gochecknoglobals // never written

// call is what the standard has the call answer: one of these, the first of which the
// model goes on with.
func (m *model) call(line string) []p11.RV {
	name, arg, _ := strings.Cut(line, " ")
	switch name {
	case "begin": // another application
		*m = *newModel()
		return ok
	case "open-ro", "open-rw":
		*m = model{exists: true, rw: name == "open-rw", login: m.login, ops: map[string]*op{}, private: m.private, temp: m.temp}
		return ok
	case "make":
		m.private, m.temp = m.private || arg == "private", m.temp || arg == "temp"
		return ok
	case "destroy":
		m.private, m.temp = m.private && arg != "private", m.temp && arg != "temp"
		for _, o := range m.ops {
			o.gone = o.gone || arg == "private" && o.private || arg == "temp" && o.temp
		}
		return ok
	case "C_GetFunctionStatus", "C_CancelFunction":
		return []p11.RV{p11.CKR_FUNCTION_NOT_PARALLEL}
	case "C_InitToken":
		return []p11.RV{p11.CKR_SESSION_EXISTS}
	}
	if !m.exists {
		return []p11.RV{p11.CKR_SESSION_HANDLE_INVALID}
	}
	for _, answer := range []func(name, arg string) []p11.RV{m.session, m.object, m.dual, m.operation, m.messages} {
		if rvs := answer(name, arg); rvs != nil {
			return rvs
		}
	}
	panic("enginetest: no such call: " + line)
}

// session answers the functions of sessions and logins (PKCS#11 v3.2 §5.6, §5.5).
func (m *model) session(name, arg string) []p11.RV {
	switch name {
	case "C_CloseSession":
		m.exists, m.ops, m.find = false, map[string]*op{}, false
		return ok
	case "C_GetSessionInfo", "C_GetSessionValidationFlags", "C_GenerateRandom":
		return ok
	case "C_SeedRandom":
		return []p11.RV{p11.CKR_OK, p11.CKR_RANDOM_SEED_NOT_SUPPORTED}
	case "C_AsyncGetID":
		return []p11.RV{p11.CKR_OPERATION_NOT_INITIALIZED}
	case "C_AsyncComplete":
		return []p11.RV{p11.CKR_SESSION_ASYNC_NOT_SUPPORTED}
	case "C_GetOperationState":
		return m.saves()
	case "C_AsyncJoin", "C_SetOperationState": // of what is no state
		return []p11.RV{p11.CKR_SAVED_STATE_INVALID}
	case "C_Login", "C_LoginUser":
		return m.logIn(arg)
	case "C_Logout":
		if m.login == none {
			return []p11.RV{p11.CKR_USER_NOT_LOGGED_IN}
		}
		m.login, m.private = none, false
		for slot, o := range m.ops {
			if o.private {
				delete(m.ops, slot)
			}
		}
		return ok
	case "C_InitPIN":
		if m.login != so {
			return []p11.RV{p11.CKR_USER_NOT_LOGGED_IN}
		}
		return ok
	case "C_SetPIN": // of whom, and so with which PINs
		switch {
		case !m.rw:
			return []p11.RV{p11.CKR_SESSION_READ_ONLY}
		case (arg == so) != (m.login == so):
			return []p11.RV{p11.CKR_PIN_INCORRECT}
		}
		return ok
	case "C_SessionCancel":
		for _, k := range kinds() {
			if arg == "all" || arg == k.name {
				delete(m.ops, k.slot)
			}
		}
		for _, p := range processes() {
			if arg == "all" {
				delete(m.ops, p.name)
			}
		}
		m.find = m.find && arg != "all" && arg != "FindObjects"
		return ok
	}
	return nil
}

// saves answers C_GetOperationState: with recovery, there is nothing to save.
func (m *model) saves() []p11.RV {
	for _, k := range kinds() {
		if m.ops[k.slot] != nil && k.update != "" {
			return ok
		}
	}
	return []p11.RV{p11.CKR_OPERATION_NOT_INITIALIZED}
}

func (m *model) logIn(as string) []p11.RV {
	switch {
	case as == "other":
		return []p11.RV{p11.CKR_USER_TYPE_INVALID}
	case as == "context":
		return []p11.RV{p11.CKR_OPERATION_NOT_INITIALIZED} // no key here wants it
	case as == m.login:
		return []p11.RV{p11.CKR_USER_ALREADY_LOGGED_IN}
	case as == so && !m.rw && m.login == user:
		return []p11.RV{p11.CKR_USER_ANOTHER_ALREADY_LOGGED_IN, p11.CKR_SESSION_READ_ONLY_EXISTS}
	case m.login != none:
		return []p11.RV{p11.CKR_USER_ANOTHER_ALREADY_LOGGED_IN}
	case as == so && !m.rw:
		return []p11.RV{p11.CKR_SESSION_READ_ONLY_EXISTS}
	}
	m.login = as
	return ok
}

// object answers the functions of objects and keys (PKCS#11 v3.2 §5.7, §5.18). arg is
// where the object is, or is to be.
func (m *model) object(name, arg string) []p11.RV {
	switch name {
	case "C_CreateObject", "C_CopyObject", "C_GenerateKey", "C_GenerateKeyPair", "C_UnwrapKey", "C_DeriveKey":
		return m.makes(arg)
	case "C_DestroyObject", "C_SetAttributeValue":
		if arg == "token" && !m.rw {
			return []p11.RV{p11.CKR_SESSION_READ_ONLY}
		}
		return ok
	case "C_GetObjectSize", "C_GetAttributeValue", "C_WrapKey":
		if arg == "gone" {
			return []p11.RV{p11.CKR_OBJECT_HANDLE_INVALID}
		}
		return ok
	case "C_EncapsulateKey", "C_DecapsulateKey": // with a mechanism that does not
		return []p11.RV{p11.CKR_MECHANISM_INVALID}
	case "C_FindObjectsInit":
		if m.find {
			return []p11.RV{p11.CKR_OPERATION_ACTIVE}
		}
		m.find = true
		return ok
	case "C_FindObjects", "C_FindObjectsFinal":
		if !m.find {
			return []p11.RV{p11.CKR_OPERATION_NOT_INITIALIZED}
		}
		m.find = name != "C_FindObjectsFinal"
		return ok
	}
	return nil
}

// makes is the table of what may be made in which session (PKCS#11 v3.2 §5.6).
func (m *model) makes(where string) []p11.RV {
	var refused []p11.RV
	if strings.Contains(where, "private") && m.login != user {
		refused = append(refused, p11.CKR_USER_NOT_LOGGED_IN)
	}
	if strings.Contains(where, "token") && !m.rw {
		refused = append(refused, p11.CKR_SESSION_READ_ONLY)
	}
	if refused == nil {
		return ok
	}
	return refused
}

func (m *model) dual(name, _ string) []p11.RV {
	i := slices.IndexFunc(duals(), func(d dual) bool { return d.call == name })
	if i < 0 {
		return nil
	}
	a, b := m.ops[duals()[i].one], m.ops[duals()[i].other]
	if a == nil || b == nil || a.presented || b.presented {
		return []p11.RV{p11.CKR_OPERATION_NOT_INITIALIZED}
	}
	for _, slot := range []string{"Sign", "Verify", "Encrypt", "Decrypt"} {
		if (slot == duals()[i].one || slot == duals()[i].other) && m.lacksKey(slot) {
			return []p11.RV{p11.CKR_KEY_HANDLE_INVALID}
		}
	}
	a.parts += 2 // which is not the data that was signed
	b.parts += 2
	return ok
}

// lacksKey says whether the operation was to begin with a key that is gone, which ends it.
func (m *model) lacksKey(slot string) bool {
	o := m.ops[slot]
	if !o.gone || o.begun || o.parts > 0 && !strings.HasPrefix(slot, "Message") {
		return false
	}
	delete(m.ops, slot)
	return true
}

// operation answers the functions of the operations (PKCS#11 v3.2 §5.8 to §5.16).
func (m *model) operation(name, arg string) []p11.RV {
	inactive := []p11.RV{p11.CKR_OPERATION_NOT_INITIALIZED}
	if name == "C_DigestKey" {
		if m.ops["Digest"] == nil {
			return inactive
		}
		m.ops["Digest"].parts++
		return ok
	}
	for _, k := range kinds() {
		o := m.ops[k.slot]
		mine := o != nil && o.presented == k.presented
		switch {
		case name == k.init && arg == "null":
			delete(m.ops, k.slot)
			return ok
		case name == k.init && o != nil:
			return []p11.RV{p11.CKR_OPERATION_ACTIVE}
		case name == k.init && (arg == "private" && !m.private || arg == "temp" && !m.temp):
			return []p11.RV{p11.CKR_KEY_HANDLE_INVALID}
		case name == k.init:
			m.ops[k.slot] = &op{presented: k.presented, private: arg == "private", temp: arg == "temp"}
			return ok
		case name != k.one && name != k.update && name != k.final:
			continue
		case !mine:
			return inactive
		case m.lacksKey(k.slot):
			return []p11.RV{p11.CKR_KEY_HANDLE_INVALID}
		case name == k.update:
			o.parts++
			return ok
		}
		delete(m.ops, k.slot)
		switch {
		case name == k.one && o.parts > 0:
			return []p11.RV{p11.CKR_OPERATION_ACTIVE}
		case name == k.final && k.slot == "Verify" && o.parts != 1: // it is a signature of one part
			return []p11.RV{p11.CKR_SIGNATURE_INVALID}
		}
		return ok
	}
	return nil
}

// messages answers the functions of messages (PKCS#11 v3.2 §5.9, §5.11, §5.14, §5.16). The
// argument last is that of the end of a message.
func (m *model) messages(name, arg string) []p11.RV {
	for _, p := range processes() {
		o := m.ops[p.name]
		switch name {
		case p.init:
			switch {
			case arg == "null":
				delete(m.ops, p.name)
			case o != nil:
				return []p11.RV{p11.CKR_OPERATION_ACTIVE}
			case arg == "private" && !m.private || arg == "temp" && !m.temp:
				return []p11.RV{p11.CKR_KEY_HANDLE_INVALID}
			default:
				m.ops[p.name] = &op{private: arg == "private", temp: arg == "temp"}
			}
			return ok
		case p.one, p.begin, p.next, p.final:
		default:
			continue
		}
		switch {
		case o == nil || name == p.next && !o.begun:
			return []p11.RV{p11.CKR_OPERATION_NOT_INITIALIZED}
		case name == p.final:
			delete(m.ops, p.name)
		case name != p.next && o.begun:
			return []p11.RV{p11.CKR_OPERATION_ACTIVE}
		case m.lacksKey(p.name):
			return []p11.RV{p11.CKR_KEY_HANDLE_INVALID}
		case name == p.begin:
			o.begun, o.parts = true, 0
		case name == p.next:
			o.parts++
			if o.begun = arg != "last"; !o.begun && o.parts != 1 { // the message has one part
				switch p.name {
				case "MessageVerify":
					return []p11.RV{p11.CKR_SIGNATURE_INVALID}
				case "MessageDecrypt":
					return []p11.RV{p11.CKR_AEAD_DECRYPT_FAILED}
				}
			}
		}
		return ok
	}
	return nil
}
