package fleet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"p11fs/locks"
	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/card/cardway"
	"p11fs/tokens/fleet/conf"
	"p11fs/tokens/fleet/lease"
	"p11fs/tokens/fleet/seal"
	"p11fs/tokens/store/format"
	"p11fs/tokens/swtok"
)

// Kind is the name of the kind of token that this package is.
const Kind = "fleet"

// setting is the line, and the option of p11fs init, that names the configuration of a user's
// own token; ownConfig is where the token directory keeps it.
const (
	setting   = "fleet"
	ownConfig = "fleet.conf"
)

// NewKind is the kind of token that many machines have, in etcd. p does its cryptography, and
// what is made of a PIN takes as many iterations as format.V312 has it.
func NewKind(p swtok.Provider, iterations uint64) tokens.Kind {
	newest := p11.Version{Major: 3, Minor: 12}
	return tokens.Kind{
		Name: Kind, Library: "libpkcs11_fleet", Files: []string{ownConfig},
		Open: func(ctx context.Context, place tokens.Place) (tokens.Token, error) {
			t, err := openToken(ctx, p, place, iterations)
			if p11.RVOf(err) == p11.CKR_DEVICE_ERROR && ctx.Err() == nil {
				err = fmt.Errorf("%w (%w)", err, tokens.ErrAway)
			}
			if err != nil {
				return nil, err
			}
			return t, nil
		},
		Check: check, Settings: []string{setting},
		Made: func(dir string) bool {
			st, err := os.Lstat(filepath.Join(dir, ownConfig))
			return err == nil && st.Mode().IsRegular()
		},
		Protection: func(place tokens.Place) tokens.Protection {
			place.Format = newest
			return swtok.NewKind(p).Protection(place)
		},
		Unshared: func(tokens.Place) bool { return true }, Portable: true,
		Upkeep:  func(place tokens.Place) tokens.Upkeep { return &upkeep{p, place, iterations} },
		Lacking: swtok.Lacking(p),
	}
}

// A token is a Store, and what it works with.
type token struct {
	*Store
	*swtok.Crypto
	*link
	name string
	host *lease.Host
	// readAlone: public objects are read without contact with the fleet.
	readAlone bool
}

func (t *token) Name() string { return t.name }
func (t *token) Kind() string { return Kind }

// Refresh is tokens.Storage. Where public objects are read without contact, Offline refuses
// the use of keys.
func (t *token) Refresh(ctx context.Context) error {
	if !t.readAlone {
		return t.Store.Refresh(ctx)
	}
	_, _, err := t.current(ctx)
	return err
}

// Close closes the token, and leaves the fleet.
func (t *token) Close() error {
	return errors.Join(t.Store.Close(), t.host.Close(), t.link.Close())
}

// A link is a way to the fleet of a place's token.
type link struct {
	path   string // of the configuration
	conf   conf.Config
	client *conf.Client
	key    *seal.Key
}

// connect reads the configuration of a place's token. Nothing is asked yet.
func connect(place tokens.Place) (*link, error) {
	path, err := configOf(place)
	if err != nil {
		return nil, err
	}
	l := &link{path: path}
	if l.conf, err = conf.Read(path); err != nil {
		return nil, err
	}
	if l.key, err = seal.ReadKey(l.conf.SealKey); err != nil {
		return nil, fmt.Errorf("%w (%w)", p11.CKR_FUNCTION_FAILED, err)
	}
	if l.client, err = l.conf.Client(); err != nil {
		return nil, errors.Join(err, l.key.Close())
	}
	return l, nil
}

// Close ends the connections.
func (l *link) Close() error { return errors.Join(l.client.Close(), l.key.Close()) }

// explain names a certificate that keeps this machine from etcd, in an error that says only that
// etcd does not answer.
func (l *link) explain(ctx context.Context, err error) error {
	if p11.RVOf(err) != p11.CKR_DEVICE_ERROR || ctx.Err() != nil {
		return err
	}
	bad := l.conf.Trouble(ctx)
	if bad == nil {
		return err
	}
	return p11.Advise(p11.Errorf(p11.CKR_DEVICE_ERROR, "%w: %w", err, bad), p11.AdviceOf(bad))
}

// end closes l, at the end of what has come to err.
func (l *link) end(ctx context.Context, err error) error {
	return errors.Join(l.explain(ctx, err), l.Close())
}

// config is that of a Store of the token.
func (l *link) config(place tokens.Place, iterations uint64) Config {
	facts, _ := format.KindOf312(swtok.Kind)
	cfg := Config{
		Client: l.client.Client, Prefix: l.conf.Prefix, Key: l.key, Create: place.Create, Room: place.Room,
		Log: place.Log, Now: place.Now, Rand: place.Rand,
	}.withRandom()
	cfg.Format = format.V312(facts, cfg.Rand, iterations)
	return cfg
}

// openToken joins the fleet that a place says, and opens its token.
func openToken(ctx context.Context, p swtok.Provider, place tokens.Place, iterations uint64) (_ *token, err error) {
	l, err := connect(place)
	if err != nil {
		return nil, err
	}
	t := &token{link: l, name: place.Name, readAlone: l.conf.ReadAlone}
	undo := []func() error{l.Close}
	defer func() {
		for i := len(undo) - 1; err != nil && i >= 0; i-- {
			_ = undo[i]() // the first error says why
		}
	}()
	// What is loaded after the machine has joined is what others count on that it has.
	joining, cancel := context.WithTimeout(ctx, usualTimes().change)
	defer cancel()
	if t.host, err = lease.Join(joining, lease.Config{Client: l.client.Client, Prefix: l.conf.Prefix, Key: l.key, Name: l.conf.Host, TTL: l.conf.Lease, Log: place.Log, Trouble: l.conf.Trouble}); err != nil {
		return nil, l.explain(ctx, err)
	}
	undo = append(undo, t.host.Close)
	t.Crypto = swtok.NewCrypto(p, place.Rand)
	cfg := l.config(place, iterations)
	cfg.Contact = t.host
	if t.Store, err = Open(ctx, cfg); err != nil {
		return nil, err
	}
	undo = append(undo, t.Store.Close)
	// A lease that was over before all was loaded is taken anew.
	for t.host.Alive() != nil && joining.Err() == nil {
		time.Sleep(10 * time.Millisecond)
	}
	return t, keep(l.path, place)
}

// configOf is the path of the file that says which fleet a place's token is of: that which
// confname of its slot names, or which a user's own token was made with.
func configOf(place tokens.Place) (string, error) {
	if place.Config != "" {
		text, err := cardway.ReadFile(place.Config)
		if err != nil {
			return "", err
		}
		if path, ok := named(text); ok {
			return filepath.Abs(path)
		}
		return place.Config, nil
	}
	f, err := locks.OpenOwn(place.Dir, ownConfig)
	if err != nil {
		return "", p11.Advise(p11.Errorf(p11.CKR_TOKEN_NOT_PRESENT, "nothing says which fleet has the token: %w", err), "make it with p11fs init fleet --fleet FILE, or name its file with confname")
	}
	_ = f.Close()
	text, err := cardway.ReadFile(filepath.Join(place.Dir, ownConfig))
	if err != nil {
		return "", err
	}
	path, ok := named(text)
	if !ok {
		return "", p11.Advise(p11.Errorf(p11.CKR_TOKEN_NOT_PRESENT, "%s names no file", filepath.Join(place.Dir, ownConfig)), "write fleet = FILE there, with the path of the fleet's configuration")
	}
	return path, nil
}

// named is the path behind the setting, if that is what a file has.
func named(text string) (string, bool) {
	words, err := cardway.Words(text, "=")
	if err != nil || len(words) != 3 || words[0].Text != setting || !words[1].Is("=") {
		return "", false
	}
	return words[2].Text, true
}

// keep has a user's own token that is made find its configuration again.
func keep(path string, place tokens.Place) error {
	own := filepath.Join(place.Dir, ownConfig)
	if _, err := os.Lstat(own); err == nil || !place.Create || place.Config == "" || place.Config == path {
		return nil
	}
	if err := os.WriteFile(own, []byte(setting+" = \""+path+"\"\n"), 0o600); err != nil {
		return p11.Errorf(p11.CKR_FUNCTION_FAILED, "the token's own configuration: %w", err)
	}
	return nil
}

// check is tokens.Kind's.
func check(place tokens.Place) (wrong, mend string) {
	path, err := configOf(place)
	if err == nil {
		var c conf.Config
		if c, err = conf.Read(path); err == nil {
			err = c.Check(time.Now())
		}
	}
	if err == nil {
		return "", ""
	}
	return err.Error(), p11.AdviceOf(err)
}
