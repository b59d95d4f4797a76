package main

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"p11fs/p11"
)

// mechanismPage is p11fs-mechanisms(7), made of the tables, so that it has what the
// program has.
func mechanismPage(list []p11.MechanismInfo, date time.Time) []byte {
	b := bytes.NewBufferString(".Dd " + date.Format("January 2, 2006") + `
.Dt P11FS-MECHANISMS 7
.Os
.Sh NAME
.Nm p11fs-mechanisms
.Nd the mechanisms of PKCS#11 that tokens have
.Sh DESCRIPTION
A mechanism is named in the tree as in
.Pa sign:aes-cmac ,
its parameter behind commas:
.Pa encrypt:aes-gcm,iv=0x000102030405060708090a0b .
A name of the standard, such as
.Li CKM_AES_CMAC ,
means the same.
Bytes are in hexadecimal, or characters in double quotes.
Any mechanism takes
.Li param= ,
the whole parameter as bytes.
.Pp
What a token has on one machine stands in its file
.Pa mechanisms ,
which
.Nm p11fs
.Cm mechanisms
prints with the numbers:
the cryptographic library may lack some, of which
.Nm p11fs
.Cm status
and
.Cm doctor
tell, and a policy
.Pq Xr p11fs 5
may forbid others.
.Pp
Below stand the name, the name and the number of the standard, what the mechanism is
for, the types and sizes of its keys, the words of its parameter, an example, and where the
mechanism is described.
Each example can be pasted into a shell as it is, once
.Dl T=$(p11fs path swtok) && p11fs login swtok
has named the folder of a token and logged in.
Where it takes keys, its first lines make them, unless an example before has, and the last
leaves what comes out in the file
.Pa out :
bytes, or the name of a new key.
Only
.Li ...
stands for numbers that fill a page.
.Sh MECHANISMS
.Bl -tag -width Ds
`)
	for _, m := range list {
		writeMechanism(b, m)
	}
	b.WriteString(".El\n.Sh SEE ALSO\n.Xr p11fs 1 ,\n.Xr p11fs 5 ,\n.Xr p11fs-tree 7\n")
	return b.Bytes()
}

// writeMechanism writes the item of one.
func writeMechanism(b *bytes.Buffer, m p11.MechanismInfo) {
	facts, _ := p11.MechanismFacts(m.Type)
	fmt.Fprintf(b, ".It Li %s\n%s, %#x: %s.\n", m.Type.Short(), m.Type, uint64(m.Type), strings.Join(m.Uses(), ", "))
	if len(facts.KeyTypes) > 0 {
		fmt.Fprintf(b, "Keys: %s", keysText(facts))
		if s := sizes(m); s != "-" {
			fmt.Fprintf(b, "; %s", s)
		}
		b.WriteString(".\n")
	}
	for _, w := range m.Type.ParamWords() {
		fmt.Fprintf(b, ".br\n.Li %s= :\n%s.\n", w.Name, roff(aboutWord(w)))
	}
	if m.Type.Takes() == "param=" {
		b.WriteString(".br\n.Li param= :\nthe parameter as bytes.\n")
	}
	fmt.Fprintf(b, ".Bd -literal -compact\n%s\n.Ed\n%s.\n", roff(example(m)), roff(m.Type.Chapter()))
}

// roff writes text for a manual page.
func roff(s string) string {
	return strings.NewReplacer(`\`, `\e`, "§", `\(sc`, "…", "...", "'", `\(aq`).Replace(s)
}
