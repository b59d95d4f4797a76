//go:build !cgo

package module

import "fmt"

// load says that a program built without cgo cannot load modules.
func load(path string) (calls, error) {
	return nil, fmt.Errorf("%s cannot be loaded: take a p11fs that is built with cgo", path)
}
