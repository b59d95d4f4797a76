package secret

import "bytes"

// Line returns the text of a line that came from a file, in the same memory: the end
// of the line, of whichever system, and a byte order mark before it are no part of a
// PIN.
func Line(b []byte) []byte {
	b = bytes.TrimPrefix(b, []byte("\xef\xbb\xbf"))
	b = bytes.TrimSuffix(b, []byte("\n"))
	return bytes.TrimSuffix(b, []byte("\r"))
}
