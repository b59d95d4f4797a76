package fs

import (
	"strings"
	"syscall"
	"testing"

	"p11fs/p11"
	"p11fs/tokens/tokentest/hooks"
)

// Keys of the post-quantum schemes are made by their parameter set, sign, and agree on
// secrets.
func TestPostQuantumKeys(t *testing.T) {
	w := newWorld(t, hooks.Options{Also: []p11.MechanismType{
		p11.CKM_ML_DSA_KEY_PAIR_GEN, p11.CKM_ML_DSA, p11.CKM_HASH_ML_DSA_SHA512, p11.CKM_SLH_DSA_KEY_PAIR_GEN, p11.CKM_SLH_DSA,
		p11.CKM_ML_KEM_KEY_PAIR_GEN, p11.CKM_ML_KEM,
	}})
	p := w.person(1000, 100)
	p.must(p.echo(userPIN, "tok/login"))
	for _, line := range []string{"ml-dsa-65 label=lattice", "slh-dsa-sha2-128f label=hashes", "ml-kem-768 label=box"} {
		p.must(p.echo(line, "tok/generate"))
	}
	p.reads("tok/objects/lattice.pub/attr/parameter-set", "ml-dsa-65\n")
	p.reads("tok/objects/hashes.key/attr/parameter-set", "slh-dsa-sha2-128f\n")
	if info, _ := p.cat("tok/objects/box.key/info"); !strings.Contains(info, "parameter-set=ml-kem-768\n") {
		t.Errorf("info says %s", info)
	}
	if _, errno := p.cat("tok/objects/box.key/attr/seed"); errno != syscall.EPERM {
		t.Errorf("the seed of a sensitive key: %v", errno)
	}
	for _, name := range []string{"lattice", "hashes"} {
		for _, how := range []string{"", ":" + map[string]string{"lattice": "hash-ml-dsa-sha512", "hashes": "slh-dsa"}[name] + ",hedge=deterministic-required,context=0x0102"} {
			p.must(p.print("a message", "tok/objects/"+name+".key/sign"+how))
			sig, errno := p.cat("tok/objects/" + name + ".key/sign" + how)
			p.must(errno)
			p.must(p.print(sig+"a message", "tok/objects/"+name+".pub/verify"+how))
			p.reads("tok/objects/"+name+".pub/verify"+how, "ok\n")
			wantErrno(t, "verifying another message", p.print(sig+"b message", "tok/objects/"+name+".pub/verify"+how), syscall.EBADMSG)
		}
	}

	const open = ",sensitive=false,extractable=true"
	for _, how := range []string{"", ":ml-kem"} {
		label := "shared" + strings.TrimPrefix(how, ":")
		p.must(p.echo("label="+label+strings.ReplaceAll(open, ",", " "), "tok/objects/box.pub/encapsulate"+how))
		ciphertext, errno := p.cat("tok/objects/box.pub/encapsulate" + how)
		p.must(errno)
		if len(ciphertext) != 1088 {
			t.Errorf("a ciphertext of %d bytes", len(ciphertext))
		}
		spec := "tok/objects/box.key/decapsulate:ml-kem,label=again" + label + open
		p.must(p.print(ciphertext, spec))
		p.reads(spec, "again"+label+".sec\n")
		ours, errno := p.cat("tok/objects/" + label + ".sec/value")
		p.must(errno)
		p.reads("tok/objects/again"+label+".sec/value", ours)
		if len(ours) != 32 {
			t.Errorf("a secret of %d bytes", len(ours))
		}
	}
	// The bare name will do, too.
	p.must(p.echo("label=plain", "tok/objects/box.pub/encapsulate"))
	ciphertext, errno := p.cat("tok/objects/box.pub/encapsulate")
	p.must(errno)
	p.must(p.print(ciphertext, "tok/objects/box.key/decapsulate"))
	made, errno := p.cat("tok/objects/box.key/decapsulate")
	p.must(errno)
	p.reads("tok/objects/"+strings.TrimSpace(made)+"/attr/key-type", "aes\n")

	for _, test := range []struct {
		file, data string
		want       syscall.Errno
	}{
		{"box.pub/encapsulate", "colour=red", syscall.EINVAL},
		{"box.pub/encapsulate", "label=plain", syscall.EEXIST},
		{"box.pub/encapsulate:ml-dsa", "label=x", syscall.ENOTSUP},
		{"box.key/decapsulate", "no ciphertext", syscall.EINVAL},
		{"lattice.pub/encapsulate:ml-kem", "label=x", syscall.EPERM},
		{"box.key/encapsulate:ml-kem", "label=x", syscall.EPERM},
	} {
		if errno := p.print(test.data, "tok/objects/"+test.file); errno != test.want {
			t.Errorf("%q to %s: %v, want %v", test.data, test.file, errno, test.want)
		}
	}
}
