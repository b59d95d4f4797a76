package mountd

import (
	"errors"
	"fmt"
	"path/filepath"
)

// Mode says whose daemon it is.
type Mode int

// The modes.
const (
	User   Mode = iota // one user's: XDG directories, no door for the stock library
	System             // the machine's, as pkcsslotd is
)

// String is "user" or "system".
func (m Mode) String() string {
	if m == System {
		return "system"
	}
	return "user"
}

// Group owns what stock openCryptoki processes share with a system daemon, and
// its members may use the mount.
const Group = "pkcs11"

// configName is the name of the slot configuration in its directory.
const configName = "opencryptoki.conf"

// The names of the files of a policy, likewise.
const (
	policyName   = "policy.conf"
	strengthName = "strength.conf"
)

// grantsName is the name of the directory of grants.
const grantsName = "grants.d"

// Paths is where a daemon finds and puts things.
type Paths struct {
	Config string // opencryptoki.conf; in user mode it may be absent
	// What may be used, and how strong it is; without the first there is no policy.
	Policy, Strength string
	Grants           string // directory of who may use what without a login; may be absent
	Data             string // one directory a token
	Locks            string // lock files of the tokens, as stock processes use them
	Guard            string // file locked for as long as a daemon serves Data
	Mount            string // where the tree is mounted unless told otherwise
	RPC              string // socket for PKCS#11 programs; empty for none
	// The door for openCryptoki's own library, which only a system daemon has.
	SlotDaemon   string // the file that names the System V segment
	SlotSocket   string
	SlotConfig   string // what a stock slot daemon reads when it starts, whatever Config is
	PIDFile      string
	SharedMemory string // /dev/shm
	Trace        string // directory of the trace files
}

// SystemPaths returns the paths of a system daemon, all of them below root.
func SystemPaths(root string) Paths {
	if root == "" {
		root = "/"
	}
	locks := filepath.Join(root, "var/lock/opencryptoki")
	return Paths{
		Config:   filepath.Join(root, "etc/opencryptoki", configName),
		Policy:   filepath.Join(root, "etc/opencryptoki", policyName),
		Strength: filepath.Join(root, "etc/opencryptoki", strengthName),
		Grants:   filepath.Join(root, "etc/p11fs", grantsName),
		Data:     filepath.Join(root, "var/lib/opencryptoki"),
		Locks:    locks,
		Guard:    filepath.Join(locks, "LCK..p11fs"),
		Mount:    filepath.Join(root, "p11"),
		RPC:      filepath.Join(root, "run/p11fs", rpcSocketName),

		SlotDaemon:   filepath.Join(root, "usr/sbin/pkcsslotd"),
		SlotSocket:   filepath.Join(root, "var/run/pkcsslotd.socket"),
		SlotConfig:   filepath.Join(root, "etc/opencryptoki", configName),
		PIDFile:      filepath.Join(root, "var/run/pkcsslotd.pid"),
		SharedMemory: filepath.Join(root, "dev/shm"),
		Trace:        filepath.Join(root, "var/log/opencryptoki"),
	}
}

// UserPaths returns the paths of a user's daemon, by the XDG base directory
// rules: getenv is os.Getenv, and home the user's home directory. The locks are
// with the data, so that one store has one set of locks in every session,
// whether or not it has XDG_RUNTIME_DIR.
func UserPaths(getenv func(string) string, home string) (Paths, error) {
	dir := func(name, fallback string) (string, error) {
		// The rules say that a relative path is to be ignored.
		if v := getenv(name); filepath.IsAbs(v) {
			return v, nil
		}
		if !filepath.IsAbs(home) {
			return "", fmt.Errorf("neither %s nor a home directory is known: set HOME", name)
		}
		return filepath.Join(home, fallback), nil
	}
	data, errData := dir("XDG_DATA_HOME", ".local/share")
	config, errConfig := dir("XDG_CONFIG_HOME", ".config")
	mount, errMount := dir("XDG_RUNTIME_DIR", "")
	sockets, errSockets := mount, error(nil)
	if !filepath.IsAbs(getenv("XDG_RUNTIME_DIR")) {
		sockets, errSockets = dir("XDG_CACHE_HOME", ".cache")
	}
	if err := errors.Join(errData, errConfig, errMount, errSockets); err != nil {
		return Paths{}, err
	}
	data = filepath.Join(data, "p11fs")
	locks := filepath.Join(data, ".lock")
	return Paths{
		Config:   filepath.Join(config, "p11fs", configName),
		Policy:   filepath.Join(config, "p11fs", policyName),
		Strength: filepath.Join(config, "p11fs", strengthName),
		Grants:   filepath.Join(config, "p11fs", grantsName),
		Data:     data,
		Locks:    locks,
		Guard:    filepath.Join(locks, "LCK..p11fs"),
		Mount:    filepath.Join(mount, "p11"),
		RPC:      filepath.Join(sockets, "p11fs", rpcSocketName),
	}, nil
}
