package tpm

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"p11fs/p11"
	"p11fs/tokens/store"
	"p11fs/tokens/tpm/tpm20"
)

// The protections of the PINs.
const (
	// DA has the TPM's own count of failures, which is the machine's: the token never lets
	// a fourth wrong PIN come to it.
	DA = "da"
	// PINFail has an index in the TPM for each PIN, which counts for itself.
	PINFail = "pinfail"
)

// chipFile says which TPM a token belongs to.
const chipFile = "TPM2"

// maxChipFile bounds it.
const maxChipFile = 1 << 14

// A record is the contents of chipFile.
type record struct {
	device     string // empty: the kind's
	vendor     string
	protection string
	parent     tpm20.Parent
	raw        bool // the TPM does RSA without padding
	bits       []int
	curves     []string
	aes        []int    // bits, where keys of AES are the TPM's
	modes      []string // of AES
	indexes    []uint32 // that belong to PINs of the token, or did until a moment ago
	shared     bool     // others may have written it; not in the file
}

const recordHead = "p11fs-tpm2 1"

// print is the contents of the file.
func (r *record) print() []byte {
	var b bytes.Buffer
	line := func(name, value string) { fmt.Fprintf(&b, "%s=%s\n", name, value) }
	fmt.Fprintln(&b, recordHead)
	line("srk", hex.EncodeToString(r.parent.Name))
	line("template", string(r.parent.Template))
	line("handle", strconv.FormatUint(uint64(r.parent.Handle), 16))
	line("vendor", r.vendor)
	line("protection", r.protection)
	line("raw", strconv.FormatBool(r.raw))
	for _, n := range r.bits {
		line("rsa", strconv.Itoa(n))
	}
	for _, c := range r.curves {
		line("curve", c)
	}
	for _, n := range r.aes {
		line("aes", strconv.Itoa(n))
	}
	for _, m := range r.modes {
		line("mode", m)
	}
	for _, i := range r.indexes {
		line("index", strconv.FormatUint(uint64(i), 16))
	}
	if r.device != "" {
		line("device", r.device)
	}
	return b.Bytes()
}

// parseRecord reads what print wrote. Every line is known.
func parseRecord(b []byte) (*record, error) {
	head, rest, _ := strings.Cut(string(b), "\n")
	if head != recordHead || !strings.HasSuffix(rest, "\n") {
		return nil, errors.New("it does not begin with " + recordHead + ", or was cut off")
	}
	r := &record{}
	for i, line := range strings.Split(strings.TrimSuffix(rest, "\n"), "\n") {
		name, value, ok := strings.Cut(line, "=")
		if !ok {
			return nil, fmt.Errorf("line %d is no name=value", i+2)
		}
		if err := r.set(name, value); err != nil {
			return nil, fmt.Errorf("line %d, %s: %w", i+2, strconv.Quote(name), err)
		}
	}
	if len(r.parent.Name) == 0 || r.protection == "" || r.parent.Template == "" {
		return nil, errors.New("lines are missing")
	}
	return r, nil
}

func (r *record) set(name, value string) (err error) {
	bad := errors.New("it has no value that there is")
	switch name {
	case "srk":
		if r.parent.Name, err = hex.DecodeString(value); err == nil && len(r.parent.Name) != 34 {
			return bad
		}
	case "template":
		if r.parent.Template = tpm20.Template(value); r.parent.Template != tpm20.P256 && r.parent.Template != tpm20.RSA2048 {
			return bad
		}
	case "handle":
		var n uint64
		n, err = strconv.ParseUint(value, 16, 32)
		r.parent.Handle = uint32(n)
	case "vendor":
		r.vendor = value
	case "protection":
		if r.protection = value; value != DA && value != PINFail {
			return bad
		}
	case "raw":
		r.raw, err = strconv.ParseBool(value)
	case "rsa":
		var n int
		n, err = strconv.Atoi(value)
		r.bits = append(r.bits, n)
	case "curve":
		r.curves = append(r.curves, value)
	case "aes":
		var n int
		n, err = strconv.Atoi(value)
		r.aes = append(r.aes, n)
	case "mode":
		r.modes = append(r.modes, value)
	case "index":
		var n uint64
		n, err = strconv.ParseUint(value, 16, 32)
		r.indexes = append(r.indexes, uint32(n))
	case "device":
		r.device = value
		err = tpm20.Device(value).Check()
	default:
		return errors.New("it is not known: a newer p11fs has written it")
	}
	return err
}

// readFile reads a regular file of a token directory, of limit bytes at most. shared says
// that others than who reads it, and root, may have written it.
func readFile(dir, name string, limit int) (b []byte, shared bool, err error) {
	name = filepath.Join(dir, name)
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, false, &os.PathError{Op: "open", Path: name, Err: err}
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	var file, above unix.Stat_t
	if err = unix.Fstat(fd, &file); err == nil {
		err = unix.Stat(dir, &above)
	}
	if err == nil && file.Mode&unix.S_IFMT == unix.S_IFREG {
		b, err = io.ReadAll(io.LimitReader(f, int64(limit)+1))
	}
	if err != nil || len(b) == 0 || len(b) > limit {
		return nil, false, p11.Errorf(p11.CKR_TOKEN_NOT_RECOGNIZED, "%s cannot be read, or is too long", name)
	}
	for _, st := range []unix.Stat_t{file, above} {
		shared = shared || st.Mode&0o022 != 0 || st.Uid != 0 && int(st.Uid) != unix.Geteuid()
	}
	return b, shared, nil
}

// readRecord reads the file of a token directory.
func readRecord(dir string) (*record, error) {
	b, shared, err := readFile(dir, chipFile, maxChipFile)
	if err != nil {
		return nil, err
	}
	r, err := parseRecord(b)
	if err != nil {
		return nil, p11.Errorf(p11.CKR_TOKEN_NOT_RECOGNIZED, "%s: %w", filepath.Join(dir, chipFile), err)
	}
	r.shared = shared
	return r, nil
}

// write replaces the file.
func (r *record) write(dir string, group int) error {
	return failed(store.Replace(dir, chipFile, r.print(), group))
}

func failed(err error) error {
	if err == nil {
		return nil
	}
	return p11.Errorf(p11.CKR_FUNCTION_FAILED, "the TPM's file: %w", err)
}

// A keyFile is the contents of MK_SO and MK_USER: the master key, sealed under a PIN.
//
//	0   magic
//	8   u32 1, the version
//	12  u32 the index that counts wrong PINs, or 0
//	16  salt
//	48  u16 n, and the n bytes of a TPM2B_PUBLIC with its size; likewise a TPM2B_PRIVATE
//	    zeros
//	476 u32 the logarithm of scrypt's N
//	480 SHA-256 of all before
//
// Numbers are little endian but for those in the TPM's own structures.
type keyFile struct {
	salt [tpm20.SaltSize]byte
	cost int
	seal tpm20.Seal
}

const (
	keyMagic    = "p11fsTPM"
	keyFileSize = 512
	keySumAt    = keyFileSize - sha256.Size
	keyCostAt   = keySumAt - 4
)

func (k *keyFile) print() ([]byte, error) {
	b := make([]byte, 0, keyFileSize)
	b = append(b, keyMagic...)
	b = binary.LittleEndian.AppendUint32(b, 1)
	b = binary.LittleEndian.AppendUint32(b, k.seal.Index)
	b = append(b, k.salt[:]...)
	b = appendBlob(b, k.seal.Blob)
	if len(b) > keyCostAt {
		return nil, p11.Errorf(p11.CKR_DEVICE_ERROR, "the TPM's seal has %d bytes, for which a key file has no room", len(b))
	}
	b = append(b, make([]byte, keyCostAt-len(b))...)
	b = binary.LittleEndian.AppendUint32(b, uint32(k.cost))
	sum := sha256.Sum256(b)
	return append(b, sum[:]...), nil
}

var errKeyFile = p11.Errorf(p11.CKR_DEVICE_ERROR, "the file of the PIN is damaged: it must come back from a backup, or the SO sets the user's PIN anew")

func parseKeyFile(b []byte) (*keyFile, error) {
	if len(b) != keyFileSize || string(b[:8]) != keyMagic || binary.LittleEndian.Uint32(b[8:]) != 1 {
		return nil, errKeyFile
	}
	if sum := sha256.Sum256(b[:keySumAt]); !bytes.Equal(sum[:], b[keySumAt:]) {
		return nil, errKeyFile
	}
	k := &keyFile{}
	k.seal.Index = binary.LittleEndian.Uint32(b[12:])
	copy(k.salt[:], b[16:48])
	k.cost = int(min(binary.LittleEndian.Uint32(b[keyCostAt:]), tpm20.MaxCost+1))
	blob, rest, ok := cutBlob(b[48:keyCostAt])
	if !ok || slices.ContainsFunc(rest, func(x byte) bool { return x != 0 }) {
		return nil, errKeyFile
	}
	k.seal.Blob = blob
	return k, nil
}

// appendBlob appends both halves of a blob, each with its length, little endian, in front
// of the TPM's own.
func appendBlob(b []byte, blob tpm20.Blob) []byte {
	for _, half := range [][]byte{blob.Public, blob.Private} {
		b = binary.LittleEndian.AppendUint16(b, uint16(len(half)+2))
		b = binary.BigEndian.AppendUint16(b, uint16(len(half)))
		b = append(b, half...)
	}
	return b
}

// cutBlob takes off what appendBlob appended.
func cutBlob(b []byte) (blob tpm20.Blob, rest []byte, ok bool) {
	for _, half := range []*[]byte{&blob.Public, &blob.Private} {
		if len(b) < 4 {
			return blob, nil, false
		}
		n := int(binary.LittleEndian.Uint16(b))
		if n < 2 || len(b) < 2+n || int(binary.BigEndian.Uint16(b[2:])) != n-2 {
			return blob, nil, false
		}
		*half = bytes.Clone(b[4 : 2+n])
		b = b[2+n:]
	}
	return blob, b, true
}

// opaqueHead begins CKA_IBM_OPAQUE of a key in a TPM 2.0.
const opaqueHead = "\x02\x00"

func printOpaque(b tpm20.Blob) []byte { return appendBlob([]byte(opaqueHead), b) }

func parseOpaque(value []byte) (tpm20.Blob, error) {
	if rest, ok := bytes.CutPrefix(value, []byte(opaqueHead)); ok {
		if blob, rest, ok := cutBlob(rest); ok && len(rest) == 0 {
			return blob, nil
		}
	}
	return tpm20.Blob{}, p11.Errorf(p11.CKR_DEVICE_ERROR, "what the object holds is no key of a TPM 2.0")
}
