package cardway

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"p11fs/locks"
	"p11fs/tokens"
	"p11fs/tokens/card"
)

// TestKeep: a token that was made with a socket finds it again, whatever it is called, and not
// the one of an earlier attempt; what somebody else wrote stays.
func TestKeep(t *testing.T) {
	t.Parallel()
	w := Way{ABI: card.CCA, Conf: "ccatok.conf", Begin: "version cca-0"}
	for _, socket := range []string{"/run/card.socket", "/home/a user/card #1 = {x}"} {
		p := tokens.Place{Dir: t.TempDir(), Group: locks.NoGroup, Create: true}
		for _, setting := range []string{New, "/another", socket, ""} {
			if err := w.Keep(setting, p); err != nil {
				t.Fatal(err)
			}
		}
		_, text, err := w.Read(p)
		if err != nil {
			t.Fatal(err)
		}
		list, err := Words(text, "={},")
		if err != nil || !slices.ContainsFunc(list, func(w Word) bool { return w.Text == socket && w.Quoted && w.Ours }) {
			t.Errorf("%q, %v", text, err)
		}
	}
	theirs := tokens.Place{Dir: t.TempDir(), Group: locks.NoGroup, Create: true}
	const text = "version cca-0\nEXPECTED_MKVPS {\n}\n"
	if err := os.WriteFile(filepath.Join(theirs.Dir, w.Conf), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, setting := range []string{New, "/run/card.socket"} {
		if err := w.Keep(setting, theirs); err == nil {
			t.Errorf("%s: a configuration that says otherwise is passed over", setting)
		}
	}
	if _, got, err := w.Read(theirs); err != nil || got != text {
		t.Errorf("%q, %v", got, err)
	}
	opened := tokens.Place{Dir: t.TempDir(), Group: locks.NoGroup}
	if err := w.Keep("/run/card.socket", opened); err != nil || w.Path(opened) != "" {
		t.Errorf("a token that is only opened gets a configuration: %v", err)
	}
}

// TestVacant is of a slot that openCryptoki's configuration has on every machine.
func TestVacant(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	there := filepath.Join(dir, "there")
	if err := os.WriteFile(there, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p := tokens.Place{Dir: filepath.Join(dir, "absent"), Config: there}
	for name, c := range map[string]struct {
		socket, setting string
		err             error
		vacant          bool
	}{
		"nothing":               {filepath.Join(dir, "no"), "", nil, true},
		"no configuration":      {filepath.Join(dir, "no"), "", os.ErrNotExist, true},
		"a socket":              {there, "", nil, false},
		"a setting":             {filepath.Join(dir, "no"), "/card", nil, false},
		"one that is not right": {filepath.Join(dir, "no"), "", os.ErrInvalid, false},
	} {
		got := Way{ABI: card.CCA, Socket: c.socket}.Vacant(p, func() (string, error) { return c.setting, c.err })
		if (got != "") != c.vacant {
			t.Errorf("%s: %q", name, got)
		}
	}
}
