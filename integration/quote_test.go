package integration

import (
	"strings"
	"testing"
)

// TestQuotes makes one key in each way to give a password and a label with blanks: written into
// generate from both shells, in each kind of quotes and as bytes, and by the command, behind
// the mechanism and not; and import takes such a label. A second of a machine.
func TestQuotes(t *testing.T) {
	t.Parallel()
	d, first := ready(t, daemonConfig{})
	first.ok("echo 'ec:p256 label=pair' > $T/generate")
	for _, shell := range []string{"bash", "dash"} {
		t.Run(shell, func(t *testing.T) {
			needTools(t, shell)
			term := d.terminal(shell)
			term.ok("echo " + userPIN + " > $T/login && cat $O/pair.pub/public.pem > pair.pem")
			const rest = "salt=0x0102030405060708 iterations=1000 value-len=16 sensitive=false extractable=true"
			made := 0
			for _, line := range []string{
				`echo 'pkcs5-pbkd2 password="two words" ` + rest + ` label="the key"' > $T/generate`,
				`echo "pkcs5-pbkd2 label='the key' ` + rest + ` password='two words'" > $T/generate`,
				`echo "pkcs5-pbkd2,password=\"two words\",` + strings.ReplaceAll(rest, " ", ",") + `,label='the key'" > $T/generate`,
				`echo 'pkcs5-pbkd2 password=0x74776f20776f726473 ` + rest + ` label="the key"' > $T/generate`,
				`p11fs generate swtok pkcs5-pbkd2 password="two words" ` + rest + ` label="the key"`,
				`p11fs generate swtok pkcs5-pbkd2,password="two words",salt=0x0102030405060708,iterations=1000 value-len=16 sensitive=false extractable=true "label=the key"`,
				`p11fs generate swtok 'pkcs5-pbkd2,salt=0x0102030405060708,iterations=1000,password="two words"' value-len=16 sensitive=false extractable=true label='"the key"'`,
			} {
				made++
				if r := term.run(line + ` && cat "$O/the key.sec/value" > value && rmdir "$O/the key.sec"`); r.status != 0 {
					t.Errorf("%s: %s%s", line, r.err, term.run("cat $T/error").out)
					continue
				}
				if made == 1 {
					term.ok("mv value want && test $(wc -c < want) = 16")
					continue
				}
				term.ok("cmp value want")
			}
			term.ok(`cat pair.pem > "$T/import:pem,label=\"my key\"" && rmdir "$O/my key.pub"`)
			term.ok(`cat pair.pem > $T/'import:label="my key",id=0x77' && test "$(cat "$O/my key.pub/attr/id")" = 0x77 && rmdir "$O/my key.pub"`)
		})
	}
}
