package fs

import (
	"slices"
	"strings"
	"syscall"
	"testing"

	"p11fs/tokens/tokentest/hooks"
)

// Keys of Diffie-Hellman agree, those of DSA sign as openssl has it, and the group that
// is made for them is gone.
func TestGroupKeys(t *testing.T) {
	p := newWorld(t, hooks.Options{}).person(1000, 100)
	p.must(p.echo(userPIN, "tok/login"))
	for _, line := range []string{"dh:ffdhe2048 label=a", "dh group=ffdhe2048 label=b", "dsa:1024 label=old", "CKM_DSA_PARAMETER_GEN bits=1024 label=group"} {
		p.must(p.echo(line, "tok/generate"))
	}
	names := p.ls("tok/objects")
	slices.Sort(names)
	if want := []string{"a.key", "a.pub", "b.key", "b.pub", "group.dom", "old.key", "old.pub"}; !slices.Equal(names, want) {
		t.Fatalf("there are %q, not %q", names, want)
	}
	const template = ",class=secret-key,key-type=generic-secret,value-len=32,sensitive=false,extractable=true,label="
	for key, peer := range map[string]string{"a": "b", "b": "a"} {
		public, errno := p.cat("tok/objects/" + peer + ".pub/public.pem")
		p.must(errno)
		p.must(p.print(public, "tok/objects/"+key+".key/derive"+":dh-pkcs-derive"+template+"of-"+key))
	}
	of, errno := p.cat("tok/objects/of-a.sec/value")
	p.must(errno)
	p.reads("tok/objects/of-b.sec/value", of)
	if len(of) != 32 {
		t.Errorf("%d bytes were derived", len(of))
	}
	p.must(p.print("message", "tok/objects/old.key/sign"))
	sig, errno := p.cat("tok/objects/old.key/sign")
	p.must(errno)
	if !strings.HasPrefix(sig, "\x30") {
		t.Errorf("the signature is %x", sig)
	}
	p.must(p.print(sig+"message", "tok/objects/old.pub/verify"))
	p.reads("tok/objects/old.pub/verify", "ok\n")
	wantErrno(t, "another message", p.print(sig+"massage", "tok/objects/old.pub/verify"), syscall.EBADMSG)
}
