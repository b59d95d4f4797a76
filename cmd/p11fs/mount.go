package main

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"p11fs/mountd"
	"p11fs/tokens"
)

func newMount(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "mount [MOUNTPOINT]",
		Short: "Mount the tokens and serve them, in the foreground",
		Long: `Mount the tokens and serve them until SIGTERM, SIGINT or p11fs umount.

By default it is your own daemon: each directory with an NVTOK.DAT in
$XDG_DATA_HOME/p11fs is a token, and in each empty one there a token is made as it starts;
without any, one called swtok is made. A second one is made while it serves, by p11fs token
new. It is mounted on MOUNTPOINT, or $XDG_RUNTIME_DIR/p11, or ~/p11, which is made if it
is absent. With --system it is the machine's: slots from
/etc/opencryptoki/opencryptoki.conf, tokens in /var/lib/opencryptoki, mounted on
/p11 for root and the group pkcs11.

With SIGHUP it reads the grants again (p11fs-grants(5)). A PIN that systemd gives as the
credential pin.TOKEN, or in a file with --hold, has it log in to that token itself.`,
		Args: takes(0, 1),
	}
	where := placeFlags(c)
	config := c.Flags().String("config", "", "read the slots from `FILE` instead of the usual opencryptoki.conf")
	allowOther := c.Flags().Bool("allow-other", false, "let other users reach your mount (needs user_allow_other in /etc/fuse.conf)")
	openToken := c.Flags().Bool("open-token", false, "let everybody in the mount make, change and destroy public token objects without a login")
	separate := c.Flags().Bool("separate-wrapping", false, "let no key both wrap or unwrap keys and encrypt or decrypt data")
	tokenSize := c.Flags().Int64("token-size", tokens.DefaultRoom>>20, "most `MIB` of object files that are loaded of a token, with 256 bytes more for each; a negative number is no bound")
	hold := c.Flags().StringToString("hold", nil, "log in to a token with the PIN in a file, `TOKEN=FILE`, for those who have grants for its keys")
	provider := c.Flags().String("provider", "auto", "cryptographic library: auto, go or libcrypto")
	level := c.Flags().String("log-level", "info", "least important messages to log: debug, info, warn or error")
	profiles := c.Flags().String("profile-socket", "", "give profiles of the daemon, for root and its user, over HTTP at a socket, `PATH`")
	greet := c.Flags().Bool("welcome", false, "print a first session to paste once the tokens are mounted")
	c.RunE = func(c *cobra.Command, args []string) error {
		log, err := newLogger(s, *level)
		if err != nil {
			return err
		}
		mode, paths, err := where()
		if err != nil {
			return err
		}
		conf := mountd.Config{
			Mode: mode, Paths: paths, AllowOther: *allowOther, OpenToken: *openToken, SeparateWrapping: *separate, TokenSize: *tokenSize << 20, Log: log,
			TraceLevel: os.Getenv(mountd.TraceVariable), Hold: *hold, ProfileSocket: *profiles, Credentials: os.Getenv(credentialsVariable),
		}
		if err := setKinds(&conf, *provider); err != nil {
			return err
		}
		if c.Flags().Changed("config") {
			conf.Paths.Config, conf.ConfigRequired = *config, true
		}
		if len(args) > 0 {
			conf.Paths.Mount = args[0]
		}
		if mode == mountd.System && !c.Flags().Changed("root") && os.Geteuid() != 0 {
			return &usageError{err: errors.New("only root serves the machine's tokens: leave --system out for your own")}
		}
		if err := conf.Check(); err != nil {
			return &usageError{err: err}
		}
		conf.Ready = func(r mountd.Ready) {
			fmt.Fprintf(s.err, "p11fs: ready: %s (tokens: %s)\n", r.Mount, strings.Join(r.Tokens, " "))
			if *greet {
				fmt.Fprint(s.out, welcome(r))
			}
		}
		// A terminal that closes, or a reader of the log that ends, must not
		// take the keys away from everyone else.
		signal.Ignore(syscall.SIGPIPE)
		conf.Reload = hangUps()
		if err := mountd.Harden(conf.Mode, log); err != nil {
			return err
		}
		conf.Processors = mountd.Processors()
		err = mountd.Run(c.Context(), conf)
		if err != nil && !errors.Is(err, mountd.ErrBusy) {
			err = fmt.Errorf("%w; p11fs doctor says what is in the way, and what mends it", err)
		}
		return err
	}
	return c
}

// credentialsVariable names the directory of what systemd gives to a service
// (systemd.exec(5), LoadCredential=).
const credentialsVariable = "CREDENTIALS_DIRECTORY"

// hangUps gives each SIGHUP, of those that come while one waits the last.
func hangUps() <-chan os.Signal {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGHUP)
	return c
}

// placeFlags adds --system and --root, and returns what they come to.
func placeFlags(c *cobra.Command) func() (mountd.Mode, mountd.Paths, error) {
	system := c.Flags().Bool("system", false, "the machine's tokens instead of your own")
	root := c.Flags().String("root", "", "put every system path below `DIR`; implies --system")
	return func() (mountd.Mode, mountd.Paths, error) {
		if !*system && !c.Flags().Changed("root") {
			home, _ := os.UserHomeDir()
			paths, err := mountd.UserPaths(os.Getenv, home)
			return mountd.User, paths, err
		}
		return mountd.System, mountd.SystemPaths(*root), nil
	}
}

func newLogger(s streams, level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, &usageError{err: fmt.Errorf("there is no log level %q: name debug, info, warn or error", level)}
	}
	return slog.New(slog.NewTextHandler(s.err, &slog.HandlerOptions{Level: l})), nil
}

// welcome is a first session to paste: with a token that is new, if there is one.
func welcome(r mountd.Ready) string {
	if len(r.Tokens) == 0 {
		return fmt.Sprintf("\n%s is mounted and has no token. Ctrl-C unmounts it.\n\n", r.Mount)
	}
	token := cmp.Or(r.Fresh, r.Tokens[0])
	self, err := os.Executable()
	if err != nil {
		self = "p11fs"
	}
	login := fmt.Sprintf("%s login %s", shellQuote(self), token)
	generate := "[ -e $T/objects/web.key ] || echo 'rsa:2048 label=web' > $T/generate"
	if r.Fresh != "" {
		login = fmt.Sprintf("printf '%%s\\n' 87654321 demo 1234abcd | %s init %s\n  echo 1234abcd > $T/login", shellQuote(self), token)
		generate = "echo 'rsa:2048 label=web' > $T/generate"
	}
	return fmt.Sprintf(`
Your tokens are mounted on %s. Ctrl-C unmounts them.
A first session, to paste into a second terminal:

  T=%s
  %s
  %s
  echo hello > msg
  cat msg > $T/objects/web.key/sign && cat $T/objects/web.key/sign > sig
  openssl dgst -sha256 -verify $T/objects/web.pub/public.pem -signature sig msg
  echo > $T/logout

`, r.Mount, shellQuote(filepath.Join(r.Mount, token)), login, generate)
}

// shellQuote makes one shell word of s.
func shellQuote(s string) string {
	if s != "" && strings.Trim(s, "/.-_=:,@0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
