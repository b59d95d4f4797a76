package fs

import (
	"slices"
	"strings"
	"syscall"
	"testing"

	"p11fs/tokens/tokentest/hooks"
)

// badInput is one thing that must be refused: do says what is done, and rv what
// the file error says of it.
type badInput struct {
	path string
	data string
	want syscall.Errno
	rv   string // "" when nothing is said: the kernel, or a plain ENODATA
	do   action // print if nil
}

// action does something to a path, and returns the first errno.
type action func(p person, path, data string) syscall.Errno

func print2(p person, path, data string) syscall.Errno { return p.print(data, path) }

// rw writes and reads on one descriptor.
func rw(p person, path, data string) syscall.Errno {
	f, errno := p.open(path, syscall.O_RDWR)
	if errno != 0 {
		return errno
	}
	defer f.release()
	if errno := f.write(data); errno != 0 {
		return errno
	}
	_, errno = f.all()
	return errno
}

func reading(p person, path, _ string) syscall.Errno { _, errno := p.cat(path); return errno }

func cutting(p person, path, _ string) syscall.Errno { return p.truncate(path, 5) }

func makingDir(p person, path, _ string) syscall.Errno { return p.mkdir(path) }

func removingDir(p person, path, _ string) syscall.Errno { return p.rmdir(path) }

func unlinking(p person, path, _ string) syscall.Errno { return p.unlink(path) }

func renaming(p person, path, to string) syscall.Errno { return p.rename(path, to) }

// seeking writes away from the start.
func seeking(p person, path, data string) syscall.Errno {
	f, errno := p.open(path, syscall.O_WRONLY)
	if errno != 0 {
		return errno
	}
	defer f.close()
	_, errno = f.writeAt(data, 9)
	return errno
}

// twice writes two commands to one open.
func twice(p person, path, data string) syscall.Errno {
	f, errno := p.open(path, syscall.O_WRONLY)
	if errno != 0 {
		return errno
	}
	defer f.close()
	if errno := f.write(data); errno != 0 {
		return errno
	}
	return f.write(data)
}

func badInputs() []badInput {
	const (
		einval, eperm, eacces, ebusy    = syscall.EINVAL, syscall.EPERM, syscall.EACCES, syscall.EBUSY
		efbig, enodata, enoent, ebadmsg = syscall.EFBIG, syscall.ENODATA, syscall.ENOENT, syscall.EBADMSG
		enotsup, rejected               = syscall.EOPNOTSUPP, syscall.EKEYREJECTED
	)
	long := strings.Repeat("x", maxCommand+1)
	binary := "\x00\x01\x02\xff\xfe\n\x1b[0m"
	const web, pub, disk, tls = "tok/objects/web.key/", "tok/objects/web.pub/", "tok/objects/disk.sec/", "tok/objects/tls.key/"
	return []badInput{
		{"tok/login", "\n", einval, "CKR_ARGUMENTS_BAD", nil},
		{"tok/login", "so:", einval, "CKR_PIN_LEN_RANGE", nil},
		{"tok/login", userPIN, ebusy, "CKR_USER_ALREADY_LOGGED_IN", nil},
		{"tok/login", "so:" + soPIN, ebusy, "CKR_USER_ANOTHER_ALREADY_LOGGED_IN", nil},
		{"tok/login", strings.Repeat("1", maxPINCommand+1), efbig, "CKR_DATA_LEN_RANGE", nil},
		{"tok/login", "", einval, "CKR_ARGUMENTS_BAD", cutting},
		{"tok/logout", "now", einval, "CKR_ARGUMENTS_BAD", nil},
		{"tok/logout", binary, einval, "CKR_ARGUMENTS_BAD", nil},
		{"tok/logout", "", enodata, "CKR_OPERATION_NOT_INITIALIZED", reading},
		{"tok/pin", "\n", einval, "CKR_ARGUMENTS_BAD", nil},
		{"tok/pin", "one", einval, "CKR_ARGUMENTS_BAD", nil},
		{"tok/pin", "one two three", einval, "CKR_ARGUMENTS_BAD", nil},
		{"tok/pin", " two", einval, "CKR_ARGUMENTS_BAD", nil},
		{"tok/pin", userPIN + " new\x00pin", einval, "CKR_PIN_INVALID", nil},
		{"tok/pin", "wrong 567890", rejected, "CKR_PIN_INCORRECT", nil},
		{"tok/pin", long, efbig, "CKR_DATA_LEN_RANGE", nil},
		{"tok/ctl", "\n", einval, "CKR_ARGUMENTS_BAD", nil},
		{"tok/ctl", "frob", einval, "CKR_ARGUMENTS_BAD", nil},
		{"tok/ctl", binary, einval, "CKR_ARGUMENTS_BAD", nil},
		{"tok/ctl", "init", einval, "CKR_ARGUMENTS_BAD", nil},
		{"tok/ctl", "init " + soPIN, einval, "CKR_ARGUMENTS_BAD", nil},
		{"tok/ctl", "init " + soPIN + "  ", einval, "CKR_ARGUMENTS_BAD", nil},
		{"tok/ctl", "init " + soPIN + " bad\x1blabel", einval, "CKR_ARGUMENTS_BAD", nil},
		{"tok/ctl", "init " + soPIN + " label", ebusy, "CKR_SESSION_EXISTS", nil},
		{"tok/ctl", "init-pin", einval, "CKR_PIN_LEN_RANGE", nil},
		{"tok/ctl", "init-pin 5678", eacces, "CKR_USER_NOT_LOGGED_IN", nil},
		{"tok/ctl", "cancel all", einval, "CKR_ARGUMENTS_BAD", nil},
		{"tok/ctl", long, efbig, "CKR_DATA_LEN_RANGE", nil},
		{"tok/passphrase", "\n", einval, "CKR_ARGUMENTS_BAD", nil},
		{"tok/passphrase", binary, einval, "CKR_PIN_INVALID", nil},
		{"tok/passphrase", long, efbig, "CKR_DATA_LEN_RANGE", nil},
		{"tok/find", "class=frob", einval, "CKR_ATTRIBUTE_VALUE_INVALID", nil},
		{"tok/find", "colour=red", einval, "CKR_ATTRIBUTE_TYPE_INVALID", nil},
		{"tok/find", "label", einval, "CKR_ARGUMENTS_BAD", nil},
		{"tok/find", `label="open`, einval, "CKR_ARGUMENTS_BAD", nil},
		{"tok/find", "id=0xzz", einval, "CKR_ATTRIBUTE_VALUE_INVALID", nil},
		{"tok/find", "label=a label=b", einval, "CKR_TEMPLATE_INCONSISTENT", nil},
		{"tok/find", binary, einval, "CKR_", nil},
		{"tok/find", long, efbig, "CKR_DATA_LEN_RANGE", nil},
		{"tok/find", "label=web", einval, "CKR_ARGUMENTS_BAD", twice},
		{"tok/find", "", enodata, "CKR_OPERATION_NOT_INITIALIZED", reading},
		{"tok/generate", "\n", einval, "CKR_ARGUMENTS_BAD", nil},
		{"tok/generate", "frob:12", enotsup, "CKR_MECHANISM_INVALID", nil},
		{"tok/generate", "sha256", enotsup, "CKR_MECHANISM_INVALID", nil},
		{"tok/generate", binary, einval, "CKR_ARGUMENTS_BAD", nil},
		{"tok/generate", "rsa:many", einval, "CKR_ATTRIBUTE_VALUE_INVALID", nil},
		{"tok/generate", "rsa:2048 bits=2048", einval, "CKR_ARGUMENTS_BAD", nil},
		{"tok/generate", "rsa bits=2048 modulus-bits=1024", einval, "CKR_TEMPLATE_INCONSISTENT", nil},
		{"tok/generate", "ec:p999", einval, "CKR_CURVE_NOT_SUPPORTED", nil},
		{"tok/generate", "ec bits=256", einval, "CKR_TEMPLATE_INCONSISTENT", nil},
		{"tok/generate", "aes:100", einval, "CKR_KEY_SIZE_RANGE", nil},
		{"tok/generate", "aes", einval, "CKR_TEMPLATE_INCOMPLETE", nil},
		{"tok/generate", "aes:128 class=public-key", einval, "CKR_TEMPLATE_INCONSISTENT", nil},
		{"tok/generate", "aes:128 value=0x00", einval, "CKR_TEMPLATE_INCONSISTENT", nil},
		{"tok/generate", "aes:128 local=true", eperm, "CKR_ATTRIBUTE_READ_ONLY", nil},
		{"tok/generate", "aes:128 sign=maybe", einval, "CKR_ATTRIBUTE_VALUE_INVALID", nil},
		{"tok/generate", "aes:128 modulus=0x01", einval, "CKR_ATTRIBUTE_TYPE_INVALID", nil},
		{"tok/generate", long, efbig, "CKR_DATA_LEN_RANGE", nil},
		{"tok/import", "", enodata, "CKR_OPERATION_NOT_INITIALIZED", reading},
		{"tok/import", "hello", einval, "CKR_DATA_INVALID", nil},
		{"tok/import", binary, einval, "CKR_DATA_INVALID", rw},
		{"tok/import", "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n", einval, "CKR_DATA_INVALID", nil},
		{"tok/import", strings.Repeat("x", 2<<20), efbig, "CKR_DATA_LEN_RANGE", nil},
		{"tok/import:frob", "x", einval, "CKR_ARGUMENTS_BAD", nil},
		{"tok/import:pem,colour=red", "x", einval, "CKR_ATTRIBUTE_TYPE_INVALID", nil},
		{"tok/import:pem,label", "x", einval, "CKR_", nil},
		{"tok/export", "x", eperm, "CKR_FUNCTION_REJECTED", nil},
		{"tok/random", "", einval, "CKR_ARGUMENTS_BAD", cutting},
		{sha, "", enodata, "CKR_OPERATION_NOT_INITIALIZED", reading},
		{sha, "x", einval, "CKR_ARGUMENTS_BAD", seeking},
		{sha, "", einval, "CKR_ARGUMENTS_BAD", cutting},
		{"tok/digest/frob", "x", enotsup, "CKR_MECHANISM_INVALID", nil},
		{"tok/digest/aes-cbc", "x", enotsup, "CKR_MECHANISM_INVALID", nil},
		{"tok/digest/sha256,salt=1", "x", einval, "CKR_MECHANISM_PARAM_INVALID", nil},
		{web + "sign", "", enodata, "CKR_OPERATION_NOT_INITIALIZED", reading},
		{web + "sign", "x", einval, "CKR_ARGUMENTS_BAD", seeking},
		{web + "sign:frob", "x", enotsup, "CKR_MECHANISM_INVALID", nil},
		{web + "sign:", "x", einval, "CKR_ARGUMENTS_BAD", nil},
		{web + "sign:sha256", "x", enotsup, "CKR_MECHANISM_INVALID", nil},
		{web + "sign:ecdsa", "x", einval, "CKR_KEY_TYPE_INCONSISTENT", nil},
		{web + "sign:sha256-rsa-pkcs,salt=32", "x", einval, "CKR_MECHANISM_PARAM_INVALID", nil},
		{web + "sign:sha256-rsa-pkcs-pss,salt=many", "x", einval, "CKR_MECHANISM_PARAM_INVALID", nil},
		{web + "verify", "x", eperm, "CKR_FUNCTION_REJECTED", nil},
		{web + "unwrap", "x", eperm, "CKR_KEY_FUNCTION_NOT_PERMITTED", nil},
		{web + "frob", "x", eperm, "CKR_FUNCTION_REJECTED", nil},
		{pub + "verify", "short", ebadmsg, "CKR_SIGNATURE_LEN_RANGE", nil},
		{pub + "verify", strings.Repeat("s", 256) + "x", ebadmsg, "CKR_SIGNATURE_INVALID", rw},
		{pub + "encrypt", strings.Repeat("x", 300), efbig, "CKR_DATA_LEN_RANGE", nil},
		{"tok/objects/tls.pub/verify", binary, ebadmsg, "CKR_SIGNATURE_", nil},
		{disk + "decrypt", "short", ebadmsg, "CKR_ENCRYPTED_DATA_INVALID", nil},
		{disk + "decrypt", strings.Repeat("x", 64), ebadmsg, "CKR_", nil},
		{disk + "encrypt:aes-cbc,iv=00", "x", einval, "CKR_MECHANISM_PARAM_INVALID", nil},
		{disk + "encrypt:aes-cbc", "x", einval, "CKR_MECHANISM_PARAM_INVALID", nil},
		{disk + "encrypt:aes-cbc,iv=zz", "x", einval, "CKR_MECHANISM_PARAM_INVALID", nil},
		{disk + "encrypt:rsa-pkcs", "x", einval, "CKR_", nil},
		{disk + "wrap:aes-cbc-pad,iv=000102030405060708090a0b0c0d0e0f", "nothing.sec", enoent, "CKR_KEY_HANDLE_INVALID", nil},
		{disk + "wrap:aes-cbc-pad,iv=000102030405060708090a0b0c0d0e0f", "disk.sec", eperm, "CKR_KEY_UNEXTRACTABLE", nil},
		{disk + "unwrap:aes-cbc-pad,iv=000102030405060708090a0b0c0d0e0f,class=secret-key,key-type=aes", "garbage", 0, "CKR_", nil},
		{disk + "unwrap:aes-cbc-pad,colour=red", "x", einval, "CKR_", nil},
		{tls + "derive", "no point", einval, "CKR_MECHANISM_PARAM_INVALID", nil},
		{web + "attr/class", "data", eperm, "CKR_ATTRIBUTE_READ_ONLY", nil},
		{web + "attr/id", "0xzz", einval, "CKR_ATTRIBUTE_VALUE_INVALID", nil},
		{web + "attr/sign", "\n", einval, "CKR_ATTRIBUTE_VALUE_INVALID", nil},
		{web + "attr/sensitive", "false", eperm, "CKR_ATTRIBUTE_READ_ONLY", nil},
		{web + "attr/label", long, efbig, "CKR_DATA_LEN_RANGE", nil},
		{web + "attr/frob", "x", eperm, "CKR_FUNCTION_REJECTED", nil},
		{web + "attr/serial-number", "", enodata, "CKR_ATTRIBUTE_TYPE_INVALID", reading},
		{web + "attr/private-exponent", "", eperm, "CKR_ATTRIBUTE_SENSITIVE", reading},
		{web + "info", "x", eacces, "CKR_ATTRIBUTE_READ_ONLY", nil},
		{"tok/info", "x", eacces, "CKR_ATTRIBUTE_READ_ONLY", nil},
		{"tok/error", "x", eacces, "CKR_ATTRIBUTE_READ_ONLY", nil},
		{"tok/objects/new.key", "", eperm, "CKR_FUNCTION_REJECTED", makingDir},
		{"tok/objects/none.key", "", enoent, "CKR_OBJECT_HANDLE_INVALID", removingDir},
		{"tok/objects", "", eperm, "CKR_FUNCTION_REJECTED", removingDir},
		{"tok/info", "", eperm, "CKR_FUNCTION_REJECTED", unlinking},
		{"tok/objects/web.key", "", syscall.EISDIR, "CKR_ARGUMENTS_BAD", unlinking},
		{"tok/objects/web.key", "tok/objects/web.sec", eperm, "CKR_ARGUMENTS_BAD", renaming},
		{"tok/objects/web.key", "tok/data/web", syscall.EXDEV, "CKR_ARGUMENTS_BAD", renaming},
		{"tok/info", "tok/slot", eperm, "CKR_FUNCTION_REJECTED", renaming},
		{"tok/data/a~b", "x", einval, "CKR_ARGUMENTS_BAD", nil},
		{"tok/data/" + strings.Repeat("n", 256), "x", syscall.ENAMETOOLONG, "", nil},
		{"tok/data/" + strings.Repeat("n", maxBase+1), "x", syscall.ENAMETOOLONG, "CKR_ARGUMENTS_BAD", nil},
		{"tok/certs/" + strings.Repeat("n", maxBase+1) + ".pem", "x", syscall.ENAMETOOLONG, "CKR_ARGUMENTS_BAD", nil},
		{"tok/objects/web.key", "tok/objects/" + strings.Repeat("n", maxBase+1) + ".key", syscall.ENAMETOOLONG, "CKR_ARGUMENTS_BAD", renaming},
		{"tok/data/dir", "", eperm, "CKR_FUNCTION_REJECTED", makingDir},
		{"tok/data/none", "", enoent, "CKR_", unlinking},
		{"tok/certs/new.pem", "no certificate", einval, "CKR_DATA_INVALID", nil},
		{"tok/certs/new.pem", strings.Repeat("x", maxBlob+1), efbig, "CKR_DATA_LEN_RANGE", nil},
		{"tok/sessions/12", "", einval, "CKR_ARGUMENTS_BAD", makingDir},
		{"tok/sessions/99", "", enoent, "CKR_SESSION_HANDLE_INVALID", removingDir},
		{"tok/sessions/new", "", eperm, "CKR_FUNCTION_REJECTED", unlinking},
		{"tok/by-id/01.key", "", eperm, "CKR_FUNCTION_REJECTED", unlinking},
	}
}

// TestBadInput gives each writable file what it must refuse, and looks whether
// anything is left over.
func TestBadInput(t *testing.T) {
	rows := badInputs()
	if len(rows) < 80 {
		t.Fatalf("%d rows, want at least 80", len(rows))
	}
	w := newWorld(t, hooks.Options{Forgiving: true})
	p := w.person(1000, 100)
	p.keys()
	_, _ = p.cat("tok/generate")
	p.must(p.mkdir("tok/sessions/other")) // so that init finds one in the way
	names, sessions := p.ls("tok/objects"), w.engine.Stats().Sessions
	for _, r := range rows {
		do, shown := r.do, r.data
		if do == nil {
			do = print2
		}
		shown = strings.Map(func(c rune) rune {
			if c < ' ' || c > '~' || c == '/' {
				return '_'
			}
			return c
		}, shown[:min(len(shown), 24)])
		t.Run(r.path+" "+shown, func(t *testing.T) {
			p.must(p.echo("label=web", "tok/find")) // error is CKR_OK
			_, _ = p.cat("tok/find")
			errno := do(p, r.path, r.data)
			if errno == 0 || errno != r.want && r.want != 0 {
				t.Errorf("%v, want %v", errno, r.want)
			}
			line, _ := p.cat("tok/error")
			if r.rv == "" {
				if line != "0x00000000 CKR_OK\n" {
					t.Errorf("error is %q", line)
				}
				return
			}
			fields := strings.Fields(line)
			if strings.Count(line, "\n") != 1 || len(fields) < 6 || !strings.HasPrefix(fields[1], r.rv) || len(line) > 600 {
				t.Errorf("error is %q, want %s and what to do", line, r.rv)
			}
		})
	}
	if got := p.ls("tok/objects"); !slices.Equal(got, names) {
		t.Errorf("the objects are %q, before %q", got, names)
	}
	if s := w.engine.Stats(); s.Sessions != sessions || s.Operations != 0 {
		t.Errorf("%d sessions, before %d, and %d operations", s.Sessions, sessions, s.Operations)
	}
	p.reads("tok/login", "user\n")

	for _, dir := range []string{"tok/data", "tok/certs"} {
		if got := p.ls(dir); len(got) != 0 {
			t.Errorf("%s holds %q", dir, got)
		}
	}
}
