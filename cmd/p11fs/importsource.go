package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"p11fs/foreign"
	"p11fs/foreign/module"
	"p11fs/foreign/softhsm"
	"p11fs/secret"
)

// sourceFlags say which token objects come from.
type sourceFlags struct {
	dir, module, initArgs string
	label, serial         string
	slot                  int64
	pinFile               string
	so                    bool
}

// noSlot stands where no slot is named.
const noSlot = -1

func (f *sourceFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.module, "module", "", "read through the PKCS#11 module in this `FILE`, instead of a DIRECTORY")
	c.Flags().StringVar(&f.initArgs, "init-args", "", "`TEXT` for the module's C_Initialize, as NSS's library takes it")
	c.Flags().StringVar(&f.label, "token-label", "", "take the token with this `LABEL`, where there are several")
	c.Flags().StringVar(&f.serial, "serial", "", "take the token with this serial `NUMBER`")
	c.Flags().Int64Var(&f.slot, "slot", noSlot, "take the token in the module's slot of this `NUMBER`")
	c.Flags().StringVar(&f.pinFile, "source-pin-file", "", "read the PIN of the other token from the first line of this `FILE`")
	c.Flags().BoolVar(&f.so, "source-so", false, "open a SoftHSM2 token with the SO PIN")
}

// arguments takes the directory from the arguments, if it is one that is read, and
// returns the others.
func (f *sourceFlags) arguments(c *cobra.Command, args []string) ([]string, error) {
	usage := func(text string) error { return &usageError{err: errors.New(text), usage: usageLine(c, nil)} }
	if f.module == "" {
		switch {
		case len(args) == 0:
			return nil, usage("what is to be read is missing: name the directory of a token, or --module")
		case f.slot != noSlot || f.initArgs != "":
			return nil, usage("--slot and --init-args are for a module: name it with --module")
		}
		f.dir, args = args[0], args[1:]
	} else if f.so {
		return nil, usage("--source-so is for a directory of SoftHSM2: a module shows the SO no keys")
	}
	if len(args) > 1 {
		return nil, usage(fmt.Sprintf("%s does not know what to do with %q: leave it out", c.CommandPath(), args[1]))
	}
	return args, nil
}

// read reads all objects. They are the caller's to wipe.
func (f *sourceFlags) read(ctx context.Context, s streams, ask *asker) ([]foreign.Object, error) {
	path, parameters := f.module, f.initArgs
	if path == "" {
		if _, err := os.Stat(f.dir); err != nil {
			return nil, err
		}
		if _, err := os.Stat(filepath.Join(f.dir, "cert9.db")); err != nil {
			return f.readSoftHSM(ctx, s, ask)
		}
		dir, err := filepath.Abs(f.dir)
		if err != nil {
			return nil, err
		}
		path = "libsoftokn3.so"
		parameters = "configdir='sql:" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(dir) + "' certPrefix='' keyPrefix='' secmod='secmod.db' flags=readOnly"
	}
	return f.readModule(ctx, s, ask, path, parameters)
}

// readSoftHSM reads a token's directory, or that of one below.
func (f *sourceFlags) readSoftHSM(ctx context.Context, s streams, ask *asker) (list []foreign.Object, err error) {
	dirs, err := softhsm.Find(f.dir)
	if err != nil {
		return nil, err
	}
	if len(dirs) == 0 {
		return nil, fmt.Errorf("%s has no token: name a directory of SoftHSM2, or one with NSS's cert9.db", f.dir)
	}
	var fit []*softhsm.Token
	var names, others []string
	defer func() {
		for _, t := range fit {
			err = errors.Join(err, t.Close())
		}
	}()
	for _, dir := range dirs {
		t, openErr := softhsm.Open(dir)
		if openErr != nil && len(dirs) == 1 {
			return nil, openErr
		}
		if openErr != nil {
			report(s, openErr)
			continue
		}
		name := fmt.Sprintf("%q (serial %s)", t.Label, printableLine(t.Serial))
		if !f.fits(t.Label, t.Serial) {
			others = append(others, name)
			err = errors.Join(err, t.Close())
			continue
		}
		fit, names = append(fit, t), append(names, name)
	}
	if err := f.chosen(names, others); err != nil {
		return nil, err
	}
	who := "PIN"
	if f.so {
		who = "SO PIN"
	}
	pin, err := getPIN(ctx, ask, f.pinFile, who+" of the SoftHSM2 token "+names[0], false)
	if err != nil {
		return nil, err
	}
	defer pin.Close()
	bar := startCount(s)
	defer bar.stop()
	return fit[0].Objects(ctx, pin, f.so, bar.reached)
}

func (f *sourceFlags) fits(label, serial string) bool {
	return (f.label == "" || f.label == label) && (f.serial == "" || f.serial == serial)
}

// chosen returns an error unless there is one token of those that fit. others do not.
func (f *sourceFlags) chosen(names, others []string) error {
	switch {
	case len(names) == 0 && len(others) == 0:
		return errors.New("there is no token to read: look whether it is there, and whether it has objects")
	case len(names) == 0:
		return &usageError{err: fmt.Errorf("there is no such token, but %s: say which with --token-label, --serial or --slot", strings.Join(others, ", "))}
	case len(names) == 1:
		return nil
	}
	return &usageError{err: fmt.Errorf("there are several tokens (%s): say which with --token-label, --serial or --slot", strings.Join(names, ", "))}
}

// readModule reads a token of a module.
func (f *sourceFlags) readModule(ctx context.Context, s streams, ask *asker, path, parameters string) (list []foreign.Object, err error) {
	m, err := module.Open(path, parameters)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	tokens, err := m.Tokens()
	if err != nil {
		return nil, err
	}
	var fit, own []module.Token
	var names, others []string
	for _, t := range tokens {
		if f.fits(t.Label, t.Serial) && (f.slot == noSlot || f.slot == int64(t.Slot)) {
			fit = append(fit, t)
			if !t.ReadOnly { // as NSS's second one is, which has no objects
				own = append(own, t)
			}
		} else {
			others = append(others, t.Name())
		}
	}
	if len(fit) > 1 && len(own) > 0 {
		fit = own
	}
	for _, t := range fit {
		names = append(names, t.Name())
	}
	if err := f.chosen(names, others); err != nil {
		return nil, err
	}
	t := fit[0]
	var pin *secret.Bytes
	switch {
	case t.Login && t.Keypad:
		fmt.Fprintf(s.err, "Type the PIN of the token %s at its own keys.\n", t.Name())
	case t.Login:
		if pin, err = getPIN(ctx, ask, f.pinFile, "PIN of the token "+t.Name(), false); err != nil {
			return nil, err
		}
		defer pin.Close()
	}
	bar := startCount(s)
	defer bar.stop()
	return t.Objects(ctx, pin, bar.reached)
}
