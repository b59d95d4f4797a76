package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// suitePIN is the PIN that the suites have written into them.
const suitePIN = "1234"

// suiteToken makes a token for a suite.
const suiteToken = "printf '%s\\n' " + soPIN + " demo " + suitePIN + " | p11fs init swtok\n"

// A goSuite is the test suite of a Go package that uses PKCS#11 modules. Its
// module is required by testdata/clients/suites, not by p11fs.
type goSuite struct {
	pkg string
	// Tests that cannot pass, by module: for what reason is said beside each.
	skip map[string][]string
}

func goSuites() []goSuite {
	return []goSuite{
		{pkg: "github.com/miekg/pkcs11", skip: map[string][]string{
			"": {
				"TestGetInfo",      // wants to hear that the manufacturer is SoftHSM
				"TestConstCouunt$", // reads its own source in the working directory
			},
			"p11-kit-client": {
				"TestSymmetricEncryption/.*/CBC", // AES-CBC is not passed by p11-kit 0.24
			},
		}},
		{pkg: "github.com/ThalesGroup/crypto11", skip: map[string][]string{
			"": {
				"TestInvalidPinDoesntDestroyLibrary", // wants two tokens, called token1 and token2
				// These fail with SoftHSM as well: the first three want no error
				// for a key that is not there, where the package itself gives one;
				// the last finds the login of a context that another test left.
				"TestKeyPairDelete", "TestKeyDelete", "TestAccessSameLibraryTwice", "TestNoLogin",
				"TestHmac", // makes its keys by mechanisms of another vendor
			},
			"p11-kit-client": {
				"TestBlockMode", "TestHardSymmetric/.*/(CBC|GCM).*", // AES-CBC and AES-GCM are not passed by p11-kit 0.24
			},
		}},
	}
}

// TestAlone runs the clients that want a token for themselves, since they
// initialise it or count its objects: pkcs11-tool with all its commands, the
// suites of two Go packages, and graphene-pk11 for Node.js.
func TestAlone(t *testing.T) {
	t.Parallel()
	// What both modules are tried with is made once.
	var programs []func() (string, error)
	for _, s := range goSuites() {
		programs = append(programs, sync.OnceValues(func() (string, error) { return s.build(workDir(t, "suite")) }))
	}
	graphene := sync.OnceValues(func() (string, error) { return fetchGraphene(workDir(t, "graphene")) })
	for _, m := range modules() {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			d := newClientDaemon(t, suiteToken)
			t.Run("pkcs11-tool", func(t *testing.T) {
				needTools(t, "pkcs11-tool", "openssl")
				runClient(t, d, m.path(t), clientFile(t, "pkcs11-tool-all.sh"), nil)
			})
			for i, s := range goSuites() {
				t.Run(s.pkg, func(t *testing.T) { s.run(t, d, m, programs[i]) })
			}
			t.Run("graphene-pk11", func(t *testing.T) { runGraphene(t, m, graphene) })
		})
	}
}

// grapheneSkips are the tests of graphene-pk11 that cannot pass, by module.
func grapheneSkips(module string) string {
	skip := []string{
		"AES AesCBC wrap/unwrap",         // wraps a key that was not asked to be extractable
		"ECDSA generate ECDSA secp192r1", // P-192 is not offered
		"ECDSA sign/verify",              // wants an exception where the present version of the package returns false
		"Module NSS",                     // is about the module of NSS
		"Object set function",            // wants CKA_PRIVATE to be true unless said; PKCS#11 leaves it to the token
		"Slot slot props",                // wants the slot and the token to have one manufacturer
		"Slot token props",               // asks for timeUtc, which the package calls utcTime
		"Slot mechanism collection",      // wants the first mechanism to be MD5; it fails with SoftHSM as well
	}
	if module == "p11-kit-client" {
		// Not passed by p11-kit 0.24.
		skip = append(skip, "AES AesCBC", "AES AesGCM", "ECDSA derive", "RSA sign/verify SHA-224", "RSA PSS")
	}
	return strings.Join(skip, "|")
}

// runGraphene runs a program of ours over graphene-pk11, and its own tests, which
// want a token without objects.
// Node.js and npm are not among what make test installs: npm alone brings some
// 400 packages.
func runGraphene(t *testing.T, m module, fetched func() (dir string, err error)) {
	for _, tool := range []string{"node", "npm"} {
		_, err := exec.LookPath(tool)
		need(t, err == nil, tool)
	}
	needTools(t, "gcc")
	dir, err := fetched()
	if err != nil {
		t.Fatal(err)
	}
	need(t, dir != "", "the npm registry")
	d := newClientDaemon(t, suiteToken)
	files := map[string]string{}
	for _, name := range []string{"use.js", "suite.js"} {
		files[name] = clientFile(t, filepath.Join("graphene", name))
	}
	out := runClient(t, d, m.path(t), `ln -s `+dir+`/node_modules
node use.js $M `+suitePIN+`
pkcs11-tool --module $M --login --login-type so --so-pin `+soPIN+` --change-pin --new-pin `+suitePIN+`
node suite.js $M `+suitePIN+` '`+grapheneSkips(m.name)+`'
`, files)
	passing := regexp.MustCompile(`(?m)^ *(\d+) passing`).FindStringSubmatch(out)
	if passing == nil || len(passing[1]) < 2 {
		t.Errorf("its tests did not run:\n%s", out)
		return
	}
	t.Logf("%s of its tests passed", passing[1])
}

// fetchGraphene fetches and compiles graphene-pk11 in a directory, and returns that, or
// nothing where the npm registry is out of reach.
func fetchGraphene(dir string) (string, error) {
	if exec.Command("npm", "view", "graphene-pk11@2.3.6", "version").Run() != nil {
		return "", nil
	}
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("testdata", "clients", "graphene"))); err != nil {
		return "", err
	}
	cmd := exec.Command("sh", "-c", `npm ci --no-audit --no-fund --nodedir="$(node -p 'path.resolve(process.execPath, "../..")')"`)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "HOME="+dir, "TMPDIR="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("npm ci: %w\n%s", err, out)
	}
	return dir, nil
}

// build makes the suite a program in a directory, and returns its path, or nothing where
// its modules are out of reach.
func (s goSuite) build(dir string) (string, error) {
	own, program := filepath.Join("testdata", "clients", "suites"), filepath.Join(dir, "suite.test")
	download := exec.Command("go", "mod", "download")
	download.Dir = own
	if download.Run() != nil {
		return "", nil
	}
	build := exec.Command("go", "test", "-c", "-vet=off", "-mod=readonly", "-o", program, s.pkg)
	build.Dir = own
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%v: %w\n%s", build, err, out)
	}
	return program, nil
}

// run runs the suite, once it is built, in a directory of its own.
func (s goSuite) run(t *testing.T, d *daemon, m module, built func() (program string, err error)) {
	needTools(t, "go", "gcc")
	dir := workDir(t, "suite")
	program, err := built()
	if err != nil {
		t.Fatal(err)
	}
	need(t, program != "", "the modules of "+s.pkg)
	config, err := json.Marshal(map[string]string{"Path": m.path(t), "TokenLabel": "demo", "Pin": suitePIN})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config"), config, 0o644); err != nil {
		t.Fatal(err)
	}
	script := "cd " + dir + "\nSOFTHSM_LIB=$M SOFTHSM_PIN=" + suitePIN + " CRYPTO11_SKIP=DSA " + program
	if skip := append(append([]string{}, s.skip[""]...), s.skip[m.name]...); len(skip) > 0 {
		script += " -test.skip '" + strings.Join(skip, "|") + "'"
	}
	out := runClient(t, d, m.path(t), script+"\n", nil)
	if !strings.Contains(out, "\nPASS\n") || strings.Contains(out, "no tests to run") {
		t.Errorf("it did not say that it passed:\n%s", out)
	}
}
