package integration

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"p11fs/tokens"
	"p11fs/tokens/tpm"
	"p11fs/tokens/tpm/tpm20"
	"p11fs/tokens/tpm/tpmtest"
)

var everyRule = flag.Bool("every-rule", false, "have TestTPMConformance ask each rule with each protection of PINs")

// TestTPMConformance asks the rules of PKCS#11 of a token of a TPM, through every door: all
// of them with one protection of its PINs, and with the other one those of logins, of
// which alone protections can make something else.
func TestTPMConformance(t *testing.T) {
	if testing.Short() {
		t.Skip("asks each rule of a TPM, which takes a minute of processor time")
	}
	t.Parallel()
	needTools(t, "swtpm")
	for protection, rules := range map[string][]tokenRule{tpm.PINFail: conformanceRules(), tpm.DA: loginRules()} {
		if *everyRule {
			rules = conformanceRules()
		}
		t.Run(protection, func(t *testing.T) {
			t.Parallel()
			conform(t, daemonDoors(daemonConfig{token: tpm.Kind, modern: true, binary: plainBinary(t), pins: protection}, tokens.DefaultSOPIN), rules)
		})
	}
}

// giveTPM gives a daemon's token a software TPM, and PINs that are stretched as little as
// may be.
func (d *daemon) giveTPM() {
	d.t.Helper()
	soft := tpmtest.Start(d.t, nil)
	soft.Tries(d.t, 250) // the rules give more wrong PINs than a TPM may count
	conf := filepath.Join(d.dir, "opencryptoki.conf")
	for name, text := range map[string]string{
		conf:                             "slot 1\n{\nstdll = libpkcs11_tpm.so\nconfname = tpm.conf\n}\n",
		filepath.Join(d.dir, "tpm.conf"): fmt.Sprintf("device = %s\nprotection = %s\ncost = %d\n", soft.Device(), d.c.pins, tpm20.MinCost),
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			d.t.Fatal(err)
		}
	}
	d.c.args = append(slices.Clone(d.c.args), "--config", conf)
}
