package fs

import (
	"syscall"
	"testing"
)

// TestImportTemplates makes objects of templates: what is there is known again, also a
// secret key, and a file that has one wrong makes none.
func TestImportTemplates(t *testing.T) {
	m := mount(t)
	term := m.terminal()
	term.login()
	term.ok("printf 'class=secret-key key-type=aes label=k id=0x01 encrypt=true sensitive=false extractable=true value=0x%032d\\nclass=data label=d value=0x6869\\n' 7 > all")
	term.ok("cat all > $T/import:template && test \"$(cat $T/import:template)\" = \"k.sec\nd.dat\" && test $(cat $T/data/d) = hi")
	term.ok("test $(od -An -tx1 < $O/k.sec/value | tr -d ' ') = 00000000000000000000000000000007 && cat $O/k.sec/attr/encrypt | grep true")

	term.ok("cat all > $T/import:template && test \"$(cat $T/import:template)\" = \"# already there as k.sec\n# already there as d.dat\"")
	term.ok("sed 's/0007/0008/' all > other; cat other > $T/import:template && grep -v already $T/import:template | grep '^k.*sec$'")
	term.ok("test $(ls $O | grep -c '\\.sec$') = 2")

	term.ok("printf 'class=data label=none value=0x61\\nclass=secret-key key-type=aes value=0x61\\n' > wrong")
	term.fails("cat wrong > $T/import:template", syscall.EINVAL)
	term.ok("! test -e $T/data/none")
	term.fails("echo label=x > lone; cat lone > $T/import:template", syscall.EINVAL)
	term.fails("cat all > $T/import", syscall.EINVAL)
}
