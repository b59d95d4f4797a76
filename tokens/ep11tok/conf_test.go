package ep11tok

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/card"
	"p11fs/tokens/card/cardway"
)

func TestParseConf(t *testing.T) {
	two := card.Target{{Adapter: 1, Domain: 2}, {Adapter: 10, Domain: 8}}
	wkvp := unhex("000102030405060708090a0b0c0d0e0f")
	for name, tt := range map[string]struct {
		src  string
		want conf
	}{
		"any":                       {"APQN_ANY\n", conf{}},
		"of 3.8.1":                  {"# cards\nLOGLEVEL 3\nAPQN_WHITELIST\n 1 2\n 0xa 010\nEND\n", conf{apqns: two, ignored: []string{"LOGLEVEL"}}},
		"in one line":               {"APQN_ALLOWLIST 1 2 10 8 END", conf{apqns: two}},
		"a pair twice":              {"APQN_ALLOWLIST 1 2 10 8 1 2 END", conf{apqns: two}},
		"words":                     {"APQN_ANY FORCE_SENSITIVE", conf{sensitive: true}},
		"sessions":                  {"STRICT_MODE APQN_ANY\nVHSM_MODE", conf{strict: true, vhsm: true}},
		"values with and without =": {"APQN_ANY\nCPFILTER /etc/f.conf\nEXPECTED_WKVP = \"0x000102030405060708090a0b0c0d0e0f\"\n", conf{filter: "/etc/f.conf", wkvp: wkvp}},
		"a longer pattern":          {"APQN_ANY EXPECTED_WKVP=\"000102030405060708090a0b0c0d0e0fff\"", conf{wkvp: wkvp}},
		"a comment behind a word":   {"APQN_ANY # all\r\n\tCPFILTER \"a file # of it\" # comment", conf{filter: "a file # of it"}},
		"what is ignored":           {"APQN_ANY\nPKEY_MODE = ENABLE4ALL\nUSE_PRANDOM\nDIGEST_LIBICA OFF\nUSE_PRANDOM OPTIMIZE_SINGLE_PART_OPERATIONS", conf{ignored: []string{"PKEY_MODE", "USE_PRANDOM", "DIGEST_LIBICA", "OPTIMIZE_SINGLE_PART_OPERATIONS"}}},
		"ours":                      {"APQN_ANY\n #p11fs: card = /run/p11fs/a.ep11 # there\n#p11fs:library=libep11.so.4\n", conf{card: "/run/p11fs/a.ep11", library: "libep11.so.4"}},
		"ours alone":                {"card = new\n", conf{card: "new", setting: true}},
		"a comment that is like it": {"APQN_ANY # p11fs: card = a\n# #p11fs: card = a\nUSE_PRANDOM #p11fs: card = a", conf{ignored: []string{"USE_PRANDOM"}}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseConf(tt.src)
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("%+v (%v), not %+v", got, err, tt.want)
			}
		})
	}
}

func TestParseConfRefused(t *testing.T) {
	for src, says := range map[string]string{
		"":                                   "it names no cards",
		"# APQN_ANY":                         "it names no cards",
		"FORCE_SENSITIVE":                    "it names no cards",
		"APQN_ANY APQN_ANY":                  "said already",
		"APQN_ANY\nAPQN_ALLOWLIST 1 2 END":   "line 2: which cards are meant is said already",
		"APQN_ALLOWLIST END":                 "pairs",
		"APQN_ALLOWLIST 1 2 3 END":           "pairs",
		"APQN_ALLOWLIST 1 2":                 "has no END",
		"APQN_ALLOWLIST 256 0 END":           "no number of an adapter",
		"APQN_ALLOWLIST -1 0 END":            "no number of an adapter",
		"APQN_ALLOWLIST 1_0 0 END":           "no number of an adapter",
		"APQN_ALLOWLIST \"1\" 0 END":         "no number of an adapter",
		"APQN_ANY FIPS_SESSION_MODE":         "FIPS_SESSION_MODE binds keys to certified sessions",
		"APQN_ANY\n\nAPQNANY":                `line 3: nothing is called "APQNANY"`,
		"APQN_ANY CPFILTER":                  "wants a value",
		"APQN_ANY CPFILTER =":                "wants a value",
		"APQN_ANY CPFILTER = =":              "wants a value",
		"APQN_ANY EXPECTED_WKVP 00":          "wants 16 bytes",
		"APQN_ANY EXPECTED_WKVP zz":          "wants 16 bytes",
		"APQN_ANY CPFILTER \"x":              "does not end",
		"\"APQN_ANY\"":                       "a name is wanted",
		"APQN_ANY\n#p11fs: cards = x":        "there are card = SOCKET and library = NAME",
		"APQN_ANY\n#p11fs: card\nFOO":        "wants a value",
		"APQN_ANY card = \"\"":               "wants a value",
		strings.Repeat("USE_PRANDOM ", 9000): "more than 8192 words",
		"APQN_ALLOWLIST " + strings.Repeat("1 2 ", card.MaxTarget+1) + "END": "more than 256 cards",
	} {
		if _, err := parseConf(src); err == nil || !strings.Contains(err.Error(), says) || p11.RVOf(err) != p11.CKR_FUNCTION_FAILED {
			t.Errorf("%.60q: %v, not %q", src, err, says)
		}
	}
}

func TestReadConf(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	plain := write(confFile, "APQN_ANY")
	if c, err := placeConf(tokens.Place{Config: plain}); err != nil || c.filter != "" {
		t.Errorf("%+v (%v)", c, err)
	}
	filter := write(filterFile, "")
	if c, err := placeConf(tokens.Place{Config: plain}); err != nil || c.filter != filter {
		t.Errorf("%+v (%v): the filter beside it is not found", c, err)
	}
	if c, err := placeConf(tokens.Place{Config: write("named.conf", "APQN_ANY CPFILTER other.conf")}); err != nil || c.filter != filepath.Join(dir, "other.conf") {
		t.Errorf("%+v (%v)", c, err)
	}
	if c, err := placeConf(tokens.Place{Dir: dir + "/none"}); err != nil || !reflect.DeepEqual(c, conf{}) {
		t.Errorf("without a file %+v (%v)", c, err)
	}
	for name, path := range map[string]string{
		"too long": write("long.conf", strings.Repeat("\n", cardway.MaxConf+1)), "not there": filepath.Join(dir, "no"), "a folder": dir, "wrong": write("wrong.conf", "X"),
	} {
		if _, err := placeConf(tokens.Place{Config: path}); p11.RVOf(err) != p11.CKR_FUNCTION_FAILED {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFilter(t *testing.T) {
	f, err := parseFilter("# comment\nXCP_CPB_ALG_RSA: CKM_RSA_PKCS, CKM_RSA_PKCS_PSS # those\n5: CKM_AES_CBC,0x1085\n\nALG_ML_KEM: CKM_AES_CBC\n")
	if err != nil {
		t.Fatal(err)
	}
	on := func(list ...int) []byte {
		b := make([]byte, 16)
		for _, n := range list {
			b[n/8] |= 0x80 >> (n % 8)
		}
		return b
	}
	for _, tt := range []struct {
		m    p11.MechanismType
		on   []byte
		want bool
	}{
		{p11.CKM_RSA_PKCS, on(30), true},
		{p11.CKM_RSA_PKCS, on(31, 29), false},
		{p11.CKM_RSA_PKCS_PSS, on(), false},
		{p11.CKM_AES_CBC, on(5, 80), true},
		{p11.CKM_AES_CBC, on(5), false},
		{p11.CKM_AES_CBC, on(80), false},
		{p11.CKM_AES_CBC_PAD, on(5), true},
		{p11.CKM_AES_ECB, on(), true},
		{p11.CKM_AES_CBC, on(5)[:1], false},
	} {
		if got := f.admits(tt.m, tt.on); got != tt.want {
			t.Errorf("%s with %x: %v", tt.m, tt.on, got)
		}
	}
	for src, says := range map[string]string{
		"ALG_RSA CKM_RSA_PKCS":                   "line 1: it is CONTROL POINT",
		"\nALG_NO: CKM_AES_CBC":                  "line 2: it is CONTROL POINT",
		"1024: CKM_AES_CBC":                      "CONTROL POINT",
		"-1: CKM_AES_CBC":                        "CONTROL POINT",
		"1: CKM_NO":                              "no mechanism",
		"1:":                                     "no mechanism",
		"1: " + strings.Repeat("1,", 2000) + "1": "more than",
	} {
		if _, err := parseFilter(src); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%.40q: %v, not %q", src, err, says)
		}
	}
}

// FuzzConf has no configuration that panics, or names cards, files or keys beyond their
// bounds.
func FuzzConf(f *testing.F) {
	for _, src := range []string{"APQN_ANY", "APQN_ALLOWLIST 1 2 END #x\n#p11fs: card = \"a b\"", "EXPECTED_WKVP = \"000102030405060708090a0b0c0d0e0f\" APQN_ANY"} {
		f.Add(src)
	}
	f.Fuzz(func(t *testing.T, src string) {
		c, err := parseConf(src)
		if err != nil {
			if p11.RVOf(err) != p11.CKR_FUNCTION_FAILED || len(err.Error()) > 4*len(src)+400 {
				t.Errorf("%q: %v", src, err)
			}
			return
		}
		if len(c.apqns) > card.MaxTarget || c.wkvp != nil && len(c.wkvp) != wkvpSize {
			t.Errorf("%q is %+v", src, c)
		}
		// What was understood can be said again.
		again := "APQN_ANY\n"
		if len(c.apqns) > 0 {
			again = "APQN_ALLOWLIST"
			for _, a := range c.apqns {
				again += fmt.Sprintf(" %d %d", a.Adapter, a.Domain)
			}
			again += " END\n"
		}
		got, err := parseConf(again)
		if err != nil || !reflect.DeepEqual(got.apqns, c.apqns) {
			t.Errorf("%q is %+v, and %q %+v (%v)", src, c, again, got, err)
		}
	})
}

// FuzzFilter has no filter that panics, and none that hides what it does not name.
func FuzzFilter(f *testing.F) {
	f.Add("XCP_CPB_ALG_RSA: CKM_RSA_PKCS, CKM_RSA_PKCS_PSS # those\n5: CKM_AES_CBC,0x1085\n", uint64(1))
	f.Fuzz(func(t *testing.T, src string, m uint64) {
		list, err := parseFilter(src)
		if err != nil {
			return
		}
		if !list.admits(p11.MechanismType(m), []byte(strings.Repeat("\xff", 128))) {
			t.Errorf("%q hides %#x with all points on", src, m)
		}
	})
}

// TestVacant has a slot without cards, a token or a configuration of ours stay empty.
func TestVacant(t *testing.T) {
	dir := t.TempDir()
	absent, there := filepath.Join(dir, "absent"), filepath.Join(dir, "there")
	conf := func(text string) string {
		t.Helper()
		path := filepath.Join(t.TempDir(), confFile)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, name := range []string{there, filepath.Join(dir, "NVTOK.DAT")} {
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, tt := range map[string]struct {
		place  tokens.Place
		socket string
		vacant bool
	}{
		"nothing":                      {tokens.Place{Dir: absent}, absent, true},
		"a configuration that is away": {tokens.Place{Dir: absent, Config: absent}, absent, true},
		"stock's configuration":        {tokens.Place{Dir: absent, Config: conf("APQN_ANY")}, absent, true},
		"ours":                         {tokens.Place{Dir: absent, Config: conf("APQN_ANY\n#p11fs: card = /a")}, absent, false},
		"one that is wrong":            {tokens.Place{Dir: absent, Config: conf("APQN_ALL")}, absent, false},
		"a token":                      {tokens.Place{Dir: dir, Config: absent}, absent, false},
		"cards":                        {tokens.Place{Dir: absent}, there, false},
	} {
		if got := vacant(wayTo(nil, tt.socket), tt.place); (got != "") != tt.vacant {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// TestCaveats: doctor tells of keys that are bound to logins at cards that are not named.
func TestCaveats(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{"APQN_ANY": 0, "APQN_ANY STRICT_MODE": 1, "VHSM_MODE APQN_ANY": 1, "APQN_ALLOWLIST 0 1 END STRICT_MODE": 0} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, confFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		p := tokens.Place{Name: "mine", Dir: dir}
		if got := caveats(p); len(got) != want {
			t.Errorf("%s: %q", text, got)
		}
		if err := os.Mkdir(filepath.Join(dir, "card"), 0o700); err != nil {
			t.Fatal(err)
		}
		if got := caveats(p); len(got) != 0 {
			t.Errorf("%s, a card of its own: %q", text, got)
		}
	}
}
