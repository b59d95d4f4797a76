// Package config reads opencryptoki.conf, the table of slots.
//
// # What is accepted
//
// The grammar is that of openCryptoki 3.8.1 as its slot daemon really reads it,
// not as its manual page describes it:
//
//	file := { "version" STRING EOL
//	        | "slot" INTEGER BEGIN EOL { STRING EQUAL STRING EOL } END
//	        | EOL }
//
// BEGIN is "{", or a newline with "{" right behind it; EOL is a newline or a
// comment up to and with its newline; a STRING is a run of characters other
// than quote, =, blank, tab and newline, or anything between two quotes on one
// line. The longest token wins, so "{x" is a STRING and "3.1" is not an
// INTEGER. It follows that a brace may not be indented, that a block holds no
// blank and no comment-only line, that files with CRLF fail, and that a value
// of digits only needs quotes.
//
// Keys are stdll, description, manufacturer, hwversion, firmwareversion,
// confname, tokname and, from later releases, tokversion, each of which may be
// cut short ("d" is description). The lines of a block take effect from the last
// to the first.
//
// # What happens with a mistake
//
// Every mistake names file, line and reason. Where the stock daemon refuses to
// start, so do we, and say why: a block without stdll, a slot number used
// twice or above 1023, a tokname used twice. We refuse too where the stock
// daemon would write past its buffers (a value of 256 bytes or more, a tokname
// over 50 bytes) or out of its directories (a tokname that is no plain name), and
// for a tokversion that later releases refuse.
//
// Where the stock daemon silently goes on with less, so do we, with a warning:
// a syntax error drops everything behind it but keeps the slots that were
// complete before, an unknown or repeated key is ignored, and so is a
// description or manufacturer that is empty or too long.
package config
