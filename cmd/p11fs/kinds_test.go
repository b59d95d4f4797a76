package main

import (
	"crypto/rand"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"p11fs/mountd"
	"p11fs/tokens/store/format"
)

// TestKinds: the name of a user's own directory says its kind only where no token of
// another kind is in it.
func TestKinds(t *testing.T) {
	facts := func(k format.Kind, known bool) format.Kind {
		if !known {
			t.Fatal("there is no such kind")
		}
		return k
	}
	old := func(kind string) format.Format { return format.V38(facts(format.KindOf(kind)), rand.Reader) }
	newer := func(kind string) format.Format {
		return format.V312(facts(format.KindOf312(kind)), rand.Reader, 1)
	}
	chip := format.V312(format.Kind{Name: "tpm", Model: "TPM 2.0", MasterKeyLen: 32}, rand.Reader, 1)
	for _, c := range []struct {
		name, made string
		format     format.Format // nil: the directory is empty
		want       string
	}{
		{"tpm", "", nil, "tpm"},
		{"tpm", "swtok 3.8", old("swtok"), "swtok"},
		{"tpm", "swtok 3.12", newer("swtok"), "swtok"},
		{"tpm", "tpm", chip, "tpm"},
		{"lite", "", nil, "lite"},
		{"lite", "swtok 3.8", old("swtok"), "swtok"},
		{"lite", "swtok 3.12", newer("swtok"), "swtok"},
		{"lite", "lite 3.8", old("lite"), "lite"},
		{"lite", "lite 3.12", newer("lite"), "lite"},
		{"ep11tok", "", nil, "ep11tok"},
		{"ep11tok", "swtok 3.8", old("swtok"), "swtok"},
		{"ep11tok", "ep11tok 3.8", old("ep11tok"), "ep11tok"},
		{"ep11tok", "ep11tok 3.12", newer("ep11tok"), "ep11tok"},
		{"ccatok", "", nil, "ccatok"},
		{"ccatok", "swtok 3.8", old("swtok"), "swtok"},
		{"ccatok", "ccatok 3.8", old("ccatok"), "ccatok"},
		{"ccatok", "ccatok 3.12", newer("ccatok"), "ccatok"},
		{"other", "lite 3.8", old("lite"), "swtok"},
	} {
		t.Run(c.name+" "+c.made, func(t *testing.T) {
			data := t.TempDir()
			dir := filepath.Join(data, c.name)
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if c.format != nil {
				d, _, err := c.format.NewToken(t.Context())
				if err == nil {
					err = os.WriteFile(filepath.Join(dir, "NVTOK.DAT"), c.format.PrintFile(d), 0o600)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			conf := mountd.Config{Mode: mountd.User, Paths: mountd.Paths{Data: data, Config: filepath.Join(data, "absent")}, Log: slog.New(slog.DiscardHandler)}
			if err := setKinds(&conf, "go"); err != nil {
				t.Fatal(err)
			}
			slots, _, err := conf.Slots()
			if err != nil || len(slots) != 1 || slots[0].Kind == nil || slots[0].Kind.Name != c.want {
				t.Errorf("%+v, %v", slots, err)
			}
		})
	}
}
