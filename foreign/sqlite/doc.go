// Package sqlite reads SQLite databases with the machine's own libsqlite3, which is
// loaded when there is one to read: who has a store in such a database has the library.
package sqlite

// A DB is an open database. It is used by one goroutine.
type DB interface {
	// Query calls each for the rows of a query with one parameter, until there is an
	// error.
	Query(query string, parameter int64, each func(Row) error) error
	// Close closes the database.
	Close() error
}

// A Row is a row of a result, until the function that is given it returns.
type Row interface {
	// Int is a column that is a number, or 0.
	Int(column int) int64
	// Bytes is a copy of a column that is bytes.
	Bytes(column int) []byte
}
