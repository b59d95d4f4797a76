package softhsm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"

	"p11fs/foreign"
	"p11fs/foreign/sqlite"
	"p11fs/p11"
	"p11fs/secret"
)

// tokenObject is the number of the object that describes the token.
const tokenObject = 1

// A database is the SQLite back end.
type database struct{ db sqlite.DB }

// A table has the values of one kind, as kind does in a file.
type table struct {
	name string
	kind int
}

func tables() []table {
	return []table{{"attribute_boolean", kindBool}, {"attribute_integer", kindNumber}, {"attribute_binary", kindBytes}, {"attribute_array", kindTemplate}}
}

func openDatabase(path string) (*database, error) {
	db, err := sqlite.Open(path, foreign.MaxObject)
	if err != nil {
		return nil, err
	}
	d := &database{db}
	if err := d.plain(); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), d.close())
	}
	return d, nil
}

// plain refuses what stands in for a table and works while it is read: a view, which may
// never come to an end, or a virtual table.
func (d *database) plain() error {
	names := "'object'"
	for _, t := range tables() {
		names += ", '" + t.name + "'"
	}
	const virtual = 0 // has no page of its own
	return d.db.Query("select name from sqlite_master where lower(name) in ("+names+") and (type <> 'table' or rootpage <= ? or sql not like 'create table%')", virtual,
		func(r sqlite.Row) error {
			return fmt.Errorf("%q is no plain table: this is no database of SoftHSM2", r.Bytes(0))
		})
}

func (d *database) close() error { return d.db.Close() }

// objects returns the numbers of the objects.
func (d *database) objects() (names []string, err error) {
	err = d.db.Query("select id from object where id <> ?", tokenObject, func(r sqlite.Row) error {
		if len(names) > foreign.MaxObjects {
			return fmt.Errorf("the token has more than %d objects", foreign.MaxObjects)
		}
		names = append(names, strconv.FormatInt(r.Int(0), 10))
		return nil
	})
	return names, err
}

func (d *database) named(name string) (stored, error) {
	n, err := strconv.ParseInt(name, 10, 64)
	if err != nil {
		return stored{}, err
	}
	return d.object(n)
}

// object reads an object.
func (d *database) object(n int64) (s stored, err error) {
	s.bytes = make(map[p11.AttributeType]bool)
	size := 0
	for _, t := range tables() {
		err := d.db.Query("select type, value from "+t.name+" where object_id = ?", n, func(r sqlite.Row) error {
			a := p11.AttributeType(r.Int(0))
			value, err := column(r, t.kind, a)
			if err != nil {
				return err
			}
			if size += len(value); size > foreign.MaxObject {
				secret.Wipe(value)
				return fmt.Errorf("it has more than %d bytes", foreign.MaxObject)
			}
			s.bytes[a] = t.kind == kindBytes && a != p11.CKA_ALLOWED_MECHANISMS
			return s.add(a, value)
		})
		if err != nil {
			s.attrs.Wipe()
			return stored{}, err
		}
	}
	return s, nil
}

// column is the value of an attribute. A list of mechanisms stands among the bytes.
func column(r sqlite.Row, kind int, t p11.AttributeType) ([]byte, error) {
	switch kind {
	case kindBool:
		return p11.Bool(r.Int(1) != 0), nil
	case kindNumber:
		return p11.Ulong(uint64(r.Int(1))), nil
	case kindTemplate:
		return template(r.Bytes(1), binary.NativeEndian, true, 0)
	}
	if t == p11.CKA_ALLOWED_MECHANISMS {
		return mechanisms(r.Bytes(1), binary.NativeEndian)
	}
	return r.Bytes(1), nil
}
