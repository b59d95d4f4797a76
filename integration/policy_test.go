package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// testPolicy allows what a token directory of format 3.8 is kept with, and a little more.
const testPolicy = `# a policy
version policy-0
strength = 112
allowedmechs ( CKM_DES3_KEY_GEN, CKM_DES3_CBC, CKM_SHA_1, CKM_MD5,
	CKM_RSA_PKCS_KEY_PAIR_GEN, CKM_SHA256_RSA_PKCS, CKM_RSA_PKCS_OAEP, CKM_SHA256,
	CKM_AES_KEY_GEN, CKM_AES_CBC, CKM_EC_KEY_PAIR_GEN, CKM_ECDSA_SHA256 )
allowedcurves ( PRIME256V1 )
allowedmgfs ( CKG_MGF1_SHA256 )
`

const testStrengths = `version strength-0
strength 112 { MOD_EXP = 2048 ECC = 224 SYMMETRIC = 80 digest = 128 signature = 64 }
`

// allowedByTest are the mechanisms that are left of a token's.
const allowedByTest = "rsa-pkcs-key-pair-gen des3-key-gen rsa-pkcs-oaep des3-cbc sha-1 sha256 md5 aes-key-gen aes-cbc ec-key-pair-gen sha256-rsa-pkcs ecdsa-sha256"

// writePolicy puts the files of a policy into the daemon's configuration.
func (d *daemon) writePolicy(policy, strengths string) {
	d.t.Helper()
	dir := filepath.Join(d.dir, "config/p11fs")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		d.t.Fatal(err)
	}
	for name, text := range map[string]string{"policy.conf": policy, "strength.conf": strengths} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			d.t.Fatal(err)
		}
	}
}

// TestPolicy has a daemon with a policy: the mount and both modules list what it allows,
// and do nothing else.
func TestPolicy(t *testing.T) {
	t.Parallel()
	needTools(t, "python3", "pkcs11-tool", "openssl")
	d := newDaemon(t, daemonConfig{})
	d.start()
	term := d.terminal()
	d.initToken(term)
	term.ok("echo " + userPIN + " > $T/login; echo rsa:1024 label=weak id=0x11 > $T/generate; echo ec:p384 label=curve > $T/generate; echo aes:128 label=box > $T/generate")
	term.close()
	d.stop()
	d.writePolicy(testPolicy, testStrengths)
	d.start()
	term = d.terminal()
	term.ok("echo " + userPIN + " > $T/login")
	refused := func(line string, errno syscall.Errno) {
		t.Helper()
		term.fails(line, errno)
		if why := term.ok("cat $T/error"); !strings.Contains(why, "policy") {
			t.Errorf("%s: %s", line, why)
		}
	}

	t.Run("mount", func(t *testing.T) {
		term.want("sort $T/mechanisms | cut -d' ' -f1", strings.Join(sorted(allowedByTest), "\n")+"\n")
		term.ok("grep -q '^rsa-pkcs-oaep 2048 ' $T/mechanisms")
		term.ok("echo rsa:2048 label=web id=0x22 > $T/generate && printf msg > msg && cat msg > $O/web.key/sign && cat $O/web.key/sign > sig")
		term.ok("cat $O/web.pub/public.pem > web.pem && openssl dgst -sha256 -verify web.pem -signature sig msg")
		refused("/bin/echo rsa:1024 label=no > $T/generate", syscall.EINVAL)
		refused("/bin/echo ec:p384 label=no > $T/generate", syscall.EINVAL)
		term.ok("echo ec:p256 label=tls > $T/generate")
		refused("/bin/cat msg > $O/weak.key/sign", syscall.EINVAL)
		refused("/bin/cat msg > $O/curve.key/sign", syscall.EPERM)
		refused("/bin/cat msg > $O/web.key/sign:sha512-rsa-pkcs", syscall.EOPNOTSUPP)
		refused("/bin/cat msg > $O/web.pub/encrypt:rsa-pkcs-oaep,hash=sha256,mgf=mgf1-sha1", syscall.EINVAL)
		term.ok("cat msg > $O/web.pub/encrypt:rsa-pkcs-oaep,hash=sha256")
		term.ok("[ ! -e $T/digest/sha512 ] && [ -e $T/digest/sha256 ]")
	})
	t.Run("modules", func(t *testing.T) {
		script, err := filepath.Abs("testdata/mechanisms.py")
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range modules() {
			module := m.path(t)
			env := "eval \"$(" + binary() + " env)\"; "
			all := strings.Fields(term.ok("cut -d' ' -f1 $T/mechanisms | xargs -n1 " + binary() + " mechanisms | sed -n 's/^number *//p'"))
			for _, number := range strings.Fields(term.ok(env + "python3 " + script + " " + module + " | cut -d' ' -f1")) {
				if !strings.Contains(" "+strings.Join(all, " ")+" ", " "+number+" ") {
					t.Errorf("%s lists %s", m.name, number)
				}
			}
			tool := env + "pkcs11-tool --module " + module + " --login --pin " + userPIN + " "
			term.ok(tool + "--sign --mechanism SHA256-RSA-PKCS --id 22 --input-file msg --output-file s && openssl dgst -sha256 -verify web.pem -signature s msg")
			for _, line := range []string{
				"--sign --mechanism SHA512-RSA-PKCS --id 22 --input-file msg --output-file s2",
				"--sign --mechanism SHA256-RSA-PKCS --id 11 --input-file msg --output-file s2",
				"--keypairgen --key-type rsa:1024 --label no", "--keypairgen --key-type EC:secp384r1 --label no",
			} {
				if r := term.run(tool + line); r.status == 0 {
					t.Errorf("%s: pkcs11-tool %s worked", m.name, line)
				}
			}
		}
		term.ok("[ ! -e $O/no.key ] && [ ! -e $O/no.pub ]")
	})
	t.Run("status", func(t *testing.T) {
		file := filepath.Join(d.dir, "config/p11fs/policy.conf")
		term.ok("grep -Fx 'policy " + file + ": strength 112, 12 mechanisms, 1 curves, 1 MGFs' $P/status")
		if r := term.run(binary() + " doctor"); !strings.Contains(r.out, "good   "+file+": a policy is on") {
			t.Errorf("doctor says %s", r.out)
		}
	})
	term.close()
	d.stop()

	t.Run("wrong", func(t *testing.T) {
		for name, c := range map[string]struct{ policy, strengths, says string }{
			"syntax":       {"version policy-0\nstrength = 0\nallowedmechs ( CKM_NONE )\n", testStrengths, "policy.conf:3: unknown mechanism"},
			"no strengths": {testPolicy, "version strength-0\nstrength 113 { }\n", "strength.conf:2: only strength"},
		} {
			d.writePolicy(c.policy, c.strengths)
			cmd := exec.Command(binary(), "mount", d.mnt)
			cmd.Env = append(os.Environ(), d.env()...)
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), c.says) {
				t.Errorf("%s: %v, %s", name, err, out)
			}
		}
		d.writePolicy(testPolicy, testStrengths)
		if err := os.Chmod(filepath.Join(d.dir, "config/p11fs/policy.conf"), 0o666); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(binary(), "doctor")
		cmd.Env = append(os.Environ(), d.env()...)
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "chmod go-w ") {
			t.Errorf("doctor: %v, %s", err, out)
		}
	})
	t.Run("store", func(t *testing.T) {
		if err := os.Remove(filepath.Join(d.dir, "config/p11fs/policy.conf")); err != nil {
			t.Fatal(err)
		}
		d.writePolicy("version policy-0\nstrength = 112\n", strings.Replace(testStrengths, "SYMMETRIC = 80", "SYMMETRIC = 112", 1))
		d.start()
		term := d.terminal()
		term.ok("grep -q '^store swtok failed: its directory is kept with keys of 80 bits' $P/status")
		term.ok("[ ! -e $T ]")
		term.close()
		d.stop()
	})
}

func sorted(words string) []string {
	return slices.Sorted(slices.Values(strings.Fields(words)))
}

// TestPolicyOfTheMachine starts the slot daemon with a policy in /etc/opencryptoki: one
// that is not kept as openCryptoki wants it is refused. Programs with the library of
// openCryptoki 3.8, which knows no policy, do what they always do.
func TestPolicyOfTheMachine(t *testing.T) {
	t.Parallel()
	h := newSlotHost(t, stockConfig)
	defer h.stop()
	h.ok("mkdir /run/etc && cp $STATE/conf /run/etc/opencryptoki.conf && chmod 0755 /run/etc && umount /etc/opencryptoki/opencryptoki.conf && mount --bind /run/etc /etc/opencryptoki")
	h.ok("printf '" + strings.ReplaceAll(testPolicy, "\n", `\n`) + "' > /etc/opencryptoki/policy.conf; printf '" + strings.ReplaceAll(testStrengths, "\n", `\n`) + "' > /etc/opencryptoki/strength.conf")
	h.ok("chown root:pkcs11 /etc/opencryptoki/*.conf; chmod 0644 /etc/opencryptoki/policy.conf; chmod 0640 /etc/opencryptoki/strength.conf")
	if r := h.run("pkcsslotd -f 2>&1"); r.status == 0 || !strings.Contains(r.out+h.syslog(), "its mode is 0644: chmod 0640 /etc/opencryptoki/policy.conf") {
		t.Errorf("with a policy that everybody may read it ends with %d: %s", r.status, r.out)
	}
	list := func() string {
		h.startSlotd()
		defer h.endSlotd()
		h.ok("pkcsconf -t >/dev/null")
		return h.ok("pkcs11-tool --module " + h.module + " -M")
	}
	h.ok("chmod 0640 /etc/opencryptoki/policy.conf")
	with := list()
	h.ok("rm /etc/opencryptoki/policy.conf")
	if without := list(); with != without || strings.Count(with, "\n") < 40 {
		t.Errorf("with a policy the stock library lists\n%s, without\n%s", with, without)
	}
}
