package grants

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"p11fs/p11"
)

func names() Names {
	known := map[string]uint32{"www": 33, "backup": 34}
	lookup := func(name string) (uint32, error) {
		if id, ok := known[name]; ok {
			return id, nil
		}
		return 0, errors.New("unknown")
	}
	return Names{User: lookup, Group: lookup, Tokens: []string{"swtok", "hsm"}}
}

func parse(t *testing.T, line string) *Grant {
	t.Helper()
	g, err := Parse(line, names())
	if err != nil || g == nil {
		t.Fatalf("%s: %v, %v", line, g, err)
	}
	return g
}

func TestParse(t *testing.T) {
	g := parse(t, `  user=www group=34 unit=nginx.service token=swtok label="web server # 1" id=0x01 functions=sign,decrypt mechanisms=ecdsa,CKM_RSA_PKCS # why`)
	if *g.UID != 33 || *g.GID != 34 || g.Unit != "nginx.service" || g.Token != "swtok" || string(g.Label) != "web server # 1" || string(g.ID) != "\x01" ||
		g.Functions != p11.CKF_SIGN|p11.CKF_DECRYPT || !slices.Equal(g.Mechanisms, []p11.MechanismType{p11.CKM_ECDSA, p11.CKM_RSA_PKCS}) || g.AlwaysAuthenticate {
		t.Errorf("%+v", g)
	}
	if again := parse(t, g.Text); again.Text != g.Text || string(again.Label) != string(g.Label) {
		t.Errorf("%q is %q the second time", g.Text, again.Text)
	}
	for _, none := range []string{"", "  ", "# user=www", "\t# x"} {
		if g, err := Parse(none, names()); g != nil || err != nil {
			t.Errorf("%q: %v, %v", none, g, err)
		}
	}
}

func TestMistakes(t *testing.T) {
	const rest = " token=swtok label=web functions=sign"
	for line, says := range map[string]string{
		"user=nobody2" + rest:                        `there is no user "nobody2"`,
		"user=4294967295" + rest:                     "nobody's number",
		"user=" + rest:                               "is not NAME=VALUE",
		"www" + rest:                                 "is not NAME=VALUE",
		"user=www user=34" + rest:                    "stands twice",
		"token=swtok label=web functions=sign":       "nobody is granted",
		"user=www label=web functions=sign":          "the token is missing",
		"user=www token=swtok functions=sign":        "the key is missing",
		"user=www token=swtok label=web":             "the functions are missing",
		"user=www token=sw label=web functions=x":    "write one of swtok, hsm",
		"user=www token=swtok label=w functions=x":   `no function "x"`,
		"user=www" + rest + ",":                      `no function ""`,
		"user=www" + rest + " mechanisms=nope":       `no mechanism "nope"`,
		"user=www" + rest + " always-authenticate=x": "always-authenticate=granted",
		"user=www" + rest + " foo=bar":               `no word "foo"`,
		"unit=nginx" + rest:                          "whole name",
		"unit=user.slice" + rest:                     "whole name",
		"unit=a/b.service" + rest:                    "whole name",
		`user=www token=swtok id="" functions=sign`:  "empty",
		`user=www token=swtok id=0xq functions=sign`: "is no id",
		`user=www token=swtok label="web functions=`: "quote is not closed",
		"user=www\x01" + rest:                        "control character",
	} {
		if _, err := Parse(line, names()); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want %q", line, err, says)
		}
	}
}

func TestWho(t *testing.T) {
	www := Caller{UID: 33, GID: 33, Groups: []uint32{34}, Unit: "nginx.service"}
	for who, is := range map[string]bool{
		"user=www": true, "user=0": false, "group=33": true, "group=34": true, "group=0": false,
		"unit=nginx.service": true, "unit=cron.service": false,
		"user=www unit=nginx.service": true, "user=www unit=cron.service": false, "user=34 unit=nginx.service": false, "user=www group=35": false,
	} {
		g := parse(t, who+" token=swtok label=web functions=sign")
		if g.For(www) != is {
			t.Errorf("%s: %v", who, !is)
		}
	}
	set := &Set{List: []*Grant{parse(t, "user=www token=swtok label=web functions=sign"), parse(t, "user=backup token=hsm label=web functions=sign")}}
	if len(set.Of(www, "swtok")) != 1 || len(set.Of(www, "hsm")) != 0 || len(set.For("hsm")) != 1 || len(set.For("")) != 0 || (*Set)(nil).Of(www, "swtok") != nil {
		t.Error("grants of another, or of another token")
	}
	if (&Grant{}).For(www) {
		t.Error("a grant of nobody is somebody's")
	}
}

func TestWhat(t *testing.T) {
	web := Key{Class: p11.CKO_PRIVATE_KEY, Label: []byte("web"), ID: []byte{1}}
	of := func(change func(*Key)) Key { k := web; change(&k); return k }
	byLabel, byBoth := parse(t, "user=www token=swtok label=web functions=sign mechanisms=ecdsa"), parse(t, "user=www token=swtok label=web id=0x01 functions=sign,derive")
	for name, c := range map[string]struct {
		key         Key
		label, both bool
	}{
		"the key":       {web, true, true},
		"another id":    {of(func(k *Key) { k.ID = []byte{2} }), true, false},
		"another label": {of(func(k *Key) { k.Label = []byte("webb") }), false, false},
		"no label":      {of(func(k *Key) { k.Label = nil }), false, false},
		"data":          {of(func(k *Key) { k.Class = p11.CKO_DATA }), false, false},
		"wants the PIN": {of(func(k *Key) { k.AlwaysAuthenticate = true }), false, false},
	} {
		if byLabel.Covers(c.key) != c.label || byBoth.Covers(c.key) != c.both {
			t.Errorf("%s: %v and %v", name, byLabel.Covers(c.key), byBoth.Covers(c.key))
		}
	}
	if always := parse(t, "user=www token=swtok label=web functions=sign always-authenticate=granted"); !always.Covers(web) || !always.Covers(of(func(k *Key) { k.AlwaysAuthenticate = true })) {
		t.Error("always-authenticate=granted does not count")
	}
	if !byLabel.Allows(p11.CKF_SIGN, p11.CKM_ECDSA) || byLabel.Allows(p11.CKF_SIGN, p11.CKM_ECDSA_SHA256) || byLabel.Allows(p11.CKF_DERIVE, p11.CKM_ECDSA) ||
		!byBoth.Allows(p11.CKF_DERIVE, p11.CKM_ECDH1_DERIVE) || byBoth.Allows(p11.CKF_DECRYPT, p11.CKM_ECDSA) {
		t.Error("functions and mechanisms")
	}
}

// What a refusal logs grants what was refused.
func TestLine(t *testing.T) {
	for _, label := range []string{"web", "", "web server", `a"b\`, "#1", "ä\n"} {
		k := Key{Class: p11.CKO_SECRET_KEY, Label: []byte(label), ID: []byte{0xab}, AlwaysAuthenticate: true}
		c := Caller{UID: 33}
		line := Line(c, "swtok", k, p11.CKF_DECRYPT, p11.CKM_AES_GCM)
		g := parse(t, line)
		if !g.For(c) || !g.Covers(k) || !g.Allows(p11.CKF_DECRYPT, p11.CKM_AES_GCM) || g.Functions != p11.CKF_DECRYPT || len(g.Mechanisms) != 1 {
			t.Errorf("%s grants something else", line)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`user=www token=swtok label="web # 1" functions=sign mechanisms=ecdsa # x`)
	f.Add(`unit=a.service token=hsm id=0x01 functions=derive always-authenticate=granted`)
	f.Fuzz(func(t *testing.T, line string) {
		g, err := Parse(line, names())
		if err != nil || g == nil {
			return
		}
		again, err := Parse(g.Text, names())
		if err != nil || again == nil || again.Text != g.Text {
			t.Errorf("%q is another grant the second time: %v", g.Text, err)
		}
	})
}
