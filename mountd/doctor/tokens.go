package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"p11fs/mountd"
)

// hidden returns the token directories where whoever asks may not look into them.
func (e Examination) hidden() string {
	if _, err := os.ReadDir(e.Paths.Data); errors.Is(err, fs.ErrPermission) {
		return e.Paths.Data
	}
	return ""
}

// tokens looks for tokens that no daemon will open.
func (e Examination) tokens() Finding {
	f := Finding{Check: "tokens"}
	slots, _, err := e.Slots()
	if err != nil {
		f.Detail = "not known without a configuration" // of which another check tells
		return f
	}
	if dir := e.hidden(); dir != "" {
		f.Detail = "not seen: only root and the group " + mountd.Group + " may look into " + dir
		return f
	}
	found := 0
	for _, s := range slots {
		if s.Kind == nil {
			continue
		}
		if _, err := os.Stat(s.Place.Dir); err == nil {
			found++
		}
		if s.Kind.Check == nil {
			continue
		}
		if wrong, mend := s.Kind.Check(s.Place); wrong != "" {
			f.Wrong, f.Mend = fmt.Sprintf("slot %d: %s", uint64(s.ID), wrong), mend
			return f
		}
	}
	f.Detail = fmt.Sprintf("%d found", found)
	return f
}
