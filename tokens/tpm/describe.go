package tpm

import (
	"context"
	"errors"
	"fmt"

	"p11fs/tokens"
	"p11fs/tokens/tpm/tpm20"
)

var _ tokens.Describer = (*token)(nil)

// Describe is tokens.Describer.
func (t *token) Describe(ctx context.Context) (lines []string) {
	chip := t.k.chip
	facts, err := chip.Facts(ctx)
	if err != nil {
		return nil
	}
	lines = append(lines, fmt.Sprintf("%s %s, firmware %s, at %s", facts.Manufacturer, facts.Vendor, facts.Firmware, chip.Device()))
	if err := chip.Knows(ctx, t.k.parent()); errors.Is(err, tpm20.ErrOther) {
		return append(lines, tpm20.ErrOther.Error())
	}
	protection := "protection " + t.k.protection()
	for _, pin := range []struct{ name, file string }{{"SO", "MK_SO"}, {"user", "MK_USER"}} {
		if count, limit, ok := t.k.counted(ctx, pin.file); ok {
			protection += fmt.Sprintf(", %d tries left of the %s PIN", limit-min(count, limit), pin.name)
		}
	}
	lines = append(lines, protection)
	g, err := chip.Guard(ctx)
	if err != nil {
		return lines
	}
	left := fmt.Sprintf("%d failures left of %d for all programs of the machine", g.Most-min(g.Failures, g.Most), g.Most)
	if g.Locked {
		left = "locked for all programs of the machine"
	}
	return append(lines, fmt.Sprintf("%s, one more each %d seconds", left, g.Interval))
}

// counted is how many wrong PINs the index of a key file has counted, and lets pass.
func (k *keeper) counted(ctx context.Context, file string) (count, limit uint32, ok bool) {
	b, _, err := readFile(k.dir, file, keyFileSize)
	if err != nil {
		return 0, 0, false
	}
	kept, err := parseKeyFile(b)
	if err != nil || kept.seal.Index == 0 {
		return 0, 0, false
	}
	count, limit, err = k.chip.Failures(ctx, kept.seal.Index)
	return count, limit, err == nil
}
