package integration

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"p11fs/p11"
	"p11fs/p11/pkix"
)

// filesApplication is one application of the mount for the conformance suite. It
// answers to the lines of testdata/conformance.py by reading and writing files:
// a session is a directory of sessions, an object is its name, and an operation
// between its first call and its last is an open file. It runs as
// `p11io conformance TOKEN`, in a POSIX session of its own.
//
// An answer has the CK_RV, which is what the file error says, and for a failure
// the name of the errno; ENOENT alone is a name that is not there, and
// 0440 a file whose mode lets nobody but root try to write it.
type filesApplication struct {
	token   string // the token's folder in the mount
	running map[string]*os.File
}

// errNoFile says that no file is for this call.
var errNoFile = errors.New("no file does this")

func runFilesApplication(token string, in io.Reader, out io.Writer) error {
	a := &filesApplication{token: token, running: map[string]*os.File{}}
	calls := bufio.NewScanner(in)
	calls.Buffer(nil, 1<<20)
	for calls.Scan() {
		words := strings.Fields(calls.Text())
		if len(words) == 0 {
			return errors.New("an empty line")
		}
		values, err := a.call(words[0], words[1:])
		fmt.Fprintln(out, strings.ReplaceAll(a.answer(values, err), "\n", "; "))
	}
	return calls.Err()
}

// answer is a line of answer. The file error that tells the CK_RV is that of the
// directory in which the call failed, or the token's when it is not there.
func (a *filesApplication) answer(values string, err error) string {
	var failed *fs.PathError
	var errno syscall.Errno
	switch {
	case err == nil:
		return "0x0 " + values
	case !errors.As(err, &failed) || !errors.As(err, &errno):
		return err.Error()
	}
	if errno == syscall.ENOENT && (failed.Op == "open" || failed.Op == "rmdir") {
		// Of a name that is not there the kernel learns no more, and error
		// keeps what it said.
		return "ENOENT"
	}
	if st, serr := os.Stat(failed.Path); errno == syscall.EACCES && serr == nil && st.Mode().Perm()&0o222 == 0 {
		return "0440"
	}
	words := strings.Split(strings.TrimPrefix(failed.Path, a.token+"/"), "/")
	said, rerr := os.ReadFile(filepath.Join(a.token, "error"))
	if words[0] == "sessions" && len(words) > 2 {
		if own, err := os.ReadFile(a.in(words[1], "error")); err == nil {
			said = own
		}
	}
	number, _, _ := strings.Cut(string(said), " ")
	rv, perr := strconv.ParseUint(number, 0, 64)
	if perr != nil || rerr != nil {
		return fmt.Sprintf("error says %q (%v) after %v", said, rerr, err)
	}
	return fmt.Sprintf("%#x %s", rv, errnoName(errno))
}

func (a *filesApplication) in(session string, elem ...string) string {
	return filepath.Join(append([]string{a.token, "sessions", session}, elem...)...)
}

// exchange writes a file and reads the answer through the same open.
func (a *filesApplication) exchange(path string, data []byte) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return a.finish(f, data)
}

func (a *filesApplication) finish(f *os.File, data []byte) ([]byte, error) {
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		return nil, err
	}
	return io.ReadAll(f)
}

// write is one command.
func (a *filesApplication) write(path, command string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(command + "\n")
	return errors.Join(err, f.Close())
}

// names writes a line into a file of a session, and reads the names of objects.
func (a *filesApplication) names(s, file, line string) ([]string, error) {
	names, err := a.exchange(a.in(s, file), []byte(line+"\n"))
	return strings.Fields(string(names)), err
}

func (a *filesApplication) call(name string, args []string) (string, error) {
	arg := func(i int) string {
		if i < len(args) && args[i] != "-" {
			return args[i]
		}
		return ""
	}
	raw := func(i int) []byte {
		b, err := hex.DecodeString(arg(i))
		if err != nil {
			panic(err)
		}
		return b
	}
	s := arg(0)
	switch name {
	case "open":
		if arg(0) != "6" {
			return "", errNoFile
		}
		b, err := os.ReadFile(filepath.Join(a.token, "sessions", "new"))
		return strings.TrimSpace(string(b)), err
	case "close":
		return "", removeDirectory(a.in(s))
	case "closeall", "again":
		for key, f := range a.running {
			_ = f.Close()
			delete(a.running, key)
		}
		return "", a.write(filepath.Join(a.token, "ctl"), "close-all")
	case "state":
		return a.state(s)
	case "token":
		return a.tokenFlags()
	case "limits":
		return a.limits()
	case "sizes":
		return a.sizes(arg(0))
	case "inittoken":
		return "", a.write(filepath.Join(a.token, "ctl"), fmt.Sprintf("init %s %s", raw(0), raw(1)))
	case "login":
		who := map[string]string{"0": "so:", "1": "user:", "2": "context-specific:"}[arg(1)]
		if who == "" {
			return "", errNoFile
		}
		return "", a.write(a.in(s, "login"), who+string(raw(2)))
	case "logout":
		return "", a.write(a.in(s, "logout"), "")
	case "setpin":
		return "", a.write(filepath.Join(a.token, "pin"), fmt.Sprintf("%s %s", raw(1), raw(2)))
	case "initpin":
		return "", a.write(filepath.Join(a.token, "ctl"), fmt.Sprintf("init-pin %s", raw(1)))
	case "create":
		return a.create(s, attributesOf(arg(1)))
	case "destroy":
		return "", a.destroy(s, arg(1))
	case "get":
		return a.get(s, arg(1), arg(2))
	case "set":
		return "", a.set(s, arg(1), attributesOf(arg(2)))
	case "find":
		names, err := a.names(s, "find", templateText(attributesOf(arg(1))))
		return strings.Join(names, " "), err
	case "generate":
		names, err := a.names(s, "generate", mechanismText(arg(1))+" "+templateText(attributesOf(arg(2))))
		return strings.Join(names, " "), err
	case "pair":
		names, err := a.names(s, "generate", mechanismText(arg(1))+" "+templateText(attributesOf(arg(2)).Merge(attributesOf(arg(3)))))
		slices.Reverse(names) // the call gives the public key first
		return strings.Join(names, " "), err
	case "one":
		s = arg(1)
		out, err := a.exchange(a.operation(arg(0), s, arg(2), arg(3)), raw(4))
		return hexWord(out), err
	case "verify":
		out, err := a.exchange(a.operation("verify", s, arg(1), arg(2)), append(raw(4), raw(3)...))
		if err == nil && string(out) != "ok\n" {
			return "", fmt.Errorf("verify reads %q", out)
		}
		return "", err
	case "begin":
		f, err := os.OpenFile(a.operation(arg(0), arg(1), arg(2), arg(3)), os.O_RDWR, 0)
		if err == nil {
			a.running[arg(0)+arg(1)] = f
		}
		return "", err
	case "update", "end":
		return a.goOn(name, arg(0)+arg(1), raw(2))
	case "wrap":
		out, err := a.exchange(a.operation("wrap", s, arg(1), arg(2)), []byte(arg(3)+"\n"))
		return hexWord(out), err
	case "unwrap":
		path := a.operation("unwrap", s, arg(1), arg(2)) + "," + templateText(attributesOf(arg(4)))
		out, err := a.exchange(path, raw(3))
		return strings.TrimSpace(string(out)), err
	case "encapsulate":
		t := attributesOf(arg(3))
		out, err := a.exchange(a.operation("encapsulate", s, arg(1), arg(2)), []byte(templateText(t)+"\n"))
		if err != nil {
			return "", err
		}
		made, err := a.exchange(a.in(s, "find"), []byte(templateText(p11.Attributes{{Type: p11.CKA_LABEL, Value: []byte(t.Label())}})+"\n"))
		return hexWord(out) + " " + strings.TrimSpace(string(made)), err
	case "decapsulate":
		path := a.operation("decapsulate", s, arg(1), arg(2)) + "," + templateText(attributesOf(arg(4)))
		out, err := a.exchange(path, raw(3))
		return strings.TrimSpace(string(out)), err
	case "derive":
		path := a.operation("derive", s, arg(1), mech(p11.CKM_ECDH1_DERIVE)) + "," + templateText(attributesOf(arg(3)))
		out, err := a.exchange(path, raw(2))
		return strings.TrimSpace(string(out)), err
	case "deriveby":
		path := a.operation("derive", s, arg(1), arg(2)) + "," + templateText(attributesOf(arg(3)))
		out, err := a.exchange(path, []byte("\n"))
		return strings.TrimSpace(string(out)), err
	}
	return "", errNoFile
}

// set changes the one attribute of t.
func (a *filesApplication) set(session, object string, t p11.Attributes) error {
	if len(t) != 1 {
		return errNoFile
	}
	text := t.FormatValue(t[0].Type)
	if t.Validate() != nil {
		text = "0x" + hex.EncodeToString(t[0].Value)
	}
	return a.write(a.in(session, "objects", object, "attr", t[0].Type.Short()), text)
}

// goOn gives data to an operation that runs, or ends it and returns its result.
func (a *filesApplication) goOn(call, key string, data []byte) (string, error) {
	f := a.running[key]
	if f == nil {
		return "", errNoFile
	}
	if call == "update" {
		_, err := f.Write(data)
		return "-", err
	}
	delete(a.running, key)
	out, err := io.ReadAll(f)
	return hexWord(out), errors.Join(err, f.Close())
}

// operation is the data file of a key, or of the digest.
func (a *filesApplication) operation(name, session, object, mechanism string) string {
	if name == "digest" {
		return a.in(session, "digest", mechanismText(mechanism))
	}
	return a.in(session, "objects", object, name+":"+mechanismText(mechanism))
}

func (a *filesApplication) state(s string) (string, error) {
	b, err := os.ReadFile(a.in(s, "info"))
	if err != nil {
		return "", err
	}
	states := map[string]p11.State{
		"ro-public": p11.CKS_RO_PUBLIC_SESSION, "ro-user": p11.CKS_RO_USER_FUNCTIONS,
		"rw-public": p11.CKS_RW_PUBLIC_SESSION, "rw-user": p11.CKS_RW_USER_FUNCTIONS, "rw-so": p11.CKS_RW_SO_FUNCTIONS,
	}
	var state p11.State
	var flags p11.Flags
	for _, line := range lines(string(b)) {
		key, value, _ := strings.Cut(line, ": ")
		switch key {
		case "state":
			state = states[value]
		case "flags":
			for _, word := range strings.Split(value, ",") {
				flags |= map[string]p11.Flags{"rw": p11.CKF_RW_SESSION, "serial": p11.CKF_SERIAL_SESSION}[word]
			}
		}
	}
	return fmt.Sprintf("%x %x", uint64(state), uint64(flags)), nil
}

// tokenFlags is what info, slots and pin say of the token, as the flags of
// C_GetTokenInfo, and its sessions.
func (a *filesApplication) tokenFlags() (string, error) {
	pin, err := os.ReadFile(filepath.Join(a.token, "pin"))
	if err != nil {
		return "", err
	}
	info, err := os.ReadFile(filepath.Join(a.token, "info"))
	if err != nil {
		return "", err
	}
	var flags p11.Flags
	for _, line := range lines(string(pin)) {
		role, rest, _ := strings.Cut(line, ": ")
		by := map[string][3]p11.Flags{
			"user": {p11.CKF_USER_PIN_COUNT_LOW, p11.CKF_USER_PIN_FINAL_TRY, p11.CKF_USER_PIN_LOCKED},
			"so":   {p11.CKF_SO_PIN_COUNT_LOW, p11.CKF_SO_PIN_FINAL_TRY, p11.CKF_SO_PIN_LOCKED},
		}[role]
		switch {
		case strings.Contains(rest, "tries=0"):
			flags |= by[2]
		case strings.Contains(rest, "tries=1"):
			flags |= by[0] | by[1]
		case strings.Contains(rest, "tries=some"):
			flags |= by[0]
		}
		if role == "user" && !strings.Contains(rest, "pin=unset") {
			flags |= p11.CKF_USER_PIN_INITIALIZED
		}
	}
	if strings.Contains(string(info), "token-initialized") {
		flags |= p11.CKF_TOKEN_INITIALIZED
	}
	// How many sessions there are, only the daemon as a whole says.
	status, err := os.ReadFile(filepath.Join(a.token, "..", "status"))
	var sessions uint64
	for _, line := range lines(string(status)) {
		if n, ok := strings.CutPrefix(line, "sessions "); ok && err == nil {
			sessions, err = strconv.ParseUint(n, 10, 64)
		}
	}
	return fmt.Sprintf("%x %x", uint64(flags), sessions), err
}

// limits are how many sessions, and read-write ones, there may be, and how long a PIN may.
func (a *filesApplication) limits() (string, error) {
	info, err := os.ReadFile(filepath.Join(a.token, "info"))
	if err != nil {
		return "", err
	}
	var sessions, least, most uint64
	for _, line := range lines(string(info)) {
		switch name, value, _ := strings.Cut(line, ": "); {
		case name == "pin-length":
			_, err = fmt.Sscanf(value, "%d-%d", &least, &most)
		case name == "max-sessions" && value != "unlimited":
			sessions, err = strconv.ParseUint(value, 10, 64)
		}
		if err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%x %[1]x %x", sessions, most), nil
}

// sizes are those of the shortest and the longest key of a mechanism.
func (a *filesApplication) sizes(mechanism string) (string, error) {
	n, err := strconv.ParseUint(mechanism, 16, 64)
	if err != nil {
		return "", err
	}
	list, err := os.ReadFile(filepath.Join(a.token, "mechanisms"))
	if err != nil {
		return "", err
	}
	for _, line := range lines(string(list)) {
		var least, most uint64
		if rest, ok := strings.CutPrefix(line, p11.MechanismType(n).Short()+" "); ok {
			_, err := fmt.Sscan(rest, &least, &most)
			return fmt.Sprintf("%x %x", least, most), err
		}
	}
	return "", errNoFile
}

// create is C_CreateObject as far as a file does it: a private data object of
// the token, a public or private key, a certificate.
func (a *filesApplication) create(s string, t p11.Attributes) (string, error) {
	class, _ := t.Class()
	value, _ := t.Get(p11.CKA_VALUE)
	var der []byte
	kind := "der"
	switch class {
	case p11.CKO_DATA:
		if !t.Bool(p11.CKA_TOKEN) || !t.Bool(p11.CKA_PRIVATE) || len(t) != 5 {
			return "", errNoFile
		}
		err := os.WriteFile(a.in(s, "data", t.Label()), value, 0o600)
		return t.Label() + ".dat", err
	case p11.CKO_PUBLIC_KEY:
		var err error
		if der, err = pkix.PublicPEM(t); err != nil {
			return "", err
		}
		kind = "pem"
	case p11.CKO_PRIVATE_KEY:
		whole := t.Clone()
		err := pkix.Complete(&whole)
		if err == nil {
			der, err = pkix.EncodePrivateKey(whole)
		}
		if err != nil {
			return "", err
		}
	case p11.CKO_CERTIFICATE:
		der, kind = value, "certificate"
	default:
		return "", errNoFile
	}
	rest := t.Clone()
	for _, from := range []p11.AttributeType{
		p11.CKA_CLASS, p11.CKA_KEY_TYPE, p11.CKA_CERTIFICATE_TYPE, p11.CKA_MODULUS, p11.CKA_PUBLIC_EXPONENT,
		p11.CKA_PRIVATE_EXPONENT, p11.CKA_PRIME_1, p11.CKA_PRIME_2, p11.CKA_EXPONENT_1, p11.CKA_EXPONENT_2, p11.CKA_COEFFICIENT,
		p11.CKA_EC_PARAMS, p11.CKA_EC_POINT, p11.CKA_PRIME, p11.CKA_SUBPRIME, p11.CKA_BASE, p11.CKA_VALUE, p11.CKA_SUBJECT,
	} {
		rest.Delete(from)
	}
	made, err := a.exchange(a.in(s, "import:"+kind+","+templateText(rest)), der)
	// The first line is the object's; it may be there already.
	first, _, _ := strings.Cut(string(made), "\n")
	return strings.TrimPrefix(first, "# already there as "), err
}

// destroy removes an object: one of the token's from the token's directory.
func (a *filesApplication) destroy(s, object string) error {
	token, err := os.ReadFile(a.in(s, "objects", object, "attr", "token"))
	if err != nil {
		return err
	}
	if string(token) == "true\n" {
		return removeDirectory(filepath.Join(a.token, "objects", object))
	}
	return removeDirectory(a.in(s, "objects", object))
}

func (a *filesApplication) get(s, object, attribute string) (string, error) {
	n, err := strconv.ParseUint(attribute, 16, 64)
	if err != nil {
		return "", err
	}
	t := p11.AttributeType(n)
	dir := a.in(s, "objects", object)
	b, err := os.ReadFile(filepath.Join(dir, "attr", t.Short()))
	if err != nil && t == p11.CKA_VALUE {
		// What may be seen of it is in a file of its own.
		if value, verr := os.ReadFile(filepath.Join(dir, "value")); verr == nil {
			return hexWord(value), nil
		}
		_, err = os.ReadFile(filepath.Join(dir, "attr", t.Short()))
	}
	if err != nil {
		return "", err
	}
	value, err := p11.ParseValue(t, strings.TrimSuffix(string(b), "\n"))
	return hexWord(value), err
}

func removeDirectory(path string) error {
	if err := syscall.Rmdir(path); err != nil {
		return &fs.PathError{Op: "rmdir", Path: path, Err: err}
	}
	return nil
}

func hexWord(b []byte) string {
	if len(b) == 0 {
		return "-"
	}
	return hex.EncodeToString(b)
}

// attributesOf reads TYPE:VALUE,TYPE:VALUE.
func attributesOf(words string) p11.Attributes {
	var t p11.Attributes
	for _, word := range strings.FieldsFunc(words, func(r rune) bool { return r == ',' }) {
		number, value, _ := strings.Cut(word, ":")
		n, err := strconv.ParseUint(number, 16, 64)
		if err != nil {
			panic(err)
		}
		b, err := hex.DecodeString(value)
		if err != nil {
			panic(err)
		}
		t = append(t, p11.Attribute{Type: p11.AttributeType(n), Value: b})
	}
	return t
}

// templateText is a template as it is written to a file, malformed values too.
func templateText(t p11.Attributes) string {
	var list []string
	for _, a := range t {
		one := p11.Attributes{a}
		if one.Validate() == nil && !one.Secret(a.Type) {
			list = append(list, strings.ReplaceAll(one.Text(), "/", `\x2f`))
		} else {
			list = append(list, a.Type.Short()+"=0x"+hex.EncodeToString(a.Value))
		}
	}
	return strings.Join(list, ",")
}

// mechanismText is TYPE:PARAMETER, or TYPE=FIELDS=TEXT, as it is written in the name of
// a file.
func mechanismText(word string) string {
	if struck := strings.SplitN(word, "=", 3); len(struck) == 3 {
		return struck[2]
	}
	number, param, with := strings.Cut(word, ":")
	n, err := strconv.ParseUint(number, 16, 64)
	if err != nil {
		panic(err)
	}
	text := p11.MechanismType(n).Short()
	if with {
		text += ",param=0x" + param
	}
	return text
}
