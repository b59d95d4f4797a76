// Command icsftest serves ICSF's PKCS#11 services over LDAP from memory, to try the icsf token
// without a mainframe:
//
//	go run -trimpath ./tokens/icsf/icsftest -addr 127.0.0.1:3389
//
// It prints a line with what a client binds with, and ends with the signal it gets. What is in
// its tokens is not protected, and gone when it ends.
package main

import (
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"p11fs/tokens/icsf/icsftest/icsfserver"
)

func main() {
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(os.Stderr, "icsftest: %v\n", err)
		os.Exit(1)
	}
}

func run(args []string, out, logs io.Writer) error {
	f := flag.NewFlagSet("icsftest", flag.ContinueOnError)
	f.SetOutput(logs)
	addr := f.String("addr", "127.0.0.1:3389", "where to listen")
	dn := f.String("dn", "racfid=USER1,profiletype=user,cn=RACF", "the name that a client binds with")
	password := f.String("password", "RACFPASS", "its password, which is no secret")
	names := f.String("tokens", "TESTTOKEN,OTHERTOKEN,READONLY", "the tokens that there are")
	cert := f.String("cert", "", "the server's certificate, in PEM: have TLS")
	key := f.String("key", "", "its key")
	ca := f.String("ca", "", "who signs the certificates of clients (SASL EXTERNAL)")
	quiet := f.Bool("quiet", false, "say nothing of what is called")
	if err := f.Parse(args); err != nil {
		return err
	}
	if *quiet {
		logs = io.Discard
	}
	l, err := net.Listen("tcp", *addr)
	if err != nil {
		return err
	}
	defer l.Close()
	scheme := "ldap"
	if *cert != "" {
		conf, err := icsfserver.TLS(*cert, *key, *ca)
		if err != nil {
			return err
		}
		l, scheme = tls.NewListener(l, conf), "ldaps"
	}
	s := icsfserver.New(icsfserver.Config{
		DN: *dn, Password: *password, Tokens: strings.Split(*names, ","), Log: slog.New(slog.NewTextHandler(logs, nil)),
	})
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-ended
		_ = l.Close()
	}()
	fmt.Fprintf(out, "serving %s://%s, binddn %s, password %s\n", scheme, l.Addr(), *dn, *password)
	err = s.Serve(l)
	s.Close()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	return err
}
