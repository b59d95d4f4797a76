package ep11tok

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"p11fs/p11"
	"p11fs/tokens/card/cardway"
	"p11fs/tokens/card/ep11"
)

// filterFile is the control-point filter of a configuration that names none.
const filterFile = "ep11cpfilter.conf"

// A filter says which mechanisms control points of a card switch off. Each of its lines is
// "POINT: MECHANISM, MECHANISM …", by name or by number.
type filter []filterLine

type filterLine struct {
	point      int
	mechanisms []p11.MechanismType
}

// maxListed is how many mechanisms one line may have.
const maxListed = 1024

// parseFilter reads a filter.
func parseFilter(src string) (filter, error) {
	var f filter
	n := 0
	for line := range strings.Lines(src) {
		n++
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		bad := func(format string, args ...any) error {
			return cardway.Word{Line: n}.Bad(fmt.Sprintf(format, args...))
		}
		name, list, ok := strings.Cut(line, ":")
		point, known := ep11.PointOf(strings.TrimSpace(name))
		if !ok || !known {
			return nil, bad("it is CONTROL POINT: MECHANISM, MECHANISM, not %s", cardway.Clip(line))
		}
		one := filterLine{point: point}
		for m := range strings.SplitSeq(list, ",") {
			m = strings.TrimSpace(m)
			mt, err := p11.ParseMechanismType(m)
			if number, nerr := strconv.ParseUint(m, 0, 64); nerr == nil {
				mt, err = p11.MechanismType(number), nil
			}
			if err != nil {
				return nil, bad("there is no mechanism %s", cardway.Clip(m))
			}
			if one.mechanisms = append(one.mechanisms, mt); len(one.mechanisms) > maxListed {
				return nil, bad("there are more than %d mechanisms", maxListed)
			}
		}
		f = append(f, one)
	}
	return f, nil
}

// admits says whether the control points of a card, of which the first is bit 0x80 of byte 0,
// leave a mechanism: none that names it is off.
func (f filter) admits(m p11.MechanismType, on []byte) bool {
	return !slices.ContainsFunc(f, func(l filterLine) bool {
		return slices.Contains(l.mechanisms, m) && !ep11.HasPoint(on, l.point)
	})
}

// readFilter reads the filter of a configuration: without a name there is none.
func readFilter(path string) (filter, error) {
	if path == "" {
		return nil, nil
	}
	src, err := cardway.ReadFile(path)
	if err != nil {
		return nil, err
	}
	f, err := parseFilter(src)
	if err != nil {
		return nil, p11.Errorf(p11.CKR_FUNCTION_FAILED, "%s, %w", path, err)
	}
	return f, nil
}
