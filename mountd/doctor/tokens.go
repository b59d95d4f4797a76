package doctor

import (
	"fmt"
	"os"
)

// tokens looks for tokens that no daemon will open.
func (e Examination) tokens() Finding {
	f := Finding{Check: "tokens"}
	slots, _, err := e.Slots()
	if err != nil {
		f.Detail = "not known without a configuration" // of which another check tells
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
