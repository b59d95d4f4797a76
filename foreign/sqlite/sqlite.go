//go:build cgo

package sqlite

// #cgo LDFLAGS: -ldl
// #include <stdlib.h>
// #include "lib.h"
import "C"

import (
	"errors"
	"fmt"
	"os"
	"unsafe"
)

// A library is the machine's library with a database that it has opened.
type library struct {
	lib  *C.library
	db   unsafe.Pointer
	path string
}

// file is the name of the machine's library.
const file = "libsqlite3.so.0"

// Open opens the database to read it. No value in it may be longer than longest bytes.
func Open(path string, longest int) (DB, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	d := &library{lib: (*C.library)(C.calloc(1, C.sizeof_library)), path: path}
	name := C.CString(file)
	defer C.free(unsafe.Pointer(name))
	if missing := C.database_load(d.lib, name); missing != nil {
		return nil, errors.Join(fmt.Errorf("%s is a SQLite database, and %s cannot be loaded: apt-get install libsqlite3-0", path, C.GoString(missing)), d.Close())
	}
	p := C.CString(path)
	defer C.free(unsafe.Pointer(p))
	if C.database_open(d.lib, p, C.int(longest), &d.db) != 0 {
		return nil, errors.Join(d.failed(), d.Close())
	}
	return d, nil
}

// failed is the error of what the library was asked for last.
func (d *library) failed() error {
	return fmt.Errorf("%s: %s", d.path, C.GoString(C.database_error(d.lib, d.db)))
}

// Close is DB.
func (d *library) Close() error {
	if d.lib != nil {
		if d.db != nil {
			C.database_close(d.lib, d.db)
		}
		C.free(unsafe.Pointer(d.lib))
		d.lib, d.db = nil, nil
	}
	return nil
}

// A row is the row that a statement is at.
type row struct {
	lib       *C.library
	statement unsafe.Pointer
}

// Int is Row.
func (r row) Int(column int) int64 { return int64(C.database_int(r.lib, r.statement, C.int(column))) }

// Bytes is Row.
func (r row) Bytes(column int) []byte {
	var n C.int
	b := C.database_blob(r.lib, r.statement, C.int(column), &n)
	if b == nil || n <= 0 {
		return []byte{}
	}
	return C.GoBytes(b, n)
}

// Query is DB.
func (d *library) Query(query string, parameter int64, each func(Row) error) error {
	q := C.CString(query)
	defer C.free(unsafe.Pointer(q))
	var statement unsafe.Pointer
	if C.database_prepare(d.lib, d.db, q, C.int64_t(parameter), &statement) != 0 {
		defer C.database_finalize(d.lib, statement)
		return d.failed()
	}
	defer C.database_finalize(d.lib, statement)
	for {
		switch C.database_step(d.lib, statement) {
		case C.ROW:
			if err := each(row{d.lib, statement}); err != nil {
				return err
			}
		case C.DONE:
			return nil
		default:
			return d.failed()
		}
	}
}
