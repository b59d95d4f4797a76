//go:build !cgo

package swtok

import "errors"

// loadLibcrypto says that a program built without cgo cannot load libraries.
func loadLibcrypto(string) (Provider, error) {
	return nil, errors.New("built without cgo")
}
