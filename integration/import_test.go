package integration

import (
	"encoding/base64"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
)

// softHSM is SoftHSM2's module.
const softHSM = "/usr/lib/softhsm/libsofthsm2.so"

// softHSMStore is a line that makes two tokens of SoftHSM2 below soft/: one whose keys
// leave it only as its files, and one whose keys are extractable; and the functions all
// and ext to call pkcs11-tool on them.
const softHSMStore = `set -e
mkdir -p soft && printf 'directories.tokendir = %s/soft\nobjectstore.backend = file\nlog.level = ERROR\n' "$PWD" > soft.conf
export SOFTHSM2_CONF=$PWD/soft.conf
for l in all ext; do softhsm2-util --init-token --free --label $l --so-pin 11112222 --pin 12345678; done
echo 12345678 > pin; echo hello > msg; printf '0123456789abcdef' > block
all() { pkcs11-tool --module ` + softHSM + ` --token-label all --login --pin 12345678 "$@"; }
ext() { pkcs11-tool --module ` + softHSM + ` --token-label ext --login --pin 12345678 "$@"; }
all --keypairgen --key-type rsa:2048 --label rsa --id 01
all --keypairgen --key-type EC:prime256v1 --label ec --id 02
all --keypairgen --key-type EC:secp256k1 --label koblitz --id 03
all --keypairgen --key-type EC:edwards25519 --label ed --id 04
all --keygen --key-type AES:32 --label aes --id 05 --sensitive
openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -subj /CN=site.test -days 9
openssl x509 -in cert.pem -outform der -out cert.der
all --write-object cert.der --type cert --label site --id 06
all --write-object msg --type data --label secret --private
all --write-object msg --type data --label open
ext --keypairgen --key-type rsa:2048 --label xrsa --id 11 --sensitive --extractable
ext --keypairgen --key-type EC:prime256v1 --label xec --id 12 --sensitive --extractable
ext --keypairgen --key-type EC:secp256k1 --label xkoblitz --id 16 --sensitive --extractable
ext --keygen --key-type AES:16 --label xaes --id 13 --sensitive --extractable
ext --keygen --key-type GENERIC:61 --label xmac --id 14 --sensitive --extractable
ext --keypairgen --key-type EC:prime256v1 --label stays --id 15
set +e`

// TestImportToken moves from SoftHSM2: what it has signed and encrypted is verified and
// decrypted with the keys that came. It takes 3 s.
func TestImportToken(t *testing.T) {
	t.Parallel()
	needTools(t, "softhsm2-util", "pkcs11-tool", "openssl", "python3")
	_, term := ready(t, daemonConfig{modern: true})
	term.ok("{ " + softHSMStore + "; } > made 2>&1; cat made; test -e block")
	from := "p11fs import-token soft swtok --source-pin-file pin"

	term.ok(from + " --dry-run 2>said; test $? = 2 && grep -q 'there are several tokens' said")
	term.ok(from + " --dry-run --token-label none 2>said; test $? = 2 && grep -q 'no such token, but \"[a-z]*\" (serial .*, \"[a-z]*\" (serial ' said || { cat said; false; }")
	term.ok(from + " --token-label all --dry-run > out; cat out; grep -q '^12 objects would come, 0 would be left' out && test $(ls $O | wc -l) = 0")
	term.ok("echo wrong > wrong; " + "p11fs import-token soft swtok --token-label all --source-pin-file wrong 2>said; test $? = 4 && grep -q PIN said && test $(ls $O | wc -l) = 0")
	term.ok(from + " --token-label all > out; cat out; grep -q '^12 objects came, 0 were there, 0 were left' out")
	term.ok("grep -q '^came   private-key \"rsa\" as swtok/rsa.key$' out && grep -q 'data \"secret\" as swtok/secret.dat' out")

	for _, key := range []string{"rsa", "ec", "koblitz"} {
		term.ok("all --read-object --type pubkey --label " + key + " -o pub.der && openssl pkey -pubin -inform der -in pub.der -out pub.pem")
		term.ok("p11fs sign swtok/" + key + " -o sig < msg && openssl dgst -sha256 -verify pub.pem -signature sig msg")
	}
	term.ok("all --list-objects --type pubkey --label ed > shown; point=$(sed -n 's/.*EC_POINT: *0420//p' shown); python3 -c 'import sys; sys.stdout.buffer.write(bytes.fromhex(sys.argv[1]))' 302a300506032b6570032100$point > pub.der && openssl pkey -pubin -inform der -in pub.der -out pub.pem")
	term.ok("p11fs sign swtok/ed -o sig < msg && openssl pkeyutl -verify -rawin -in msg -pubin -inkey pub.pem -sigfile sig")
	term.ok("all --encrypt -m AES-CBC-PAD --iv 00112233445566778899aabbccddeeff --id 05 -i msg -o enc && p11fs decrypt swtok/aes --mechanism aes-cbc-pad,iv=0x00112233445566778899aabbccddeeff < enc | cmp - msg")
	term.ok("cmp msg $T/data/secret && cmp msg $T/data/open && cmp cert.pem $T/certs/site.pem")
	term.ok("test \"$(cat $O/rsa.key/attr/extractable $O/rsa.key/attr/sensitive $O/rsa.key/attr/id $O/aes.sec/attr/extractable | tr '\\n' ' ')\" = 'false true 0x01 false '")
	term.ok("p11fs logout swtok && test -e $T/data/open && ! test -e $O/secret.dat && echo " + userPIN + " > $T/login")

	term.ok(from + " --token-label all --json > out; test $? = 0 && python3 -c 'import json; r = json.load(open(\"out\")); assert (r[\"there\"], r[\"left\"], len(r[\"objects\"])) == (12, 0, 12), r'")

	// A key that is public there is told, and comes as a private one if that is wanted.
	term.ok("p11fs logout swtok && cat $O/aes.sec/attr/private > was; echo " + userPIN + " > $T/login; grep -q false was && rmdir $O/aes.sec")
	term.ok(from + " --token-label all > out; cat out; grep -q '^came   secret-key \"aes\" as swtok/aes.sec (public)$' out && grep -q '^note   1 private or secret keys are public' out && rmdir $O/aes.sec")
	term.ok(from + " --token-label all --private > out; cat out; grep -q '^came   secret-key \"aes\" as swtok/aes.sec$' out && ! grep -q public, out")
	term.ok("p11fs logout swtok; ! test -e $O/aes.sec && echo " + userPIN + " > $T/login && cat $O/aes.sec/attr/private | grep -q true")

	module := "p11fs import-token --module " + softHSM + " swtok --source-pin-file pin --token-label ext"
	term.ok(module + " > out; test $? = 1 && cat out && grep -q '^left   private-key \"stays\": it is not extractable' out && grep -q '^9 objects came, 0 were there, 1 were left' out")
	term.ok(from + " --token-label ext > out; cat out; grep -q '^1 objects came, 9 were there, 0 were left' out")
	term.ok("p11fs sign swtok/xrsa -o sig < msg && ext --read-object --type pubkey --label xrsa -o pub.der && openssl dgst -sha256 -verify pub.der -keyform der -signature sig msg")
	term.ok("p11fs sign --mechanism sha256-hmac swtok/xmac -o sig < msg && ext --sign -m SHA256-HMAC --id 14 -i msg -o want && cmp want sig")

	// A damaged file is named, and the others come.
	term.ok("f=$(ls -S soft/*/*.object | head -1); head -c 700 $f > cut && cp $f whole && cp cut $f")
	term.ok("l=$(grep -q all $(dirname $f)/token.object && echo all || echo ext); " + from + " --token-label $l > out; test $? = 1 && cat out && grep -q \"^left.*$(basename $f): it is cut off\" out && grep -q ', 1 were left' out; cp whole $f")
	term.ok("all --list-objects --type privkey | grep -q koblitz")
}

// TestImportTokenKill kills the command while it works: each pair is whole, and what comes
// after brings the rest, once.
func TestImportTokenKill(t *testing.T) {
	t.Parallel()
	needTools(t, "softhsm2-util", "pkcs11-tool", "openssl")
	_, term := ready(t, daemonConfig{modern: true})
	term.ok("{ " + softHSMStore + "; } > made 2>&1; cat made; test -e block")
	from := "p11fs import-token soft swtok --source-pin-file pin --token-label all"
	for _, wait := range []string{"0.05", "0.1", "0.15", "0.2", "0.3"} {
		term.ok("timeout -s KILL " + wait + " " + from + " > /dev/null; ( for k in rsa ec ed; do test \"$(ls $O | grep -c \"^$k\\.\")\" != 1 || exit 1; done )")
	}
	term.ok(from + " > out; cat out; tail -1 out | grep ' 0 were left' && test $(ls $O | wc -l) = 12")
}

// TestImportNSS moves from a database of NSS.
func TestImportNSS(t *testing.T) {
	t.Parallel()
	needTools(t, "certutil", "openssl")
	found, _ := filepath.Glob("/usr/lib/*/libsoftokn3.so")
	need(t, len(found) > 0, "libsoftokn3.so")
	_, term := ready(t, daemonConfig{modern: true})
	term.ok("mkdir nss && echo nsspass1 > pin && certutil -N -d sql:nss -f pin && head -c 100 /dev/urandom > noise && echo hello > msg")
	term.ok("( for k in rsa ec; do certutil -S -d sql:nss -f pin -n $k -s CN=$k.test -x -t u,u,u -k $k $(test $k = ec && echo -q nistp256) -z noise >said 2>&1 || { cat said; exit 1; }; done )")
	term.ok("echo wrong > wrong; p11fs import-token nss swtok --source-pin-file wrong; test $? = 4")
	term.ok("p11fs import-token nss swtok --source-pin-file pin > out; test $? = 0 && cat out && grep -q '^6 objects came, 0 were there, 0 were left' out")
	term.ok("p11fs import-token nss swtok --source-pin-file pin > out; grep -q '^0 objects came, 6 were there, 0 were left' out")
	term.ok("( for k in rsa ec; do id=$(cut -c3- $O/$k.crt/attr/id); key=$(ls $O | grep \"^$id.key$\"); p11fs sign swtok/$key -o sig < msg && openssl x509 -in $T/certs/$k.pem -noout -pubkey > pub.pem && openssl dgst -sha256 -verify pub.pem -signature sig msg || exit 1; done )")
}

// TestExport writes what a token lets out, and reads it with openssl and age. It takes 3 s,
// most of them for age's pass phrase.
func TestExport(t *testing.T) {
	t.Parallel()
	needTools(t, "openssl")
	d, term := ready(t, daemonConfig{modern: true})
	term.ok("echo 'open it' > phrase; echo hello > msg; p11fs generate swtok rsa:2048 label=web extractable=true > made && p11fs generate swtok ec:p256 label=stays >> made")
	term.ok("printf 'class=secret-key key-type=generic-secret label=mac extractable=true value=0x%062d\n' 7 > all; cat all > $T/import:template; echo note > $T/data/note")
	term.ok("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout k.pem -out cert.pem -subj /CN=site.test -days 9 2>said && cp cert.pem $T/certs/site.pem")
	term.ok("p11fs export swtok out --passphrase-file phrase > report; test $? = 1 && cat report && grep -q '^left   swtok/stays.key: ' report && test $(grep -c '^left' report) = 1 && tail -1 report | grep '^6 objects were written, 1 were left'")
	term.ok("test \"$(ls out | tr '\\n' ' ')\" = 'mac.sec.age note.dat.age site.crt stays.pub.pem web.key.pem web.pub.pem ' && test \"$(stat -c %a out out/web.key.pem | tr '\\n' ' ')\" = '700 600 '")
	term.ok("p11fs sign swtok/web -o sig < msg && openssl pkey -in out/web.key.pem -passin file:phrase -out web.pem && openssl dgst -sha256 -sign web.pem msg | cmp - sig && openssl dgst -sha256 -verify out/web.pub.pem -signature sig msg && cmp cert.pem out/site.crt")
	term.ok("test $(ls $O | wc -l) = 7; p11fs export swtok out --passphrase-file phrase > report; test $? = 1 && grep -q 'web.key: .*is there' report")
	who, err := age.NewScryptIdentity("open it")
	if err != nil {
		t.Fatal(err)
	}
	r, err := age.Decrypt(base64.NewDecoder(base64.StdEncoding, strings.NewReader(term.ok("base64 -w0 out/mac.sec.age"))), who)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || string(got) != strings.Repeat("\x00", 30)+"\x07" {
		t.Errorf("the key is %x, %v", got, err)
	}

	term.ok("p11fs generate swtok aes:256 label=transport wrap=true unwrap=true && p11fs export swtok wrapped --wrap-with transport > report; test $? = 1 && cat report && test -s wrapped/web.key.wrapped && test -s wrapped/mac.sec.wrapped && grep -q '^left   swtok/note.dat: ' report")
	term.ok("cat wrapped/web.key.wrapped > $O/transport.sec/unwrap:aes-key-wrap-kwp,class=private-key,key-type=rsa,label=back,sign=true && p11fs sign swtok/back < msg -o again && cmp sig again")
	d.stop()
}
