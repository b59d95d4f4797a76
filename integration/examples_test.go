package integration

import (
	"strings"
	"testing"

	"p11fs/p11"
)

// TestMechanismExamples runs the example of every mechanism that p11fs mechanisms tells, in
// a shell over the mount.
func TestMechanismExamples(t *testing.T) {
	t.Parallel()
	needTools(t, "openssl")
	d, term := ready(t, daemonConfig{})
	examples := map[string]string{} // by mechanism
	var order []string
	for _, line := range lines(term.ok("cut -d' ' -f1 $T/mechanisms | while read m; do echo \"$m $(" + binary() + " mechanisms $m | sed -n 's/^example *//p')\"; done")) {
		name, text, _ := strings.Cut(line, " ")
		examples[name] = text
		order = append(order, name)
	}
	typeOf := func(name string) p11.KeyType {
		mech, err := p11.ParseMechanismType(name)
		if err != nil {
			t.Fatal(err)
		}
		if facts, _ := p11.MechanismFacts(mech); len(facts.KeyTypes) > 0 {
			return facts.KeyTypes[0]
		}
		return p11.CKK_GENERIC_SECRET
	}
	maker := map[p11.KeyType]string{} // by key type, an example that makes such a key
	users := map[p11.KeyType][]string{}
	var types []p11.KeyType
	for _, name := range order {
		kt := typeOf(name)
		if strings.HasPrefix(examples[name], "echo '") {
			if maker[kt] == "" && name != "pkcs5-pbkd2" && !strings.Contains(name, "pre-master") {
				if maker[kt] = examples[name]; kt == p11.CKK_GENERIC_SECRET { // TLS wants 48 bytes
					maker[kt] = strings.Replace(maker[kt], "value-len=32", "value-len=48", 1)
				}
				types = append(types, kt)
			}
			continue
		}
		users[kt] = append(users[kt], name)
	}
	term.ok("printf 0123456789abcdef > msg; printf sig > sig; echo 'aes:256 label=OTHER extractable=true derive=true' > $T/generate; echo 'ec:p256 label=EC derive=true' > $T/generate")
	for _, kt := range types {
		made := strings.Replace(maker[kt], "label=K", "label=K encrypt=true decrypt=true sign=true verify=true wrap=true unwrap=true derive=true", 1)
		if strings.Contains(made, "…") {
			if kt != p11.CKK_DH && kt != p11.CKK_DSA && kt != p11.CKK_X9_42_DH { // whose primes fill a page
				t.Errorf("%s says nothing", made)
			}
			continue
		}
		if r := term.run(made); r.status != 0 {
			t.Errorf("%s: %s%s", made, r.err, term.run("cat $T/error").out)
			continue
		}
		switch kt {
		case p11.CKK_EC, p11.CKK_EC_MONTGOMERY, p11.CKK_DH:
			term.ok("cat $O/K.pub/public.pem > peer.pem")
		case p11.CKK_IBM_ML_KEM:
			term.ok("cat $O/EC.pub/public.pem > peer.pem")
		}
		for _, name := range users[kt] {
			if r := term.run("(" + examples[name] + ") > out"); r.status != 0 {
				t.Errorf("%s: %s: %s%s", name, examples[name], r.err, term.run("cat $T/error").out)
			}
			term.run("rmdir $O/new.* 2>/dev/null")
		}
		term.ok("rmdir $O/K.*")
	}
	for kt, names := range users {
		if maker[kt] == "" && len(names) > 0 && !strings.HasPrefix(examples[names[0]], "F=$T/digest/") {
			t.Errorf("nothing makes keys of type %s for %v", kt, names)
		}
	}
	d.stop()
}
