//go:build !cgo

package hostlib

import (
	"errors"
	"log/slog"

	"p11fs/tokens/card"
)

// Load fails: without cgo there is no calling of C.
func Load(card.ABI, string, *slog.Logger, func(error)) (card.Transport, error) {
	return nil, errors.New("this program was built without cgo, and cannot load a library")
}
