package pkix

import (
	"bytes"
	"fmt"
	"unsafe"

	"p11fs/p11"
)

// parseTemplates reads a file of templates, one a line. Lines that are blank or begin
// with # say nothing. The values are those of the lines: nothing is added.
func parseTemplates(data []byte) (list []p11.Attributes, err error) {
	defer func() {
		if err != nil {
			for _, o := range list {
				o.Wipe()
			}
			list = nil
		}
	}()
	number := 0
	for line := range bytes.Lines(data) {
		number++
		// Blanks at the end may be a value's.
		if line = bytes.TrimRight(bytes.TrimLeft(line, " \t\r\n"), "\r\n"); len(line) == 0 || line[0] == '#' {
			continue
		}
		if len(list) >= maxObjects {
			return list, p11.Errorf(p11.CKR_DATA_LEN_RANGE, "the file holds more than %d objects", maxObjects)
		}
		// The string is the file's own memory, which the caller wipes: the line may
		// have a key in it. It is gone when this returns, as is the file.
		o, err := p11.ParseTemplate(unsafe.String(&line[0], len(line)))
		if err != nil {
			return list, fmt.Errorf("line %d: %w", number, err)
		}
		list = append(list, o)
		if _, ok := o.Class(); !ok {
			return list, p11.Errorf(p11.CKR_TEMPLATE_INCOMPLETE, "line %d: class is missing", number)
		}
		if err := o.Validate(); err != nil {
			return list, fmt.Errorf("line %d: %w", number, err)
		}
	}
	if len(list) == 0 {
		return nil, p11.Errorf(p11.CKR_DATA_INVALID, "the file has no template")
	}
	return list, nil
}
