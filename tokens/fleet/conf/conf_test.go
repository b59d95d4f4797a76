package conf_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"p11fs/p11"
	"p11fs/tokens/fleet/conf"
	"p11fs/tokens/fleet/etcdtest"
)

const good = `# a token of two machines
endpoint = https://etcd1.example.org:2379
endpoint = "https://[::1]:2379"  # the other
prefix = /p11fs/web/
ca = /etc/p11fs/ca.pem
cert = "/etc/p11fs/of this machine.pem"
key = /etc/p11fs/web1.key
sealkey = credential:fleet.key
`

func TestParse(t *testing.T) {
	c, err := conf.Parse(good)
	if err != nil {
		t.Fatal(err)
	}
	want := conf.Config{
		Endpoints: []string{"https://etcd1.example.org:2379", "https://[::1]:2379"}, Prefix: "/p11fs/web/",
		CA: "/etc/p11fs/ca.pem", Cert: "/etc/p11fs/of this machine.pem", Key: "/etc/p11fs/web1.key", SealKey: "credential:fleet.key", Lease: 10 * time.Second,
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("%+v\nwant %+v", c, want)
	}
	c, err = conf.Parse(good + "host = web1\nlease=1m\nreadalone = yes\n")
	if err != nil || c.Host != "web1" || c.Lease != time.Minute || !c.ReadAlone {
		t.Errorf("%+v, %v", c, err)
	}
}

// TestWrong is that each mistake is told with its line, and what to write.
func TestWrong(t *testing.T) {
	for _, c := range []struct{ add, want string }{
		{"endpoint = http://a:2379", "line 9: an endpoint is https://HOST:PORT"},
		{"endpoint = https://a", "an endpoint is"},
		{"endpoint = https://a:2379/x", "an endpoint is"},
		{"endpoint = https://user@a:2379", "an endpoint is"},
		{strings.Repeat("endpoint = https://a:1\n", 15), "more than 16"},
		{"prefix = /other/", "twice"},
		{"lease = 500ms", "a lease is whole seconds from 2s"},
		{"lease = 2500ms", "a lease is whole seconds"},
		{"lease = ten", "a lease is"},
		{"readalone = perhaps", "yes or no"},
		{"host = " + strings.Repeat("x", 65), "at most 64"},
		{"password = x", "is no name of a line: endpoint"},
		{"host web1", "wants ="},
		{"host =", "wants ="},
		{"host =\nweb1", "wants ="},
		{"= x", "is no name"},
		{`"host" = x`, "is no name"},
		{"host = a b", "is too much"},
		{`host = "a`, "does not end"},
		{`host = ""`, "wants 1 to"},
		{"host = a\x01b", "can be printed"},
	} {
		_, err := conf.Parse(good + c.add + "\n")
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.add, err, c.want)
		} else if p11.AdviceOf(err) == "" {
			t.Errorf("%q: nothing is said of what to do", c.add)
		}
	}
	for line := range strings.Lines(good) {
		name, _, ok := strings.Cut(line, " =")
		if !ok || name == "endpoint" {
			continue
		}
		_, err := conf.Parse(strings.Replace(good, line, "", 1))
		if err == nil || !strings.Contains(err.Error(), name+" is missing") || !strings.Contains(p11.AdviceOf(err), name+" = ") {
			t.Errorf("without %s: %v", name, err)
		}
		for _, value := range []string{"relative", "credential:../x", "credential:"} {
			if _, err := conf.Parse(strings.Replace(good, line, name+" = "+value+"\n", 1)); err == nil {
				t.Errorf("%s = %s is taken", name, value)
			}
		}
	}
}

// TestRead resolves what the machine says.
func TestRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "web.conf")
	if err := os.WriteFile(path, []byte(good), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	if _, err := conf.Read(path); err == nil || !strings.Contains(p11.AdviceOf(err), "LoadCredential=fleet.key") {
		t.Errorf("without credentials: %v", err)
	}
	t.Setenv("CREDENTIALS_DIRECTORY", "/run/credentials/p11fs")
	c, err := conf.Read(path)
	if name, _ := os.Hostname(); err != nil || c.SealKey != "/run/credentials/p11fs/fleet.key" || c.Host != name {
		t.Errorf("%+v, %v", c, err)
	}
	if err := errors.Join(os.Chmod(filepath.Dir(path), 0o755), os.Chmod(path, 0o666)); err != nil { //nolint:gosec // what is tested
		t.Fatal(err)
	}
	if _, err := conf.Read(path); err == nil || !strings.Contains(err.Error(), "others may have written") {
		t.Errorf("one that everybody writes: %v", err)
	}
	if _, err := conf.Read(path + ".absent"); err == nil {
		t.Error("a file that is not there is read")
	}
}

// TestClientOfConf reaches a member, and says when a certificate has ended.
func TestClientOfConf(t *testing.T) {
	cluster := etcdtest.Start(t, 1)
	pair := cluster.Host(t).Pair()
	c := conf.Config{Endpoints: cluster.Endpoints(), CA: cluster.CA(), Cert: pair.Cert, Key: pair.Key, Lease: 10 * time.Second}
	cli, err := c.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer cli.Close()
	if _, err := cli.Put(t.Context(), "a", "b"); err != nil {
		t.Error(err)
	}
	old := cluster.Pair("old", time.Now().Add(-time.Minute))
	c.Cert, c.Key = old.Cert, old.Key
	if _, err := c.Client(); err == nil || !strings.Contains(err.Error(), "has ended at 2") || !strings.Contains(p11.AdviceOf(err), "sign another one") {
		t.Errorf("a certificate that has ended: %v", err)
	}
	if err := c.Check(time.Now().Add(-72 * time.Hour)); err == nil || p11.AdviceOf(err) != "set this machine's clock" {
		t.Errorf("a certificate that has not begun: %v", err)
	}
	c.Cert = pair.Cert
	if err := c.Check(time.Now()); err == nil || !strings.Contains(err.Error(), "are no certificate and its key") {
		t.Errorf("the key of another certificate: %v", err)
	}
	c.CA = pair.Key
	if err := c.Check(time.Now()); err == nil || !strings.Contains(err.Error(), "no certificate in it") {
		t.Errorf("a key in the place of the authority: %v", err)
	}
	c.CA = "/dev/zero"
	if err := c.Check(time.Now()); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("a file without end: %v", err)
	}
}

// TestTroubleEnds is that nobody waits for a member that says nothing of certificates any longer than he
// wants to.
func TestTroubleEnds(t *testing.T) {
	ca := etcdtest.NewAuthority(t, t.TempDir())
	pair := ca.Pair(t, "member", time.Now().Add(time.Hour), net.IPv4(127, 0, 0, 1))
	cert, err := tls.LoadX509KeyPair(pair.Cert, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		c := conf.Config{CA: ca.CA(), Cert: pair.Cert, Key: pair.Key}
		done <- c.TroubleOf(ctx, "https://"+l.Addr().String())
	}()
	conn, err := l.Accept()
	if err == nil {
		defer conn.Close()
		err = conn.(*tls.Conn).Handshake()
	}
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// print writes what Parse reads.
func print(c conf.Config) string {
	var b strings.Builder
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%s = \"%s\"\n", name, value)
		}
	}
	for _, e := range c.Endpoints {
		line("endpoint", e)
	}
	line("prefix", c.Prefix)
	line("ca", c.CA)
	line("cert", c.Cert)
	line("key", c.Key)
	line("sealkey", c.SealKey)
	line("host", c.Host)
	line("lease", c.Lease.String())
	line("readalone", map[bool]string{true: "yes", false: "no"}[c.ReadAlone])
	return b.String()
}

// FuzzParse is that what parses prints, and parses to the same.
func FuzzParse(f *testing.F) {
	f.Add(good)
	f.Add(good + "host = web1\nlease=1m\nreadalone = yes\n")
	f.Add("endpoint = \"")
	f.Add("#p11fs: prefix = /x/")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := conf.Parse(text)
		if err != nil {
			if p11.AdviceOf(err) == "" {
				t.Errorf("%v: nothing is said of what to do", err)
			}
			return
		}
		again, err := conf.Parse(print(c))
		if err != nil || !reflect.DeepEqual(again, c) {
			t.Errorf("%+v\nprints\n%s\nwhich is\n%+v, %v", c, print(c), again, err)
		}
	})
}
