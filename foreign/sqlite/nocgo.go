//go:build !cgo

package sqlite

import "fmt"

// Open says that a program built without cgo cannot load libraries.
func Open(path string, _ int) (DB, error) {
	return nil, fmt.Errorf("%s is a SQLite database, which this p11fs cannot read: take one that is built with cgo", path)
}
