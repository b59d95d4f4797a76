package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"p11fs/secret"
)

// errAgentKeys refuses what would change which keys there are.
var errAgentKeys = errors.New("the keys of this agent are those of the tokens: p11fs login shows them, and p11fs logout hides them")

// maxClients is how many programs are served at once.
const maxClients = 64

// An sshAgent serves the keys of the tree to ssh and its kin (the protocol of
// draft-ietf-sshm-ssh-agent). Which keys there are it looks up at each request: so it shows
// what a login shows, and no more after the logout.
type sshAgent struct {
	t            tree
	tokens       []string // or all
	keys         []string // as KEY of a command; or all of tokens
	certificates []*ssh.Certificate
	confirm      func(what string) error // or nil
	log          io.Writer

	mu     sync.Mutex
	locked *secret.Bytes // the pass phrase of ssh-add -x, or nil
}

// An agentKey is a key that the agent has.
type agentKey struct {
	*signer
	public ssh.PublicKey // or a certificate over it
}

// all returns the keys that may be seen now, each behind its certificates, and those whose last
// day has come, such as keys that were replaced, behind all others. Of copies there is one.
func (a *sshAgent) all() (keys []agentKey, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.locked != nil {
		return nil, nil
	}
	var old []agentKey // which servers that count tries are not to see first
	today := time.Now().Format(time.DateOnly)
	err = a.each(func(at tree, key string) {
		to := &keys
		if at.retired(key, today) {
			to = &old
		}
		s, err := newSigner(at, key)
		if err != nil {
			return // no key of ssh's
		}
		public, err := ssh.NewPublicKey(s.public)
		if err != nil {
			return
		}
		for _, c := range a.certificates {
			if slices.Equal(c.Key.Marshal(), public.Marshal()) {
				*to = append(*to, agentKey{s, c})
			}
		}
		*to = append(*to, agentKey{s, public})
	})
	keys = append(keys, old...)
	seen := map[string]bool{}
	return slices.DeleteFunc(keys, func(k agentKey) bool {
		blob := string(k.public.Marshal())
		was := seen[blob]
		seen[blob] = true
		return was
	}), err
}

// each calls f with each private key that signs.
func (a *sshAgent) each(f func(at tree, key string)) error {
	for _, name := range a.keys {
		at, key, err := findKey(a.t.dir, name, []string{".key"})
		if err != nil {
			return err
		}
		f(at, key)
	}
	if a.keys != nil {
		return nil
	}
	tokens := a.tokens
	if tokens == nil {
		tokens = a.t.tokens()
	}
	// Those that are public anybody may have made: by many of them a server would come to no
	// other key.
	for _, private := range []string{"true", "false"} {
		for _, token := range tokens {
			found, err := a.t.ask("list the keys of "+token, token, "find", []byte("class=private-key sign=true private="+private+"\n"))
			if err != nil && a.tokens == nil {
				continue // a slot without a token
			}
			if err != nil {
				return err
			}
			for name := range strings.Lines(found) {
				f(tree{filepath.Join(a.t.dir, token)}, filepath.Join("objects", strings.TrimSpace(name)))
			}
		}
	}
	return nil
}

// List lists the keys, with their names as comments.
func (a *sshAgent) List() ([]*agent.Key, error) {
	keys, err := a.all()
	if err != nil {
		return nil, a.told(err)
	}
	list := make([]*agent.Key, len(keys))
	for i, k := range keys {
		list[i] = &agent.Key{Format: k.public.Type(), Blob: k.public.Marshal(), Comment: k.name}
	}
	return list, nil
}

// Sign signs with SHA-1 if the key is RSA: programs that know better say so.
func (a *sshAgent) Sign(key ssh.PublicKey, data []byte) (*ssh.Signature, error) {
	return a.SignWithFlags(key, data, 0)
}

// SignWithFlags signs, for RSA with the hash that flags ask for.
func (a *sshAgent) SignWithFlags(key ssh.PublicKey, data []byte, flags agent.SignatureFlags) (*ssh.Signature, error) {
	keys, err := a.all()
	if err != nil {
		return nil, a.told(err)
	}
	at := slices.IndexFunc(keys, func(k agentKey) bool { return slices.Equal(k.public.Marshal(), key.Marshal()) })
	if at < 0 {
		return nil, a.told(fmt.Errorf("there is no key %s that may be seen: p11fs login shows those that are private", ssh.FingerprintSHA256(key)))
	}
	k := keys[at]
	if a.confirm != nil {
		if err := a.confirm(k.name + " (" + ssh.FingerprintSHA256(key) + ")"); err != nil {
			return nil, a.told(fmt.Errorf("the use of %s was not allowed: %w", k.name, err))
		}
	}
	signature, err := k.sshSign(data, flags)
	return signature, a.told(err)
}

// sshSign makes a signature of ssh's (RFC 4253 §6.6, RFC 8332, RFC 5656 §3.1.2, RFC 8709).
func (k agentKey) sshSign(data []byte, flags agent.SignatureFlags) (*ssh.Signature, error) {
	hash, format := crypto.Hash(0), ssh.KeyAlgoED25519
	switch public := k.signer.public.(type) {
	case *rsa.PublicKey:
		switch {
		case flags&agent.SignatureFlagRsaSha512 != 0:
			hash, format = crypto.SHA512, ssh.KeyAlgoRSASHA512
		case flags&agent.SignatureFlagRsaSha256 != 0:
			hash, format = crypto.SHA256, ssh.KeyAlgoRSASHA256
		default:
			hash, format = crypto.SHA1, ssh.KeyAlgoRSA
		}
	case *ecdsa.PublicKey:
		switch public.Curve.Params().BitSize {
		case 256:
			hash, format = crypto.SHA256, ssh.KeyAlgoECDSA256
		case 384:
			hash, format = crypto.SHA384, ssh.KeyAlgoECDSA384
		default:
			hash, format = crypto.SHA512, ssh.KeyAlgoECDSA521
		}
	}
	blob, err := k.SignMessage(nil, data, hash)
	if err != nil {
		return nil, err
	}
	if _, ec := k.signer.public.(*ecdsa.PublicKey); ec {
		var rs struct{ R, S *big.Int }
		if _, err := asn1.Unmarshal(blob, &rs); err != nil {
			return nil, fmt.Errorf("%s: its signature: %w", k.name, err)
		}
		blob = ssh.Marshal(rs)
	}
	return &ssh.Signature{Format: format, Blob: blob}, nil
}

// told prints an error, of which a client learns only that there is one.
func (a *sshAgent) told(err error) error {
	if err != nil {
		fmt.Fprintf(a.log, "p11fs agent: %s\n", printableLine(err.Error()))
	}
	return err
}

// Signers returns nothing that could be used without the agent.
func (a *sshAgent) Signers() ([]ssh.Signer, error) { return nil, errAgentKeys }

// Add refuses keys and what holds them, such as modules.
func (a *sshAgent) Add(agent.AddedKey) error { return a.told(errAgentKeys) }

// Remove refuses, as Add does.
func (a *sshAgent) Remove(ssh.PublicKey) error { return a.told(errAgentKeys) }

// RemoveAll refuses, as Add does.
func (a *sshAgent) RemoveAll() error { return a.told(errAgentKeys) }

// Lock hides all keys until Unlock comes with the same pass phrase.
func (a *sshAgent) Lock(phrase []byte) (err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.locked != nil {
		return a.told(errors.New("the agent is locked already: ssh-add -X unlocks it"))
	}
	a.locked, err = secret.New(phrase)
	return a.told(err)
}

// Unlock undoes Lock.
func (a *sshAgent) Unlock(phrase []byte) error {
	given, err := secret.New(phrase)
	if err != nil {
		return a.told(err)
	}
	defer given.Close()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.locked == nil || !a.locked.Equal(given) {
		return a.told(errors.New("the agent is not locked with that pass phrase: try another"))
	}
	locked := a.locked
	a.locked = nil
	return locked.Close()
}

// Extension knows none.
func (a *sshAgent) Extension(string, []byte) ([]byte, error) {
	return nil, agent.ErrExtensionUnsupported
}

// serve answers who connects, each request in turn, until ctx is done.
func (a *sshAgent) serve(ctx context.Context, l *net.UnixListener) error {
	var clients sync.WaitGroup
	defer clients.Wait()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	all := newAgentClients()
	for {
		c, err := l.AcceptUnix()
		if ctx.Err() != nil {
			return nil //nolint:nilerr // closed on purpose
		}
		if err != nil {
			return err
		}
		if uid := peerUID(c); uid != os.Getuid() && uid != 0 {
			_ = a.told(fmt.Errorf("uid %d was refused: the agent is for its own user", uid))
			c.Close()
			continue
		}
		client := all.admit(ctx, c)
		if client == nil { // ctx is done
			c.Close()
			return nil
		}
		clients.Go(func() {
			defer all.leave(client)
			defer context.AfterFunc(ctx, func() { c.Close() })()
			_ = agent.ServeAgent(a, client) // which ends with an error always, io.EOF mostly
		})
	}
}

// An agentClient is a program that is served.
type agentClient struct {
	*net.UnixConn
	of   *agentClients
	idle atomic.Int64 // since when it is to send or to take something, in nanoseconds; 0: it is the agent's turn
}

func (c *agentClient) Read(b []byte) (int, error)  { return c.turn(c.UnixConn.Read, b) }
func (c *agentClient) Write(b []byte) (int, error) { return c.turn(c.UnixConn.Write, b) }

func (c *agentClient) turn(do func([]byte) (int, error), b []byte) (int, error) {
	c.idle.Store(time.Now().UnixNano())
	defer c.idle.Store(0)
	c.of.mayHaveRoom()
	return do(b)
}

// agentClients are those that are served, maxClients at most.
type agentClients struct {
	room chan struct{} // gets something when one has become idle or has left

	mu   sync.Mutex // guards list
	list map[*agentClient]struct{}
}

func newAgentClients() *agentClients {
	return &agentClients{list: map[*agentClient]struct{}{}, room: make(chan struct{}, 1)}
}

func (a *agentClients) mayHaveRoom() {
	select {
	case a.room <- struct{}{}:
	default:
	}
}

// admit has a program served as well. Where there are too many, the one that has been idle for
// longest is closed: programs that connect and then do nothing keep nobody out. While all
// have the agent work, or ask its user, the newest waits; nil when ctx ends before.
func (a *agentClients) admit(ctx context.Context, c *net.UnixConn) *agentClient {
	for ctx.Err() == nil {
		a.mu.Lock()
		if len(a.list) < maxClients {
			client := &agentClient{UnixConn: c, of: a}
			client.idle.Store(time.Now().UnixNano()) // it is its turn, also before it is first read from
			a.list[client] = struct{}{}
			a.mu.Unlock()
			return client
		}
		var idlest *agentClient
		var since int64
		for client := range a.list {
			if at := client.idle.Load(); at != 0 && (idlest == nil || at < since) {
				idlest, since = client, at
			}
		}
		if idlest != nil {
			delete(a.list, idlest)
			idlest.Close()
		}
		a.mu.Unlock()
		if idlest == nil {
			select {
			case <-a.room:
			case <-ctx.Done():
			}
		}
	}
	return nil
}

// leave ends a program's connection.
func (a *agentClients) leave(client *agentClient) {
	client.Close()
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.list, client)
	a.mayHaveRoom()
}

// askpass asks the user by the program that ssh-agent would ask by (ssh-agent(1)).
func askpass(ctx context.Context) func(what string) error {
	program := os.Getenv("SSH_ASKPASS")
	if program == "" {
		program = "ssh-askpass"
	}
	var one sync.Mutex // question at a time
	return func(what string) error {
		one.Lock()
		defer one.Unlock()
		c := exec.CommandContext(ctx, program, "Allow use of key "+printableLine(what)+"?")
		c.Env = append(os.Environ(), "SSH_ASKPASS_PROMPT=confirm")
		out, err := c.Output()
		if answer := strings.ToLower(strings.TrimSpace(string(out))); err == nil && answer != "" && answer != "yes" {
			return errors.New("the answer was no")
		}
		return err
	}
}
