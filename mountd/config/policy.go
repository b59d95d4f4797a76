package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"p11fs/engine/policy"
	"p11fs/p11"
)

// maxPolicy bounds what is read of a policy's files: every mechanism fits many times.
const maxPolicy = 1 << 20

// A Keeper is who must own the files of a policy, if it is not root, and who may write
// them.
type Keeper struct {
	UID   int
	Group int  // -1 for any
	Exact bool // the mode is 0640, as openCryptoki wants it; else only the owner may write
}

// check says what is wrong with a file's owner and mode.
func (k Keeper) check(name string, st *unix.Stat_t) error {
	reason := ""
	switch mode := st.Mode & 0o7777; {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		reason = "it is no file"
	case int(st.Uid) != k.UID && st.Uid != 0:
		reason = fmt.Sprintf("it belongs to user %d: chown %d %s", st.Uid, k.UID, name)
	case k.Group >= 0 && int(st.Gid) != k.Group:
		reason = fmt.Sprintf("its group is %d: chgrp %d %s", st.Gid, k.Group, name)
	case k.Exact && mode != 0o640:
		reason = fmt.Sprintf("its mode is %04o: chmod 0640 %s", mode, name)
	case mode&0o022 != 0:
		reason = fmt.Sprintf("others may write to it (mode %04o): chmod go-w %s", mode, name)
	default:
		return nil
	}
	return &Problem{File: name, Reason: reason}
}

// read returns the text of a file that k keeps.
func (k Keeper) read(name string) (string, error) {
	// A pipe would not be waited for.
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return "", err
	}
	if err := k.check(name, &st); err != nil {
		return "", err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxPolicy+1))
	if err == nil && len(b) > maxPolicy {
		err = &Problem{File: name, Reason: fmt.Sprintf("it is longer than %d bytes", maxPolicy)}
	}
	return string(b), err
}

// LoadPolicy reads a policy and the strengths that it is about. Without the first file
// there is none, and the second is not looked at. Whatever is wrong is an error: who
// wrote a policy does not want to be served without it.
func LoadPolicy(policyFile, strengthFile string, k Keeper) (*policy.Policy, error) {
	text, err := k.read(policyFile)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil //nolint:nilnil // no policy is a policy: see engine/policy
	}
	if err != nil {
		return nil, err
	}
	p, err := ParsePolicy(policyFile, text)
	if err != nil {
		return nil, err
	}
	if text, err = k.read(strengthFile); err != nil {
		return nil, fmt.Errorf("a policy wants the file of strengths, too: %w", err)
	}
	p.Levels, err = ParseStrengths(strengthFile, text)
	return p, err
}

// checkVersion checks that the version is PREFIX and a number.
func checkVersion(name, version, prefix string) error {
	digits, ok := strings.CutPrefix(version, prefix)
	if !ok || digits == "" || digits[0] < '0' || digits[0] > '9' {
		return &Problem{File: name, Line: 1, Reason: fmt.Sprintf("the version is %s, and not %s0", clip(version), prefix)}
	}
	return nil
}

// ParsePolicy reads policy.conf, without its Levels.
func ParsePolicy(name, src string) (*policy.Policy, error) {
	version, items, err := parseBlocks(name, src)
	if err == nil {
		err = checkVersion(name, version, "policy-")
	}
	if err != nil {
		return nil, err
	}
	p := &policy.Policy{Name: name}
	seen := map[string]bool{}
	for _, it := range items {
		fail := func(line int, format string, args ...any) (*policy.Policy, error) {
			return nil, &Problem{File: name, Line: line, Reason: fmt.Sprintf(format, args...)}
		}
		if seen[it.key] {
			return fail(it.line, "%s stands twice", clip(it.key))
		}
		seen[it.key] = true
		sets := map[string]func(string) error{
			"allowedmechs":  adds(&p.Mechanisms, named("CKM_", p11.ParseMechanismType)),
			"allowedmgfs":   adds(&p.MGFs, named("CKG_", p11.ParseMGF)),
			"allowedkdfs":   adds(&p.KDFs, named("CKD_", p11.ParseKDF)),
			"allowedprfs":   adds(&p.PRFs, named("CKP_", p11.ParsePBKDF2PRF)),
			"allowedcurves": adds(&p.Curves, curveParams),
		}
		switch add := sets[it.key]; {
		case it.key == "strength" && it.form == assigned:
			p.Strength = roundedUp(it.number)
		case it.key == "strength" || add != nil && it.form != listing:
			return fail(it.line, "%s has not its form", it.key)
		case add == nil:
			return fail(it.line, "there is no key %s", clip(it.key))
		default:
			_ = add("") // makes the set
			for _, w := range it.words {
				if err := add(w.word); err != nil {
					return fail(w.line, "%v", err)
				}
			}
		}
	}
	if !seen["strength"] {
		return nil, &Problem{File: name, Reason: `there is no "strength = NUMBER", which may be 0`}
	}
	return p, nil
}

// adds returns what adds a name to a set, which it makes.
func adds[T comparable](set *map[T]bool, parse func(string) (T, error)) func(string) error {
	return func(name string) error {
		if *set == nil {
			*set = map[T]bool{}
		}
		if name == "" {
			return nil
		}
		v, err := parse(name)
		if err == nil {
			(*set)[v] = true
		}
		return err
	}
}

// named reads names as the standard spells them, and no others: openCryptoki reads the
// same files.
func named[T any](prefix string, parse func(string) (T, error)) func(string) (T, error) {
	return func(name string) (T, error) {
		v, err := parse(name)
		if err == nil && (!strings.HasPrefix(name, prefix) || strings.ContainsAny(name, "-abcdefghijklmnopqrstuvwxyz")) {
			err = fmt.Errorf("%s is not spelt as in the standard: %s and capitals", clip(name), prefix)
		}
		return v, err
	}
}

// curveParams reads a name of a curve as openCryptoki has it, such as BRAINPOOL_P256R1.
func curveParams(name string) (string, error) {
	c, ok := p11.CurveNamed(strings.ReplaceAll(name, "_", ""))
	if !ok || name != strings.ToUpper(name) {
		return "", fmt.Errorf("there is no curve %s", clip(name))
	}
	return string(c.Params()), nil
}

// roundedUp is the strength that a number means: the next there is, or the highest.
func roundedUp(n uint64) uint64 {
	for _, s := range strengths() {
		if n <= s {
			return s
		}
	}
	return slices.Max(strengths())
}

func strengths() []uint64 { return []uint64{0, 112, 128, 192, 256} }

// ParseStrengths reads strength.conf. What a level leaves out, nothing reaches.
func ParseStrengths(name, src string) ([]policy.Level, error) {
	version, items, err := parseBlocks(name, src)
	if err == nil {
		err = checkVersion(name, version, "strength-")
	}
	if err != nil {
		return nil, err
	}
	var levels []policy.Level
	for _, it := range items {
		fail := func(line int, format string, args ...any) ([]policy.Level, error) {
			return nil, &Problem{File: name, Line: line, Reason: fmt.Sprintf(format, args...)}
		}
		if it.key != "strength" || it.form != blocked || it.number == 0 || !slices.Contains(strengths(), it.number) {
			return fail(it.line, "only strength 112, 128, 192 and 256, each with its block, may stand here")
		}
		if slices.ContainsFunc(levels, func(l policy.Level) bool { return l.Strength == it.number }) {
			return fail(it.line, "strength %d stands twice", it.number)
		}
		l := policy.Level{
			Strength: it.number, ModExp: policy.Never, ECC: policy.Never, Symmetric: policy.Never, Digest: policy.Never, Signature: policy.Never,
		}
		into := map[string]*uint64{"MOD_EXP": &l.ModExp, "ECC": &l.ECC, "SYMMETRIC": &l.Symmetric, "digest": &l.Digest, "signature": &l.Signature}
		for _, in := range it.items {
			to := into[in.key]
			if to == nil || in.form != assigned {
				return fail(in.line, "strength %d has MOD_EXP, ECC, SYMMETRIC, digest and signature, each once, with a number", it.number)
			}
			*to = in.number
			delete(into, in.key)
		}
		levels = append(levels, l)
	}
	return levels, nil
}
