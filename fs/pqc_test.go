package fs

import (
	"encoding/hex"
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

// openCryptoki's encapsulation is a derivation, whose ciphertext comes behind the name of the
// key. With ECDH the names and values that the file's name has not are written.
func TestIBMKEM(t *testing.T) {
	w := newWorld(t, hooks.Options{Also: []p11.MechanismType{
		p11.CKM_IBM_ML_KEM_KEY_PAIR_GEN, p11.CKM_IBM_ML_KEM, p11.CKM_IBM_ML_KEM_WITH_ECDH, p11.CKM_IBM_ML_DSA_KEY_PAIR_GEN, p11.CKM_IBM_ML_DSA,
	}})
	p := w.person(1000, 100)
	p.must(p.echo(userPIN, "tok/login"))
	for _, line := range []string{"ibm-ml-kem-key-pair-gen ibm-parameter-set=ml-kem-512 label=box", "ibm-ml-dsa-key-pair-gen ibm-parameter-set=ml-dsa-44 label=lattice", "ec:p256 label=ours derive=true", "ec:p256 label=theirs derive=true"} {
		p.must(p.echo(line, "tok/generate"))
	}
	p.reads("tok/objects/box.key/attr/ibm-parameter-set", "ml-kem-512\n")
	p.must(p.print("a message", "tok/objects/lattice.key/sign"))
	sig, errno := p.cat("tok/objects/lattice.key/sign")
	p.must(errno)
	p.must(p.print(sig+"a message", "tok/objects/lattice.pub/verify"))
	p.reads("tok/objects/lattice.pub/verify", "ok\n")

	ours, errno := p.cat("tok/objects/ours.pub/public.pem")
	p.must(errno)
	theirs, errno := p.cat("tok/objects/theirs.pub/public.pem")
	p.must(errno)
	const open = ",value-len=32,key-type=generic-secret,sensitive=false,extractable=true"
	for _, test := range []struct{ name, spec, sent, back string }{
		{"alone", "ibm-ml-kem", "\n", ""},
		{"hashed", "ibm-ml-kem,kdf=sha256-kdf,shared=0x01", "\n", ""},
		{"ecdh", "ibm-ml-kem-with-ecdh,kdf=sha256-kdf", "ours.key\n" + theirs, "theirs.key\n" + ours},
	} {
		file := "tok/objects/box.pub/derive:" + test.spec + ",label=" + test.name + open
		p.must(p.print(test.sent, file))
		both, errno := p.cat(file)
		p.must(errno)
		name, out, _ := strings.Cut(both, "\n0x")
		ciphertext, err := hex.DecodeString(strings.TrimSpace(out))
		if err != nil || len(ciphertext) != 768 || name != test.name+".sec" {
			t.Fatalf("%s: %q, %v", test.name, both, err)
		}
		file = "tok/objects/box.key/derive:" + test.spec + ",mode=decapsulate,label=again-" + test.name + open
		p.must(p.print(test.back+string(ciphertext), file))
		p.reads(file, "again-"+test.name+".sec\n")
		value, errno := p.cat("tok/objects/" + test.name + ".sec/value")
		p.must(errno)
		p.reads("tok/objects/again-"+test.name+".sec/value", value)
	}
	for _, test := range []struct {
		file, data string
		want       syscall.Errno
	}{
		{"box.key/derive:ibm-ml-kem,label=x", "\n", syscall.EINVAL},
		{"box.key/derive:ibm-ml-kem,mode=decapsulate,label=x", "short", syscall.EINVAL},
		{"box.pub/derive:ibm-ml-kem-with-ecdh,label=x", "nobody.key\n" + theirs, syscall.ENOENT},
		{"box.pub/derive:ibm-ml-kem-with-ecdh,label=x", "ours.key\n", syscall.EINVAL},
		{"box.key/derive:ibm-ml-kem-with-ecdh,mode=decapsulate,label=x", "ours.key\n" + theirs, syscall.EINVAL},
		{"ours.pub/derive:ibm-ml-kem,label=x", "\n", syscall.EPERM},
	} {
		got := p.print(test.data, "tok/objects/"+test.file)
		if got == 0 {
			_, got = p.cat("tok/objects/" + test.file)
		}
		wantErrno(t, test.file+" with "+test.data, got, test.want)
	}
}
