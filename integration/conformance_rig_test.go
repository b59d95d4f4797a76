package integration

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"p11fs/p11"
)

// A rig is what a rule runs on: a new token, and two applications without
// sessions.
type rig struct {
	t      *testing.T
	so     string // the security officer's PIN; a rule that sets it notes it here
	rule   tokenRule
	errnos map[string]string
	dev    deviation
	met    map[string]bool
	a, b   *application
}

// reset makes the token new, and then both applications: what they were told of
// the old token they know no more.
func (r *rig) reset() {
	r.t.Helper()
	again := func() {
		for _, a := range []*application{r.a, r.b} {
			a.call("again").must()
		}
	}
	again()
	r.a.call("inittoken", hexOf(r.so), hexOf("conformance")).must()
	s := r.a.open()
	s.login(p11.CKU_SO, r.so).must()
	r.a.call("initpin", s.id, hexOf(userPIN)).must()
	again()
}

// is compares what a step gave with what it should, or with the door's
// deviation.
func (r *rig) is(step, got, want string) {
	r.t.Helper()
	if other, ok := r.dev.are[step]; ok {
		if r.met[step] = true; other == want {
			r.t.Errorf("%s: the deviation is none", step)
		}
		want = other
	}
	if got != want {
		r.t.Errorf("%s (PKCS#11 v3.1 %s): %s, want %s", step, r.rule.cites, got, want)
	}
}

// rsaBits is how long the RSA keys of the rules are: as short as the token makes them, so
// that they take no time, and no shorter than all tokens do.
func (r *rig) rsaBits() int {
	r.t.Helper()
	return max(1024, r.a.call("sizes", mech(p11.CKM_RSA_PKCS_KEY_PAIR_GEN)).number(0))
}

// wraps is the mechanism with which a key of AES wraps others.
func (r *rig) wraps() string {
	if r.rule.wraps != "" {
		return r.rule.wraps
	}
	return mech(p11.CKM_AES_ECB)
}

// An application is one of PKCS#11's.
type application struct {
	r *rig
	o *orders
}

// An answer is what a call gave.
type answer struct {
	r      *rig
	call   string
	rv     p11.RV
	values []string
	// kernel is the answer where the kernel has it without p11fs: ENOENT of a
	// file that is not there stands for each CK_RV that docs/tree.md calls so,
	// and the mode 0440 for CKR_ATTRIBUTE_READ_ONLY.
	kernel string
}

func (a answer) String() string {
	if a.kernel != "" {
		return a.kernel
	}
	return a.rv.String()
}

// call makes one call.
func (a *application) call(words ...string) answer {
	a.r.t.Helper()
	line := strings.Join(words, " ")
	said := a.o.begin(line)()
	fields := strings.Fields(said)
	var rv uint64
	var err error
	if len(fields) > 0 {
		rv, err = strconv.ParseUint(fields[0], 0, 64)
	}
	if said == "ENOENT" || said == "0440" {
		return answer{r: a.r, call: line, kernel: said}
	}
	if err != nil || len(fields) == 0 {
		a.r.t.Fatalf("%s: %s", line, said)
	}
	got := answer{r: a.r, call: line, rv: p11.RV(rv), values: fields[1:]}
	if rv != 0 && len(got.values) > 0 && strings.HasPrefix(got.values[0], "E") {
		want := a.r.errnos[got.rv.String()]
		if words[0] == "get" && got.rv == p11.CKR_ATTRIBUTE_TYPE_INVALID {
			want = "ENODATA" // as attr/NAME says there
		}
		if want != got.values[0] {
			a.r.t.Errorf("%s: the errno of %s is %s, and %s in docs/tree.md", line, got.rv, got.values[0], want)
		}
		got.values = got.values[1:]
	}
	return got
}

// is says what a step is to give.
func (a answer) is(step string, want p11.RV) answer {
	a.r.t.Helper()
	said := a.String()
	if a.kernel == "ENOENT" && a.r.errnos[want.String()] == "ENOENT" || a.kernel == "0440" && want == p11.CKR_ATTRIBUTE_READ_ONLY {
		said = want.String()
	}
	a.r.is(step, said, want.String())
	return a
}

// number is the i-th value, a number.
func (a answer) number(i int) int {
	a.r.t.Helper()
	a.must()
	if i >= len(a.values) {
		a.r.t.Fatalf("%s: gives %q", a.call, a.values)
	}
	n, err := strconv.ParseUint(a.values[i], 16, 31)
	if err != nil {
		a.r.t.Fatal(err)
	}
	return int(n)
}

// must is for a step that is no rule's matter.
func (a answer) must() answer {
	a.r.t.Helper()
	if a.kernel != "" || a.rv != p11.CKR_OK {
		a.r.t.Fatalf("%s: %s", a.call, a)
	}
	return a
}

// fails is for a step that must fail in one of these ways.
func (a answer) fails(ways ...p11.RV) {
	a.r.t.Helper()
	if a.kernel != "" || !slices.Contains(ways, a.rv) {
		a.r.t.Fatalf("%s: %s, want one of %s", a.call, a.rv, ways)
	}
}

// one is the only value.
func (a answer) one() string {
	a.r.t.Helper()
	if len(a.must().values) != 1 {
		a.r.t.Fatalf("%s: gives %q", a.call, a.values)
	}
	return a.values[0]
}

// A handle is a session of an application.
type handle struct {
	a  *application
	id string
}

const readWrite = "6" // CKF_SERIAL_SESSION | CKF_RW_SESSION
const readOnly = "4"

// open is C_OpenSession for reading and writing.
func (a *application) open() *handle {
	a.r.t.Helper()
	return &handle{a, a.call("open", readWrite).one()}
}

func (a *application) openReadOnly() *handle {
	a.r.t.Helper()
	return &handle{a, a.call("open", readOnly).one()}
}

// opened is open with the user logged in.
func (a *application) opened() *handle {
	a.r.t.Helper()
	s := a.open()
	s.login(p11.CKU_USER, userPIN).must()
	return s
}

func (s *handle) login(user p11.UserType, pin string) answer {
	s.a.r.t.Helper()
	return s.a.call("login", s.id, fmt.Sprintf("%x", uint64(user)), hexOf(pin))
}

func (s *handle) logout() answer {
	s.a.r.t.Helper()
	return s.a.call("logout", s.id)
}

func (s *handle) close() answer {
	s.a.r.t.Helper()
	return s.a.call("close", s.id)
}

// isState says in which state the session is to be.
func (s *handle) isState(step string, want p11.State) {
	s.a.r.t.Helper()
	got := s.a.call("state", s.id)
	if got.kernel != "" || got.rv != p11.CKR_OK {
		s.a.r.is(step, got.String(), want.String())
		return
	}
	n, err := strconv.ParseUint(got.values[0], 16, 64)
	if err != nil {
		s.a.r.t.Fatal(err)
	}
	s.a.r.is(step, p11.State(n).String(), want.String())
}

// call makes a call in the session.
func (s *handle) call(name string, words ...string) answer {
	s.a.r.t.Helper()
	return s.a.call(append([]string{name, s.id}, words...)...)
}

// generate makes an AES key of 16 bytes, which everybody may see and use until
// the session ends, unless the template says otherwise.
func (s *handle) generate(template string) answer {
	s.a.r.t.Helper()
	return s.call("generate", mech(p11.CKM_AES_KEY_GEN), aes(template))
}

// key is generate as no rule's matter.
func (s *handle) key(template string) string {
	s.a.r.t.Helper()
	return s.generate(template).one()
}

// mac makes a generic secret of 32 bytes in the same way.
func (s *handle) mac(template string) string {
	s.a.r.t.Helper()
	return s.call("generate", mech(p11.CKM_GENERIC_SECRET_KEY_GEN), with("token=false private=false sensitive=false extractable=true value-len=32 sign=true verify=true", template)).one()
}

func aes(template string) string {
	return with("token=false private=false sensitive=false extractable=true value-len=16 encrypt=true decrypt=true", template)
}

// isFound compares how many objects a template finds.
func (s *handle) isFound(step, template string, want int) {
	s.a.r.t.Helper()
	got := s.call("find", words(template))
	if got.kernel != "" || got.rv != p11.CKR_OK {
		s.a.r.is(step, got.String(), strconv.Itoa(want))
		return
	}
	s.a.r.is(step, strconv.Itoa(len(got.values)), strconv.Itoa(want))
}

// get is an attribute of an object.
func (s *handle) get(object string, attribute p11.AttributeType) answer {
	s.a.r.t.Helper()
	return s.call("get", object, fmt.Sprintf("%x", uint64(attribute)))
}

// isAttributes compares attributes of an object with a template, in words.
func (s *handle) isAttributes(object, want string) {
	s.a.r.t.Helper()
	for _, a := range template(want) {
		got := s.get(object, a.Type)
		said := got.String()
		if got.kernel == "" && got.rv == p11.CKR_OK && len(got.values) == 1 {
			b, err := hex.DecodeString(strings.TrimPrefix(got.values[0], "-"))
			if err != nil {
				s.a.r.t.Fatal(err)
			}
			said = p11.Attributes{{Type: a.Type, Value: b}}.FormatValue(a.Type)
		}
		s.a.r.is(a.Type.Short(), said, p11.Attributes{a}.FormatValue(a.Type))
	}
}

func (s *handle) set(object, template string) answer {
	s.a.r.t.Helper()
	return s.call("set", object, words(template))
}

// isVisible says whether a handle, or name, of an object names one.
func (s *handle) isVisible(step, object string, want p11.RV) {
	s.a.r.t.Helper()
	s.get(object, p11.CKA_CLASS).is(step, want)
}

func hexOf(text string) string {
	if text == "" {
		return "-"
	}
	return hex.EncodeToString([]byte(text))
}

// template reads the text of a template, of which one that does not parse is a
// mistake in a rule.
func template(text string) p11.Attributes {
	t, err := p11.ParseTemplate(text)
	if err != nil {
		panic(err)
	}
	return t
}

// words is a template as the applications take it.
func words(text string) string { return encode(template(text)) }

func encode(t p11.Attributes) string {
	var list []string
	for _, a := range t {
		list = append(list, fmt.Sprintf("%x:%x", uint64(a.Type), a.Value))
	}
	if list == nil {
		return "-"
	}
	return strings.Join(list, ",")
}

// with is a template with what another one says.
func with(text, more string) string { return encode(template(text).Merge(template(more))) }

// without is a template without some of its attributes.
func without(text string, types ...p11.AttributeType) string {
	t := template(text)
	for _, one := range types {
		t.Delete(one)
	}
	return encode(t)
}

// mech is a mechanism as the applications take it.
func mech(m p11.MechanismType, param ...byte) string {
	word := fmt.Sprintf("%x", uint64(m))
	if len(param) > 0 {
		word += ":" + hex.EncodeToString(param)
	}
	return word
}
